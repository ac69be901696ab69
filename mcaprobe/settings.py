"""What defines a campaign? Two runs with the same identity have the same bits."""

import difflib
import os
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatchcase
from typing import Any

import torch

from mcaprobe import kernels
from mcaprobe.checks import check_counts
from mcaprobe.errors import InputError
from mcaprobe.noise.compiled import compiles
from mcaprobe.rounding import MODES, Arithmetic
from mcaprobe.routes import AUTO, VERROU, resolve
from mcaprobe.statistics import Estimator
from mcaprobe.verrou import Verrou, check_mode

BLOCK = 5  # samples whose moments are accumulated one by one; blocks are merged in index order
_UNITS = {"": 1, "b": 1, "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40,
          "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}  # fmt: skip


def parse_bytes(text: str) -> int:
    """Return the bytes that `4GiB`, `500MB` or `1048576` mean; raise InputError for anything else."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]*)\s*", text)
    if match is None or match[2].lower() not in _UNITS or float(match[1]) <= 0:
        raise InputError(f"Expected a size such as 4GiB, 800MiB or 500MB, got {text!r}.")
    return int(float(match[1]) * _UNITS[match[2].lower()])


def show_bytes(count: float) -> str:
    """Return `count` bytes in the largest binary unit that leaves at least one."""
    for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count:.0f} B"


def matches(name: str, globs: Iterable[str]) -> bool:
    """Return whether a layer's name matches any of the globs."""
    return any(fnmatchcase(name, glob) for glob in globs)


def expect_matches(option: str, globs: Iterable[str], names: Iterable[str]) -> None:
    """Raise InputError, with the nearest names, for a glob that matches none of the names."""
    names = list(names)
    for glob in globs:
        if not any(fnmatchcase(name, glob) for name in names):
            close = difflib.get_close_matches(glob, names, n=3, cutoff=0.3)
            hint = f"the nearest are {', '.join(close)}" if close else f"there are {', '.join(names[:8])}"
            raise InputError(f"{option} {glob} matches none of the {len(names)} layers: {hint}.")


@dataclass(frozen=True, slots=True)
class Settings:
    """What is asked of a campaign, apart from the model and its input.

    Args:
        samples: Number of perturbed runs n; the unperturbed IEEE run comes on top.
        mode: How inexact results are perturbed, one of `mcaprobe.rounding.MODES`.
        precision: Virtual precision in bits for the modes rr, pb and full; None for the tensor's own.
        seed: All randomness is a function of (seed, sample, call number, element).
        route: `exact` (compiled kernels round every instruction), `model` (stock kernels and a model of their noise),
            or `auto`: exact where that is possible.
        block: Samples to a block; part of the identity, since floating-point merging depends on it.
        layers: Globs; a layer is recorded when it matches any of them.
        keep_moments: Globs of the layers whose moments of each element are kept.
        keep_samples: Globs of the layers whose activations are kept, sample by sample.
        estimator: Of the significant bits in the table and the maps.
        device: Torch device of the model.
        threads: Samples computed side by side; changes no bit. None: torch's number.
        memory: Bytes that the run may take; decides the chunks, changes no bit. None: half of what is free.
        chunk: At most so many samples at once, so that a killed run loses less; changes no bit. None: as memory allows.
        verrou: Run under Verrou, so; `mode` is then its rounding mode. None: emulated.
    """

    samples: int = 10
    mode: str = "random"
    precision: int | None = None
    seed: int = 0
    route: str = AUTO
    block: int = BLOCK
    layers: tuple[str, ...] = ("*",)
    keep_moments: tuple[str, ...] = ()
    keep_samples: tuple[str, ...] = ()
    estimator: Estimator = field(default_factory=Estimator)
    device: str = "cpu"
    threads: int | None = None
    memory: int | None = None
    chunk: int | None = None
    verrou: Verrou | None = None

    def __post_init__(self) -> None:
        check_counts(self.samples, self.seed)
        if self.block < 1:
            raise InputError(f"Expected a block of at least 1 sample, got {self.block}.")
        if self.verrou is not None:
            self._check_verrou()
        else:
            self._check_emulator()
        if self.chunk is not None and (self.chunk < self.block or self.chunk % self.block):
            raise InputError(f"Expected a chunk of a multiple of the block's {self.block} samples, got {self.chunk}.")
        if self.threads is not None and self.threads < 1:
            raise InputError(f"Expected at least 1 thread, got {self.threads}.")

    def _check_emulator(self) -> None:
        if self.mode not in MODES:
            raise InputError(f"Expected a mode among {', '.join(MODES)}, got {self.mode!r}.")
        if self.precision is not None and not 1 <= self.precision <= 53:
            raise InputError(f"Expected a virtual precision of 1 to 53 bits, got {self.precision}.")
        resolve(self.route, self.mode, self.device)

    def _check_verrou(self) -> None:
        check_mode(self.mode)
        for name, value, only in (("precision", self.precision, None), ("route", self.route, AUTO),
                                  ("device", self.device, "cpu"), ("chunk", self.chunk, None)):  # fmt: skip
            if value != only:
                raise InputError(f"The backend verrou has no {name}: leave {name} {value} out.")

    def blocks(self) -> list[range]:
        """Return the samples of each block, in index order; the last block may be shorter."""
        return [range(i, min(i + self.block, self.samples)) for i in range(0, self.samples, self.block)]

    def thread_count(self) -> int:
        """Return the number of threads that is used."""
        return self.threads or len(os.sched_getaffinity(0))

    def taken_route(self) -> str:
        """Return the route that is taken: `exact` or `model` of the emulator, or `verrou`."""
        return VERROU if self.verrou is not None else resolve(self.route, self.mode, self.device)

    def identity(self) -> dict[str, Any]:
        """Return what the bits of the results depend on, by the name under which the manifest has it."""
        return {
            "samples": self.samples,
            "mode": self.mode,
            "precision": self.precision,
            "seed": self.seed,
            "route": self.taken_route(),
            "kernels": self._kernels(),
            "block": self.block,
            "layers": list(self.layers),
            "keep_moments": list(self.keep_moments),
            "keep_samples": list(self.keep_samples),
            **asdict(self.estimator),
            "device": self.device,
            **({} if self.verrou is None else {"verrou": self.verrou.identity()}),
        }

    def _kernels(self) -> int | None:
        """Return the version of the compiled kernels where they take part."""
        if self.verrou is not None or not compiles(Arithmetic(self.mode), torch.device(self.device)):
            return None
        return kernels.VERSION
