"""A saved map lies on the head: its voxels are where the elements of the layer saw the head."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mcaprobe.images import SliceOptions, load_slice
from mcaprobe.maps import coded, layer_affine, layer_mask, save_layer, sidecar
from mcaprobe.statistics import Class
from tests.reference.world import oblique_affine, position_images

POOLED = ((2.0, 0.5), (2.0, 0.5))
ORIENTATIONS = [
    ((1, 1, 1), (0, 1, 2), (1.0, 1.0, 1.0)),
    ((-1, 1, -1), (0, 1, 2), (0.8, 1.25, 2.0)),
    ((1, -1, 1), (2, 0, 1), (1.5, 0.9, 1.1)),
    ((-1, -1, -1), (1, 2, 0), (0.7, 1.0, 2.4)),
]
OPTIONS: list[dict[str, Any]] = [
    {},
    {"size": (24, 8), "index": 5},
    {"size": (7, 31), "index": -4},
    {"voxel_size": 1.3},
    {"voxel_size": 0.6, "size": (40, 22)},
]


def saved(path: Path, shape: tuple[int, ...], affine: np.ndarray, axis: int) -> Any:
    save_layer(path, np.zeros(shape), np.zeros(shape), np.zeros((8, *shape)), affine, "a map", axis=axis)
    return nib.load(path)


@pytest.mark.parametrize("orientation", ORIENTATIONS, ids=["turned", "LAI", "reordered", "reversed"])
@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
@pytest.mark.parametrize("options", OPTIONS, ids=["plain", "pad and crop", "crop and pad", "coarser", "finer"])
def test_voxels_of_a_pooled_map_lie_where_its_elements_saw_the_head(
    tmp_path: Path, orientation: tuple[Any, Any, Any], plane: Any, options: dict[str, Any]
) -> None:
    affine = oblique_affine(*orientation)
    chosen = SliceOptions(plane=plane, intensity="none", **({"index": 6} | options))
    slices = [load_slice(path, chosen) for path in position_images(tmp_path, (13, 17, 15), affine)]
    position = torch.cat([s.tensor for s in slices], 1)  # of each pixel, in mm
    outside = F.max_pool2d((position == 0).all(1, keepdim=True).float(), 3, 1, 1)  # padding, and half-mixed edges
    pooled, inside = F.avg_pool2d(position, 2), F.avg_pool2d(outside, 2)[0, 0] == 0
    first = slices[0]
    assert first.affine is not None
    image = saved(
        tmp_path / "m.nii.gz",
        tuple(pooled.shape[2:]),
        layer_affine(first.affine, POOLED, first.axis),
        first.axis,
    )
    assert image.shape[first.axis] == 1 and image.shape[3] == 9
    assert inside.sum() > 6
    for i, j in inside.nonzero().tolist():
        voxel = [i, j]
        voxel.insert(first.axis, 0)
        where = nib.affines.apply_affine(image.affine, voxel)
        assert np.allclose(where, pooled[0, :, i, j].numpy(), atol=1e-3), (voxel, where)


def test_a_pooled_map_has_the_edges_of_its_input(tmp_path: Path) -> None:
    affine = oblique_affine((1, -1, 1), (1, 0, 2), (1.0, 2.0, 0.5))
    image = saved(tmp_path / "m.nii", (6, 4), layer_affine(affine, POOLED), 2)
    for corner in ((0, 0), (0, 1), (1, 0), (1, 1)):
        fine = affine @ [corner[0] * 12 - 0.5, corner[1] * 8 - 0.5, 0, 1]
        coarse = image.affine @ [corner[0] * 6 - 0.5, corner[1] * 4 - 0.5, 0, 1]
        assert np.allclose(fine, coarse, atol=1e-5)


def test_a_volume_and_a_line_have_affines_too() -> None:
    volume = layer_affine(np.diag([1.0, 2.0, 3.0, 1.0]), ((2.0, 0.5), (1.0, -1.0), (0.5, -0.25)))
    assert np.allclose(volume @ [1, 1, 1, 1], [2.5, 0.0, 0.75, 1.0])
    line = layer_affine(np.eye(4), ((3.0, 1.0),))
    assert np.allclose(line @ [2, 0, 0, 1], [7.0, 0.0, 0.0, 1.0])
    with pytest.raises(ValueError, match="1 to 3 image axes"):
        layer_affine(np.eye(4), ((1.0, 0.0),) * 4)


def test_header_has_units_codes_and_the_description(tmp_path: Path) -> None:
    affine = oblique_affine((1, 1, -1), (0, 1, 2), (1.0, 1.2, 2.0))
    path = save_layer(
        tmp_path / "m.nii.gz",
        np.ones((3, 4)),
        np.zeros((3, 4)),
        np.zeros((8, 3, 4)),
        affine,
        {"layer": "conv"},
        space=4,
    )
    image: Any = nib.load(path)
    (qform, qcode), (sform, scode) = image.get_qform(coded=True), image.get_sform(coded=True)
    assert qcode == scode == 4 and np.allclose(qform, affine, atol=1e-4) and np.allclose(sform, affine, atol=1e-5)
    assert image.header.get_xyzt_units()[0] == "mm" and image.get_data_dtype() == np.float32
    assert image.header["descrip"].item() == b"significant bits of conv"
    assert image.header["sizeof_hdr"] == 348 and image.header["magic"].item() == b"n+1"


def test_volumes_hold_the_map_its_codes_and_the_shares(tmp_path: Path) -> None:
    kinds = np.array([[kind.value for kind in Class]])
    bits = np.full((1, 8), 17.25, dtype=np.float32)
    shares = np.random.default_rng(0).random((8, 1, 8)).astype(np.float32)
    path = save_layer(tmp_path / "m.nii.gz", bits, kinds, shares, np.eye(4), "x")
    data = nib.load(path).get_fdata(dtype=np.float32)  # type: ignore[attr-defined]
    assert data.shape == (1, 8, 1, 9)
    np.testing.assert_array_equal(data[0, :, 0, 0], [17.25, 0, -1, -2, -3, -4, -5, np.nan])
    np.testing.assert_array_equal(data[0, :, 0, 1:].T, shares[:, 0])
    facts = json.loads(sidecar(path).read_text())
    assert facts["codes_of_volume_0"] == {
        "noise": 0, "zero": -1, "exact": -2, "shifted": -3, "nan": -4, "inf": -5, "undefined": "nan"
    }  # fmt: skip
    assert [facts["volumes"][str(i + 1)].split()[-1] for i in range(8)] == [kind.name.lower() for kind in Class]
    assert coded(bits, kinds).dtype == np.float32 and bits.max() == 17.25


def test_the_same_map_is_the_same_bytes_and_leaves_no_other_file(tmp_path: Path) -> None:
    content = set()
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        path = save_layer(
            tmp_path / name / "m.nii.gz", np.ones((3, 4)), np.full((3, 4), 7), np.zeros((8, 3, 4)), np.eye(4)
        )
        content.add(path.read_bytes())
        assert {p.name for p in path.parent.iterdir()} == {"m.nii.gz", "m.json"}
    assert len(content) == 1


def test_wrong_names_and_shapes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="path ending in"):
        save_layer(tmp_path / "m.mgz", np.ones((3, 4)), np.ones((3, 4)), np.zeros((8, 3, 4)), np.eye(4))
    with pytest.raises(ValueError, match=r"shares of shape \(8, 3, 4\)"):
        save_layer(tmp_path / "m.nii", np.ones((3, 4)), np.ones((3, 4)), np.zeros((7, 3, 4)), np.eye(4))


@pytest.mark.parametrize(
    "grid",
    [
        ((2.0, 0.5), (2.0, 0.5)),
        ((1.0, -3.0), (1.0, 4.0)),
        ((0.5, -0.25), (3.0, 1.0)),
        ((-1.0, 11.0), (1.7, 0.35)),
    ],
    ids=["pooled", "padded", "upsampled", "flipped"],
)
def test_a_layer_mask_is_the_nearest_voxel_and_false_outside(grid: tuple[tuple[float, float], ...]) -> None:
    mask = torch.rand(12, 9, generator=torch.Generator().manual_seed(0)) < 0.5
    found = layer_mask(mask, grid, (1, 5, 14, 8))
    assert found.shape == (14, 8) and found.dtype == torch.bool
    for i in range(14):
        for j in range(8):
            at = [offset + scale * k for (scale, offset), k in zip(grid, (i, j), strict=True)]
            row, column = (int(np.floor(v + 0.5)) for v in at)
            inside = 0 <= row < 12 and 0 <= column < 9
            assert found[i, j].item() == (bool(mask[row, column]) if inside else False)


def test_a_layer_mask_in_three_dimensions_keeps_a_box() -> None:
    mask = torch.zeros(8, 8, 8, dtype=torch.bool)
    mask[2:6, 4:8, 0:2] = True
    found = layer_mask(mask, ((2.0, 0.5),) * 3, (1, 1, 4, 4, 4))
    expected = torch.zeros(4, 4, 4, dtype=torch.bool)
    expected[1:3, 2:4, 0:1] = True
    assert torch.equal(found, expected)
