"""Are these the masks that were written? Read from a folder of masks, and checked before anything uses them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mcaprobe.errors import InputError
from mcaprobe.layer_masks import Mask
from mcaprobe.result import Result
from mcaprobe.storage import DamagedFile, read_metadata, read_tensors, to_json

FORMAT = "mcaprobe masks 1"
COMMON = "common"
TENSORS, UNDEFINED = "masks.safetensors", "undefined.safetensors"


def load_masks(path: str | Path, run: Result | None = None) -> dict[str, Mask]:
    """Return the masks in a folder by layer, channel by channel, in the order of execution.

    Args:
        path: Folder of `mcaprobe mask`, or its masks.safetensors.
        run: Where given, the masks have to be of this run.
    Raises:
        InputError: no masks, masks of another run, or files that are not as they were written.
    """
    folder = Path(path).parent if Path(path).name == TENSORS else Path(path)
    if not (folder / TENSORS).is_file():
        raise InputError(f"{folder} is no folder of masks: it has no {TENSORS}.")
    try:
        common, layers = _facts(folder / TENSORS)
        if (common, layers) != _facts(folder / UNDEFINED):
            raise DamagedFile(f"{UNDEFINED} belongs to other masks than {TENSORS}")
        values, undefined = read_tensors(folder / TENSORS), read_tensors(folder / UNDEFINED)
        masks = {name: _checked(name, values, undefined, {**common, **facts}) for name, facts in layers.items()}
        if values.keys() != layers.keys():
            raise DamagedFile(f"{folder / TENSORS} holds layers of which its header says nothing")
    except (DamagedFile, KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"The masks in {folder} are damaged: {error}.") from error
    if run is not None:
        _expect_of(run, common, folder)
    return masks


def _facts(path: Path) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Return what the header of a file says of all masks and of each layer."""
    about = read_metadata(path)
    if about.get("format") != FORMAT:
        raise DamagedFile(f"{path} is not of the format {FORMAT!r} but {about.get('format')!r}")
    return json.loads(about[COMMON]), json.loads(about["layers"])


def _checked(name: str, values: dict[str, Tensor], undefined: dict[str, Tensor], about: dict[str, Any]) -> Mask:
    """Return the mask of a layer; DamagedFile where tensors and facts do not belong together."""
    for file, tensors, key in ((TENSORS, values, "MaskedElements"), (UNDEFINED, undefined, "UndefinedElements")):
        if name not in tensors:
            raise DamagedFile(f"{file} has no layer {name}")
        found = tensors[name]
        if found.dtype != torch.bool or list(found.shape) != about["Shape"]:
            raise DamagedFile(
                f"{name} in {file} is not bool of shape {tuple(about['Shape'])} "
                f"but {found.dtype} of shape {tuple(found.shape)}"
            )
        if int(found.sum()) != about[key]:
            raise DamagedFile(f"{name} in {file} has {int(found.sum())} marked elements instead of {about[key]}")
    if bool((values[name] & undefined[name]).any()):
        raise DamagedFile(f"elements of {name} are marked and undefined at once")
    return Mask(name, values[name], undefined[name], about)


def _expect_of(run: Result, common: dict[str, Any], folder: Path) -> None:
    mine, theirs = json.loads(to_json(run.manifest["identity"])), common["Run"]["Identity"]
    for key in [*mine, *(key for key in theirs if key not in mine)]:
        if mine.get(key) != theirs.get(key):
            raise InputError(
                f"The masks in {folder} are of another run: its {key} is {theirs.get(key)!r}, here {mine.get(key)!r}."
            )
