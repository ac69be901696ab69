"""What is written of an image's runs? Maps and masks where BIDS wants them, and one table."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mcaprobe import bids
from mcaprobe.bids_app.dataset import Image
from mcaprobe.bids_app.settings import Questions
from mcaprobe.errors import InputError
from mcaprobe.maps import sidecar
from mcaprobe.mask_files import write as write_masks
from mcaprobe.masks import Unstable
from mcaprobe.result import Result
from mcaprobe.selection import selected_names
from mcaprobe.settings import matches
from mcaprobe.storage import file_name, read_json, replacing, write_csv, write_json
from mcaprobe.table import COLUMNS, row_record

MASKS = "masks"  # of the run directory
NOTHING = "n/a"  # what BIDS has in an empty cell
SLICE = "slice"
TABLE_COLUMNS = (SLICE, *COLUMNS)
MEANINGS = {
    SLICE: "number of the slice; n/a: the one with the most non-zero voxels, or the whole volume (Pieces says)",
    "layer": "name of the layer",
    "operator": "what computes it",
    "region": "all of the layer, brain, background, or a label of the segmentation",
    "shape": "of the whole layer",
    "elements": "elements of the region; of poolings their windows, of labels their voxels",
    "bits_mean": "mean significant bits of the elements that are numbers",
    "bits_p05": "5th percentile of these bits",
    "share_snr_below_1": "share of the elements whose standard deviation is at least the size of their mean",
    "index_change_rate": "share of the decisions that differ from the IEEE run",
    "samples": "perturbed runs",
    "estimator": "of the significant bits",
}


def write_derivatives(
    out: Path, image: Image, runs: Mapping[int | None, Result], questions: Questions, sources: Sequence[str]
) -> list[Path]:
    """Write maps, masks and the table of one image; return the files.

    Args:
        out: The derivative dataset.
        runs: By slice; None for the slice that the image's voxels chose, and for the whole volume.
        sources: BIDS URIs of what the results are computed from.
    """
    place = out / image.folder
    place.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    for index, result in runs.items():
        about = _about(image, result, index, sources)
        written += _maps(place, prefix_of(image, index), result, questions, about)
        if questions.mask_below is not None:
            written += _masks(place, prefix_of(image, index), result, questions.mask_below, about)
    return written + _table(place, image, runs, sources)


def prefix_of(image: Image, index: int | None) -> str:
    """Return the entities of derivatives of one slice; `chunk` is its number."""
    if index is None:
        return image.prefix
    if "chunk" in image.entities:
        raise InputError(f"{image.name} has a chunk already, which would be the slice's: leave --slice out.")
    return f"{image.prefix}_chunk-{index}"


def _about(image: Image, result: Result, index: int | None, sources: Sequence[str]) -> dict[str, Any]:
    """Return what the JSON files of one slice have in common, by the names of BIDS."""
    manifest = result.manifest
    pieces = {key: value for key, value in manifest.get("pieces", {}).items() if key != "seeds"}
    return {
        "Sources": list(sources),
        "SpatialReference": image.uri,
        "Model": manifest["identity"]["model"],
        "Samples": result.samples,
        "Mode": manifest["mode"],
        "Precision": manifest["precision"],
        "Seed": manifest["seed"],
        "Route": manifest["route"],
        "Estimator": str(result.estimator),
        "Plane": None if result.place is None or pieces.get("kind") == "patch" else result.place.plane,
        "Slice": index,
        "Pieces": pieces or None,
    }


def map_layers(result: Result, globs: Sequence[str] | None) -> list[str]:
    """Return the layers whose maps are written: those of the globs, or the main layers; all have image axes."""
    there = [name for name in result.layers if map_of(result, name).is_file()]
    if globs is None:
        return selected_names(there)
    return [name for name in there if matches(name, globs)]


def map_of(result: Result, name: str) -> Path:
    """Return where a run has the map of a layer, which is there when the layer has image axes."""
    if result.path is None:
        raise ValueError("Expected a run with a directory.")
    return result.path / "maps" / f"{file_name(name)}.nii.gz"


def _maps(place: Path, prefix: str, result: Result, questions: Questions, about: Mapping[str, Any]) -> list[Path]:
    labels, written = bids.labels(list(result.manifest["layers"])), []
    for name in map_layers(result, questions.maps):
        source, path = map_of(result, name), place / f"{bids.map_stem(prefix, labels[name])}.nii.gz"
        with replacing(path) as temporary:
            shutil.copyfile(source, temporary)
        facts = read_json(sidecar(source))
        text = f"Significant bits of the layer {name}: {facts['volumes']['0']}; and the share of each class."
        write_json(sidecar(path), {"Description": text, **about, **facts, "input": about["Sources"][0]})
        written += [path, sidecar(path)]
    return written


def _masks(place: Path, prefix: str, result: Result, below: float, about: Mapping[str, Any]) -> list[Path]:
    """Write the masks of a run into it, and the NIfTI files among them to the derivatives, by their names."""
    if result.path is None:
        raise ValueError("Expected a run with a directory.")
    folder = write_masks(result, Unstable(below), result.path / MASKS).folder
    start = f"{bids.prefix(result.manifest['input']['name'])}_"
    written = []
    for source in sorted(folder.glob("*.nii.gz")):
        path = place / f"{prefix}_{source.name.removeprefix(start)}"
        with replacing(path) as temporary:
            shutil.copyfile(source, temporary)
        write_json(sidecar(path), {**read_json(sidecar(source)), **about, "Input": about["Sources"][0]})
        written += [path, sidecar(path)]
    return written


def _table(place: Path, image: Image, runs: Mapping[int | None, Result], sources: Sequence[str]) -> list[Path]:
    path = place / f"{image.prefix}_{bids.SIGBITS}.tsv"
    lines = []
    for index, result in runs.items():
        for row in result.rows:
            record = {SLICE: index, **row_record(row)}
            lines.append({key: NOTHING if value in (None, "") else value for key, value in record.items()})
    write_csv(path, lines, TABLE_COLUMNS, "\t")
    first = next(iter(runs))
    about = _about(image, runs[first], None, sources)
    shares = {name: {"Description": f"share of the elements that are {name.removeprefix('share_')}"}
              for name in TABLE_COLUMNS if name.startswith("share_")}  # fmt: skip
    columns = shares | {name: {"Description": text} for name, text in MEANINGS.items()}
    text = "Significant bits of every layer and region, a line each."
    write_json(path.with_suffix(".json"), {"Description": text, **about, "Slice": list(runs), **columns})
    return [path, path.with_suffix(".json")]
