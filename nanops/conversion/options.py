"""Which layers are converted, and with which options each?"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from fnmatch import fnmatchcase
from typing import Any

from torch import Generator

from nanops.errors import InputError, nearest
from nanops.rule import Rule
from nanops.tolerance import PAPER, Tolerance

POOLINGS = ("conservative", "aggressive", "hybrid", "mask", None)


@dataclass(frozen=True, slots=True)
class Options:
    """What one layer does about NaN; the names are those of `convert`.

    Raises:
        InputError: an option that makes no sense.
    """

    pooling: str | None = "conservative"
    threshold: float = 0.5
    fill: str = "mean"
    sigma: float = 1e-3
    tolerance: Tolerance = PAPER
    max_ties: int = 1
    generator: Generator | None = None
    count_padding: bool = True
    uniform: bool = False

    def __post_init__(self) -> None:
        Rule(self.threshold, self.fill, self.sigma, self.count_padding, self.uniform)
        if self.pooling not in POOLINGS:
            names = [p for p in POOLINGS if p]
            near = nearest(self.pooling, names)
            raise InputError(f"Expected pooling to be {', '.join(names)} or None, got {self.pooling!r}{near}")
        if self.fill == "max_normal" and self.generator is None:
            raise InputError("Expected a torch.Generator for fill='max_normal', got None.")
        if not isinstance(self.tolerance, Tolerance):
            raise InputError(f"Expected a nanops.Tolerance, got {self.tolerance!r}.")
        if not isinstance(self.max_ties, int) or self.max_ties < 1:
            raise InputError(f"Expected max_ties to be an integer from 1, got {self.max_ties!r}.")

    @property
    def tied(self) -> bool:
        """Whether a pool hands ties to the unpool, in the place of indices."""
        return self.pooling in ("conservative", "hybrid")

    def convolution(self) -> dict[str, Any]:
        """Return the keywords of a NaN convolution."""
        return {
            "threshold": self.threshold, "fill": self.fill, "sigma": self.sigma, "generator": self.generator,
            "count_padding": self.count_padding, "uniform": self.uniform,
        }  # fmt: skip


# An unpool must do what its pool did, so the pooling is one for the whole model.
OVERRIDABLE = tuple(f.name for f in fields(Options) if f.name != "pooling")


def resolve(
    names: Sequence[Collection[str]],
    base: Options,
    layers: str | Iterable[str],
    overrides: Mapping[str, Mapping[str, Any]] | None,
) -> list[Options | None]:
    """Return the options of each module, None for one that stays as it is.

    Args:
        names: The paths of each module; a module that is used twice has two.
        layers: Globs; a glob that matches a module selects all inside it too.
        overrides: Options by glob; where several match, the last one that names an option decides.

    Raises:
        InputError: a glob that matches nothing, or an option of another name.
    """
    globs = [layers] if isinstance(layers, str) else list(layers)
    overrides = overrides or {}
    for glob in [*globs, *overrides]:
        if not any(_selects(glob, paths) for paths in names):
            known = [path for each in names for path in each if path]
            raise InputError(f"Expected a glob that matches a layer, got {glob!r}{nearest(glob, known)}")
    for given in overrides.values():
        for name in given:
            if name not in OVERRIDABLE:
                expected = ", ".join(OVERRIDABLE)
                raise InputError(f"Expected overrides of {expected}, got {name!r}{nearest(name, OVERRIDABLE)}")
    found: list[Options | None] = []
    for paths in names:
        if not any(_selects(glob, paths) for glob in globs):
            found.append(None)
            continue
        changes: dict[str, Any] = {}
        for glob, given in overrides.items():
            if _selects(glob, paths):
                changes |= given
        found.append(replace(base, **changes))
    return found


def _selects(glob: str, paths: Collection[str]) -> bool:
    return any(fnmatchcase(part, glob) for path in paths for part in _containers(path))


def _containers(path: str) -> list[str]:
    parts = path.split(".")
    return [".".join(parts[: i + 1]) for i in range(len(parts))]
