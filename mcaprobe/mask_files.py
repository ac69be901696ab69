"""How do masks reach a folder? NIfTI for each layer with image axes, safetensors for all, a JSON file beside each."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from mcaprobe import bids
from mcaprobe.errors import InputError
from mcaprobe.estimators import Estimator
from mcaprobe.folders import commit, filling, remove
from mcaprobe.layer_masks import NONE, REDUCTIONS, SHARE, Mask, mask_of, refusal
from mcaprobe.layer_result import LayerResult
from mcaprobe.maps import save_volumes, sidecar
from mcaprobe.mask_facts import RUN_LINK, facts_of_run, generated_by
from mcaprobe.mask_rows import COLUMNS, MaskRow, rows_of
from mcaprobe.mask_store import COMMON, FORMAT, TENSORS, UNDEFINED
from mcaprobe.masks import Criterion
from mcaprobe.result import Result
from mcaprobe.settings import expect_matches, matches
from mcaprobe.steps import SUFFIXES
from mcaprobe.storage import TEMPORARY, DamagedFile, read_json, to_json, write_csv, write_json, write_tensors

DESCRIPTION, TABLE = "dataset_description.json", "masks.csv"
DEFAULT_REDUCTIONS = ("any", "all", SHARE)
_ENDINGS = (".nii.gz", ".json", ".safetensors", ".csv")


@dataclass(frozen=True, slots=True)
class Written:
    """What `write` left.

    Attributes:
        folder: Where the files are.
        rows: One for each layer and region, in execution order.
        about: What is the same for all masks.
        without_moments: Layers that the criterion could judge, had their moments been kept.
        not_judged: Layers that were asked for and of which the criterion says nothing, such as decisions.
    """

    folder: Path
    rows: list[MaskRow]
    about: Mapping[str, Any]
    without_moments: list[str]
    not_judged: list[str]


def write(
    run: Result,
    criterion: Criterion,
    out: Path,
    *,
    estimator: Estimator | None = None,
    layers: str | Sequence[str] = "*",
    reduce: Sequence[str] = DEFAULT_REDUCTIONS,
    progress: Callable[[int, int, str], None] = lambda done, total, name: None,
) -> Written:
    """Write the masks of the layers that match the globs into `out`, which appears whole or not at all.

    Args:
        criterion: What marks an element.
        out: A new or empty folder, or one of earlier masks, which is replaced.
        estimator: Of bits and classes; None: the run's.
        reduce: Which of layer_masks.REDUCTIONS become NIfTI files; safetensors always has each channel.
        progress: Told how many layers are done, of how many, and the name of the next.
    Raises:
        InputError: a folder of something else, a glob that matches nothing, no layer with moments, a damaged run.
    """
    out = Path(os.path.abspath(out))
    expect_free(out)
    globs = [layers] if isinstance(layers, str) else list(layers)
    names, not_judged = _chosen(run, criterion, globs)
    for left in out.parent.glob(f"{TEMPORARY}*-{out.name}"):
        remove(left)  # of a process that was killed
    try:
        with filling(out.parent, out.name) as folder:
            masks, rows, missing = _fill(folder, run, criterion, estimator or run.estimator, names, reduce, progress)
            if not masks:
                raise InputError(_unkept(missing, criterion, globs))
            about = facts_of_run(run, criterion, estimator or run.estimator)
            _save_tensors(folder, masks, about)
            write_csv(folder / TABLE, [row.record() for row in rows], COLUMNS)
            write_json(folder / DESCRIPTION, _description(run, out))
            commit(folder, out)
    except DamagedFile as error:
        raise InputError(f"The run in {run.path} is damaged: {error}.") from error
    return Written(out, rows, about, missing, not_judged)


def expect_free(out: Path) -> None:
    """Raise InputError where the folder holds anything but masks that were made here before."""
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file, not a folder for the masks.")
    inside = sorted(path.name for path in out.iterdir()) if out.is_dir() else []
    foreign = inside if inside and not _is_ours(out) else [n for n in inside if not n.endswith(_ENDINGS)]
    if foreign:
        raise InputError(f"{out} is no folder of masks and not empty (it has {foreign[0]}): choose another --out.")


def _is_ours(out: Path) -> bool:
    try:
        about = read_json(out / DESCRIPTION)
    except DamagedFile:
        return False
    return isinstance(about, dict) and about.get("MaskFormat") == FORMAT


def _chosen(run: Result, criterion: Criterion, globs: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the layers of the globs that the criterion can judge, and the others; metrics are no layers."""
    layers = list(run.manifest["layers"])
    expect_matches("The layer glob", globs, layers)
    asked = [name for name in layers if matches(name, globs)]
    fitting = [name for name in asked if run[name].is_index == criterion.on_indices]
    if not fitting and criterion.on_indices and not any(run[name].is_index for name in layers):
        raise InputError(
            "The run recorded no decisions: a pooling puts out its indices with return_indices=True, an output (N, C, "
            "...) with C >= 2 has labels, and mcaprobe run --layers has to match '*.indices' or ':output*'."
        )
    if not fitting:
        raise InputError(refusal(asked[0], criterion))
    return fitting, [name for name in asked if name not in fitting]


