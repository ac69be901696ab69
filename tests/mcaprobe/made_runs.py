"""Run directories made by hand: moments of samples that a test chose, on a grid that it chose."""

import json
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from mcaprobe.place import ANATOMY, Place
from mcaprobe.statistics import Estimator, IndexMoments, Moments
from mcaprobe.storage import write_csv, write_json, write_tensors
from mcaprobe.stores import FolderStore
from mcaprobe.table import COLUMNS, TABLE

FINE, POOLED = [[1.0, 0.0], [1.0, 0.0]], [[2.0, 0.5], [2.0, 0.5]]


def moments_of(reference: Tensor, samples: Tensor) -> Moments | IndexMoments:
    kind = Moments if reference.is_floating_point() else IndexMoments
    moments = kind.empty(reference)
    for sample in samples:
        moments.update(sample)
    return moments


def place_of(affine: Tensor, axis: int, image: tuple[int, int]) -> Place:
    return Place(torch.ones(image), torch.ones(image, dtype=torch.bool), affine, axis, 2)


def make_run(
    folder: Path,
    layers: dict[str, tuple[Tensor, Tensor]],
    *,
    grids: dict[str, list[list[float]] | None] | None = None,
    unkept: tuple[str, ...] = (),
    place: Place | None = None,
    image: tuple[int, ...] = (8, 6),
    source: str = "data/sub-01_ses-2_desc-preproc_T1w.nii.gz",
    aliases: dict[str, str] | None = None,
    masks: dict[str, Tensor] | None = None,
) -> Path:
    """Write what `mcaprobe run` leaves of layers whose (reference, samples (n, *shape)) are given."""
    folder.mkdir(parents=True)
    store, about = FolderStore(folder / "layers"), {}
    grids = grids or {}
    for name, (reference, samples) in layers.items():
        state = {} if name in unkept else moments_of(reference, samples).state()
        tensors = {f"moments.{key}": value for key, value in state.items()}
        tensors |= {f"mask.{key}": value for key, value in (masks or {}).items() if state}
        store.put(name, tensors or {"bits": torch.zeros(1)}, {"layer": name})
        dtype = str(reference.dtype).removeprefix("torch.")
        operator = "Conv2d" if reference.is_floating_point() else "MaxPool2d"
        about[name] = {"operator": operator, "shape": list(reference.shape), "dtype": dtype,
                       "grid": grids.get(name, FINE), "grid_assumed": False}  # fmt: skip
    n = len(next(iter(layers.values()))[1])
    manifest = {
        "format": 1, "status": "complete", "samples": n, "mode": "random", "precision": None, "seed": 3,
        "route": "model", "commit": "abc", "versions": {"mcaprobe": "0"}, "command": ["mcaprobe", "run", "here"],
        "identity": {"samples": n, "seed": 3, "model": "a:model", "input": source, **asdict(Estimator())},
        "input": {"name": source, "shape": [1, 1, *image]}, "layers": about, "aliases": aliases or {},
    }  # fmt: skip
    write_json(folder / "manifest.json", manifest)
    write_csv(folder / TABLE, [], COLUMNS)
    if place is not None:
        write_tensors(folder / ANATOMY, place.state())
    return folder


def change_manifest(folder: Path, **what: object) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | what))
