"""How do files reach a run directory whole, or not at all?

Every file is written under a temporary name in its own folder, flushed to the disk and renamed; a folder of a
chunk of samples is filled under a temporary name and renamed once. A killed process leaves temporary names only
(they begin with `TEMPORARY`), which the next process removes. Formats: JSON, CSV, safetensors; never pickle.
"""

import csv
import hashlib
import io
import json
import math
import os
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

TEMPORARY = ".writing-"
_DTYPES = {torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16",
           torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8",
           torch.uint8: "U8", torch.bool: "BOOL"}  # fmt: skip


class DamagedFile(RuntimeError):
    """A stored file is missing, short, or not what was written; the sentence says which."""


def file_name(layer: str) -> str:
    """Return a layer's name as a file name that any file system takes; `layer_name` undoes it.

    Letters, digits and `._-` stay; `:`, `/`, `%` and the rest become %XX, and a leading dot is escaped as well.
    """
    name = quote(layer, safe="")
    return "%2E" + name[1:] if name.startswith(".") else name


def layer_name(file: str) -> str:
    """Return the layer whose `file_name` is `file`."""
    return unquote(file)


def flush_folder(folder: Path) -> None:
    """Wait until the disk has the names in a folder."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path` (same suffixes); on success flush it and rename it to `path`.

    On any exception, KeyboardInterrupt included, the temporary file is removed and `path` is as it was.
    """
    temporary = path.with_name(f"{TEMPORARY}{os.getpid()}-{path.name}")
    try:
        yield temporary
        descriptor = os.open(temporary, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.replace(temporary, path)
        flush_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _write(path: Path, parts: Iterable[bytes | memoryview]) -> str:
    """Write the parts to `path` atomically and return the SHA-256 of the file in hexadecimal."""
    digest = hashlib.sha256()
    with replacing(path) as temporary, temporary.open("wb") as file:
        for part in parts:
            digest.update(part)
            file.write(part)
    return digest.hexdigest()


def _plain(value: Any) -> Any:
    """Return `value` with non-finite floats as strings, since JSON has no NaN and no infinity."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def to_json(value: Any, indent: int | None = None) -> str:
    """Return strict JSON: non-finite floats become the strings "nan", "inf", "-inf"."""
    return json.dumps(_plain(value), indent=indent, allow_nan=False)


def write_json(path: Path, value: Any) -> str:
    """Write strict, indented JSON atomically; return its SHA-256."""
    return _write(path, [(to_json(value, indent=1) + "\n").encode()])


def read_json(path: Path) -> Any:
    """Read JSON; raise DamagedFile when the file is missing or is not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DamagedFile(f"{path} is missing") from error
    except ValueError as error:
        raise DamagedFile(f"{path} is not JSON ({error})") from error


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]], columns: Sequence[str], separator: str = ",") -> str:
    """Write one line for each row, floats with all their digits, None as an empty field; return its SHA-256."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, lineterminator="\n", delimiter=separator)
    writer.writeheader()
    writer.writerows(rows)
    return _write(path, [text.getvalue().encode()])


def read_csv(path: Path, separator: str = ",") -> list[dict[str, str]]:
    """Read the lines of a CSV file with a header; raise DamagedFile when it is missing."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file, delimiter=separator))
    except FileNotFoundError as error:
        raise DamagedFile(f"{path} is missing") from error


def tensors_header(
    specs: Mapping[str, tuple[torch.dtype, tuple[int, ...]]], metadata: Mapping[str, str] | None = None
) -> tuple[bytes, dict[str, int]]:
    """Return the first bytes of a safetensors file of tensors of these types and shapes, and where each begins then."""
    header: dict[str, Any] = {}
    if metadata:
        header["__metadata__"] = {key: str(metadata[key]) for key in sorted(metadata)}
    starts: dict[str, int] = {}
    offset = 0
    for name, (dtype, shape) in specs.items():
        starts[name] = offset
        size = math.prod(shape) * dtype.itemsize
        header[name] = {"dtype": _DTYPES[dtype], "shape": list(shape), "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text, starts


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> str:
    """Write a safetensors file atomically, one tensor in memory at a time; return its SHA-256.

    The format is written here, not by the library, so that a full disk is an OSError and no second copy of all
    tensors is made: a little-endian length, a JSON header, then the bytes of each tensor in order.
    """
    text, _ = tensors_header({name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()}, metadata)

    def parts() -> Iterator[bytes | memoryview]:
        yield text
        for tensor in tensors.values():
            if tensor.numel():
                flat = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
                yield flat.numpy().data

    return _write(path, parts())


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file; raise DamagedFile when it is missing, short or not of the format."""
    try:
        return safetensors.torch.load_file(path)
    except FileNotFoundError as error:
        raise DamagedFile(f"{path} is missing") from error
    except SafetensorError as error:
        raise DamagedFile(f"{path} is damaged ({error})") from error


def read_metadata(path: Path) -> dict[str, str]:
    """Return the strings stored in the header of a safetensors file; raise DamagedFile as `read_tensors`."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except FileNotFoundError as error:
        raise DamagedFile(f"{path} is missing") from error
    except SafetensorError as error:
        raise DamagedFile(f"{path} is damaged ({error})") from error