def _fill(
    folder: Path, run: Result, criterion: Criterion, estimator: Estimator, names: Sequence[str],
    reduce: Sequence[str], progress: Callable[[int, int, str], None],
) -> tuple[dict[str, Mask], list[MaskRow], list[str]]:  # fmt: skip
    """Write the NIfTI files of the layers; return masks and rows, and the layers whose moments were not kept."""
    start, label_of = bids.prefix(run.manifest["input"]["name"]), bids.labels(list(run.manifest["layers"]))
    masks: dict[str, Mask] = {}
    rows: list[MaskRow] = []
    missing: list[str] = []
    for done, name in enumerate(names):
        progress(done, len(names), name)
        layer = run[name]  # one at a time: its moments are gone with it
        if not layer.kept:
            missing.append(name)
            continue
        masks[name] = mask_of(run, layer, criterion, estimator)
        if layer.spatial:
            for how in reduce:
                stem = bids.file_stem(start, label_of[name], criterion.label, how)
                _save_volume(folder / f"{stem}.nii.gz", masks[name], layer, how)
        rows += rows_of(masks[name], layer)
    return masks, rows, missing


def _unkept(missing: Sequence[str], criterion: Criterion, globs: Sequence[str]) -> str:
    more = f" and {len(missing) - 1} more layers" if len(missing) > 1 else ""
    asked = globs
    if criterion.on_indices and list(globs) == ["*"]:
        suffixes = [next((f"*{suffix}" for suffix in SUFFIXES if name.endswith(suffix)), name) for name in missing]
        asked = list(dict.fromkeys(suffixes))
    option = " ".join(f"'{glob}'" for glob in asked)
    return (
        f"Masks are made from the moments of the elements, and the run kept none of {missing[0]}{more}: "
        f"run it with --keep-moments {option}."
    )


def _save_volume(path: Path, mask: Mask, layer: LayerResult, how: str) -> None:
    """Write one NIfTI file, uint8 (float32 for shares), and its JSON file."""
    values = mask.reduced(how)
    volumes = (values if how == NONE else values[None]).numpy()
    affine, axis, space = layer.placed(tuple(volumes.shape[1:]))
    stored = volumes if how == SHARE else volumes.astype(np.uint8)
    header = f"{path.name.split('_desc-')[1].split('_')[0]} {how}: {mask.layer}"
    save_volumes(path, stored, affine, header, axis=axis, space=space, top=1.0)
    write_json(sidecar(path), {**_opening(mask, how), **_voxels(mask, values, how), **mask.about})


def _opening(mask: Mask, how: str) -> dict[str, Any]:
    rule = mask.about["Criterion"]["Rule"]
    return {
        "Description": f"Marked in the {mask.about['Tensor']}: {rule}. Over the channels: {REDUCTIONS[how]}.",
        "Type": "ROI",
        "Reduction": {"Name": how, "Rule": REDUCTIONS[how]},
    }


def _voxels(mask: Mask, values: Tensor, how: str) -> dict[str, Any]:
    """Return how many voxels of the file are marked (shares: above 0) or undefined (reduced: in every channel)."""
    voxels, marked = values.numel(), int((values > 0).sum())
    undefined = mask.channels(mask.undefined)
    undefined = undefined if how == NONE else undefined.all(0)
    return {
        "Voxels": voxels,
        "MaskedVoxels": marked,
        "MaskedVoxelShare": marked / voxels if voxels else None,
        "UndefinedVoxels": int(undefined.sum()),
    }


def _save_tensors(folder: Path, masks: Mapping[str, Mask], about: Mapping[str, Any]) -> None:
    """Write the masks and the undefined elements, channel by channel, with the facts in both headers."""
    layers = {name: {k: v for k, v in mask.about.items() if k not in about} for name, mask in masks.items()}
    facts = {"format": FORMAT, COMMON: to_json(about), "layers": to_json(layers)}
    write_tensors(folder / TENSORS, {name: mask.values for name, mask in masks.items()}, facts)
    write_tensors(folder / UNDEFINED, {name: mask.undefined for name, mask in masks.items()}, facts)
    write_json((folder / TENSORS).with_suffix(".json"), {**about, "Layers": layers})


def _description(run: Result, out: Path) -> dict[str, Any]:
    """Return dataset_description.json of a BIDS derivative."""
    link = {} if run.path is None else {"DatasetLinks": {RUN_LINK: os.path.relpath(run.path, out)}}
    return {
        "Name": f"Masks of {run.manifest['identity']['model']} on {Path(run.manifest['input']['name']).name}",
        "BIDSVersion": bids.VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": generated_by(),
        **link,
        "MaskFormat": FORMAT,
    }
