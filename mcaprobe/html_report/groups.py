"""Which of the runs are slices of one image, seen by one model in one way? They share a heatmap and a slider."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mcaprobe.errors import InputError
from mcaprobe.place import Place
from mcaprobe.result import Result, load

# What may differ between the runs of a group: which slice, the seed, and what was recorded and kept of it.
_FREE = ("seed", "input", "input index", "input sha256", "layers", "keep_moments", "keep_samples", "metrics")
_AXES = "xyz"


@dataclass(frozen=True, eq=False)
class Shown:
    """A run, and what it is called in the report.

    Attributes:
        path: Of the run directory, as the user gave it.
        label: Its place among the runs of its group, such as `z = 18 mm`.
        position: Of the slice along its axis in mm; None for an input that is no slice of an image.
    """

    result: Result
    path: Path
    label: str
    position: float | None

    @property
    def manifest(self) -> dict[str, Any]:
        """The manifest of the run."""
        return self.result.manifest


@dataclass(frozen=True, eq=False)
class Group:
    """Runs of one model on one image in one arithmetic, from the first slice to the last."""

    runs: tuple[Shown, ...]

    @property
    def first(self) -> Result:
        """The run that stands for what all of them share."""
        return self.runs[0].result

    @property
    def model(self) -> str:
        """The name of the model."""
        return str(self.first.manifest["identity"]["model"])

    @property
    def image(self) -> str:
        """The file name of the image, or of the tensor."""
        return Path(str(self.first.manifest["input"]["name"])).name

    @property
    def plane(self) -> str | None:
        """axial, coronal or sagittal; None for an input that is no slice of an image."""
        place = self.first.place
        return None if place is None else place.plane

    @property
    def title(self) -> str:
        """The model and the image, in words."""
        return f"{self.model} on {self.image}"

    @property
    def layers(self) -> list[str]:
        """The layers of all runs, in execution order; those that only a later run recorded come last."""
        return list(dict.fromkeys(name for run in self.runs for name in run.result.layers))

    @property
    def most_bits(self) -> int:
        """Where the scale of bits ends: the widest format among the layers."""
        return max(run.result.most_bits for run in self.runs)


def load_runs(paths: Sequence[str | Path]) -> list[Group]:
    """Return the runs in groups, in the order in which the first run of each was given.

    Raises:
        InputError: no path, one twice, no run directory, or a run that is not complete or damaged.
    """
    if not paths:
        raise InputError("Expected one run directory or more to report, got none.")
    again = [path for path, count in Counter(Path(path).resolve() for path in paths).items() if count > 1]
    if again:
        twice = next(path for path in paths if Path(path).resolve() == again[0])
        raise InputError(f"The run {twice} was given twice.")
    found: dict[str, list[tuple[Path, Result]]] = {}
    for path in paths:
        result = load(path)
        found.setdefault(_key(result), []).append((Path(path), result))
    return [Group(tuple(_labelled(members))) for members in found.values()]


def _key(result: Result) -> str:
    """Return what the runs of a group have in common, as text."""
    identity, about = result.manifest["identity"], result.manifest["input"]
    common = {key: value for key, value in identity.items() if key not in _FREE}
    # The image decides, whatever it was called; a tensor is its own image.
    common["image"] = about.get("file_sha256") if result.place is not None else identity.get("input sha256")
    common["name"] = about["name"] if common["image"] is None else None
    common["axes"] = len(result.image_shape)
    return json.dumps(common, sort_keys=True)


def _labelled(members: Sequence[tuple[Path, Result]]) -> list[Shown]:
    """Return the runs in the order of their slices, each with a label of its own."""
    order = sorted(members, key=lambda m: (position(m[1].place) or 0.0, m[1].manifest.get("seed") or 0))
    labels = [_label(result) for _, result in order]
    seeds = [f"{label}, seed {result.manifest.get('seed')}" for label, (_, result) in zip(labels, order, strict=True)]
    names = [f"{label}, {path}" for label, (path, _) in zip(seeds, order, strict=True)]
    unique = next((each for each in (labels, seeds) if len(set(each)) == len(each)), names)
    return [Shown(result, path, label, position(result.place))
            for label, (path, result) in zip(unique, order, strict=True)]  # fmt: skip


def _label(result: Result) -> str:
    place = result.place
    if place is None:
        return "the input"
    index = result.manifest["identity"].get("input index")
    number = f"slice {index}, " if isinstance(index, int) and index >= 0 else ""
    return f"{number}{axis_name(place)} = {position(place) or 0.0:.4g} mm"


def axis_name(place: Place) -> str:
    """Return x, y or z where the slice is across that axis of the space, else `normal`."""
    normal = _normal(place)
    return _AXES[place.axis] if abs(normal[place.axis]) > 0.999 else "normal"


def position(place: Place | None) -> float | None:
    """Return where a slice lies along its normal, in mm; None without a place."""
    return None if place is None else float(_normal(place) @ place.affine.numpy()[:3, 3])


def _normal(place: Place) -> np.ndarray[Any, np.dtype[np.float64]]:
    column = place.affine.numpy()[:3, place.axis]
    return np.asarray(column / np.linalg.norm(column), dtype=np.float64)
