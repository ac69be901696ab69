"""From an image file to a tensor: what is taken, how it is scaled, and the sentence for everything that is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import safetensors.torch
import torch
from numpy.typing import NDArray

from mcaprobe.errors import InputError
from mcaprobe.images import SliceOptions, load_slice, load_tensor
from mcaprobe.volumes import foreground, otsu, read_volume
from tests.shared_data import shared

SHAPE = (10, 12, 8)


def head(seed: int = 0) -> NDArray[np.float32]:
    """Return a block of positive intensities in a background of zeros, largest across slices 4, 6 and 3."""
    rng = np.random.default_rng(seed)
    data = np.zeros(SHAPE, dtype=np.float32)
    data[2:8, 3:10, 1:6] = rng.uniform(10, 90, (6, 7, 5))
    data[4, :, :] = data[:, 6, :] = data[:, :, 3] = 0
    data[4, 2:11, 1:7], data[2:8, 6, 1:7], data[1:9, 2:11, 3] = 50, 60, 70
    return data


def written(path: Path, data: NDArray[Any], affine: NDArray[np.float64] | None = None) -> Path:
    nib.save(nib.Nifti1Image(data, np.diag([2.0, 1.0, 1.5, 1.0]) if affine is None else affine), path)
    return path


@pytest.mark.parametrize(("plane", "axis", "index"), [("axial", 2, 3), ("coronal", 1, 6), ("sagittal", 0, 4)])
def test_a_slice_is_the_fullest_one_with_its_neighbours(tmp_path: Path, plane: Any, axis: int, index: int) -> None:
    data = head()
    found = load_slice(written(tmp_path / "h.nii", data), SliceOptions(plane=plane, context=2, intensity="none"))
    assert (found.index, found.axis) == (index, axis)
    assert found.tensor.dtype == torch.float32 and found.anatomy is not None
    for channel, at in enumerate(range(index - 2, index + 3)):
        assert np.array_equal(found.tensor[0, channel].numpy(), data.take(at, axis=axis))
    assert torch.equal(found.anatomy, found.tensor[0, 2])


def test_the_outermost_slice_repeats_at_the_edge(tmp_path: Path) -> None:
    data = head() + 1
    path = written(tmp_path / "h.nii", data)
    low = load_slice(path, SliceOptions(index=0, context=2, intensity="none")).tensor[0]
    high = load_slice(path, SliceOptions(index=-1, context=1, intensity="none")).tensor[0]
    assert [np.array_equal(low[c].numpy(), data[:, :, k]) for c, k in enumerate((0, 0, 0, 1, 2))] == [True] * 5
    assert [np.array_equal(high[c].numpy(), data[:, :, k]) for c, k in enumerate((6, 7, 7))] == [True] * 3


def test_storage_order_does_not_change_the_slice(tmp_path: Path) -> None:
    data, affine = head(), np.diag([2.0, 1.0, 1.5, 1.0])
    plain = load_slice(written(tmp_path / "ras.nii", data, affine))
    flipped = affine @ np.array([[0, 0, -1, 9], [1, 0, 0, 0], [0, -1, 0, 7], [0, 0, 0, 1]])  # stored as (y, -z, -x)
    other = load_slice(written(tmp_path / "asl.mgz", data.transpose(1, 2, 0)[:, ::-1, ::-1].copy(), flipped))
    assert torch.equal(plain.tensor, other.tensor) and plain.index == other.index
    assert plain.affine is not None and other.affine is not None and np.allclose(plain.affine, other.affine, atol=1e-5)


def test_intensities_are_scaled_by_the_volume(tmp_path: Path) -> None:
    data = head()
    path = written(tmp_path / "h.nii", data)
    top = np.float32(np.quantile(data[data != 0], 0.999))
    quantile = load_slice(path).tensor[0, 0].numpy()
    assert np.array_equal(quantile, np.clip(data[:, :, 3] / top, 0, 1)) and quantile.max() < 1
    spread = load_slice(written(tmp_path / "m.nii", data - 20), SliceOptions(intensity="minmax", index=3)).tensor[0, 0]
    assert np.allclose(spread.numpy(), data[:, :, 3] / data.max())


def test_size_pads_and_crops_around_the_centre(tmp_path: Path) -> None:
    data = head() + 1
    path = written(tmp_path / "h.nii", data)
    found = load_slice(path, SliceOptions(size=(15, 7), index=3, intensity="none", context=1))
    expected = np.zeros((15, 7), dtype=np.float32)
    expected[2:12, :] = data[:, 2:9, 3]
    assert found.tensor.shape == (1, 3, 15, 7) and found.anatomy is not None and found.mask is not None
    assert np.array_equal(found.anatomy.numpy(), expected)
    assert not found.mask[:2].any() and not found.mask[12:].any()


def test_a_mask_follows_the_slice(tmp_path: Path) -> None:
    data = head()
    mask = (data > 55).astype(np.uint8)
    path, mask_path = written(tmp_path / "h.nii", data), written(tmp_path / "mask.nii", mask)
    found = load_slice(path, SliceOptions(mask=mask_path, size=(10, 14)))
    assert found.mask_rule == "voxels above 0 in mask.nii" and found.mask is not None
    assert np.array_equal(found.mask[:, 1:13].numpy(), mask[:, :, 3] > 0)
    finer = load_slice(path, SliceOptions(mask=mask_path, voxel_size=0.5, index=10))
    assert finer.mask is not None and finer.anatomy is not None and finer.mask.shape == finer.anatomy.shape == (40, 24)
    assert finer.mask.float().mean().item() == pytest.approx(float((mask[:, :, 3] > 0).mean()), abs=0.05)


def test_zeros_are_background_where_a_fifth_of_the_image_is_zero() -> None:
    data = head()
    data[5, 6, 3] = 0  # a hole
    mask, rule = foreground(data)
    assert rule.startswith("non-zero voxels") and mask[5, 6, 3]
    assert mask.sum() == sum(np.count_nonzero(_filled(data[:, :, k] != 0)) for k in range(8))


def _filled(plane: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return what cannot be reached from outside over the False elements, one step at a time."""
    outside = np.zeros((plane.shape[0] + 2, plane.shape[1] + 2), dtype=bool)
    outside[0, 0] = True
    free = np.pad(~plane, 1, constant_values=True)
    for _ in range(plane.size):
        for i, j in np.argwhere(outside):
            for a, b in ((i + 1, j), (i - 1, j), (i, j + 1), (i, j - 1)):
                if 0 <= a < free.shape[0] and 0 <= b < free.shape[1] and free[a, b]:
                    outside[a, b] = True
    return ~outside[1:-1, 1:-1]


def test_otsu_separates_the_head_from_a_noisy_background() -> None:
    rng = np.random.default_rng(1)
    data = rng.uniform(1, 6, SHAPE).astype(np.float32)
    data[2:8, 3:10, 1:6] += 60
    mask, rule = foreground(data)
    assert rule.startswith("voxels above Otsu's threshold") and np.array_equal(mask, data > 30)


def test_otsu_has_the_least_variance_within_the_classes() -> None:
    values = np.random.default_rng(2).normal(size=(500,)).astype(np.float32)
    values[:150] += 3
    threshold = otsu(values, bins=64)
    edges = np.histogram_bin_edges(values, 64)
    counts, centres = np.histogram(values, 64)[0], (edges[1:] + edges[:-1]) / 2
    within = []
    for k in range(1, 64):  # the two-pass definition: weighted variances of the two halves of the histogram
        total = 0.0
        for half in (slice(0, k), slice(k, 64)):
            n = counts[half].sum()
            mean = (counts[half] * centres[half]).sum() / n
            total += (counts[half] * (centres[half] - mean) ** 2).sum()
        within.append(total)
    assert threshold == pytest.approx(edges[1 + int(np.argmin(within))])


def test_the_template_needs_no_download() -> None:
    found = load_slice("mni152", SliceOptions(size=(256, 256), context=3))
    assert found.tensor.shape == (1, 7, 256, 256) and found.mask is not None and found.affine is not None
    assert 0.25 < found.mask.float().mean() < 0.4 and "exactly 0" in found.mask_rule
    assert np.allclose(np.abs(np.diag(found.affine)[:3]), 1.0)


@pytest.mark.parametrize("name", ["chris_t1.nii.gz", "corr_0025531_orig.mgz", "hippodeep_example_t1.nii.gz"])
def test_real_heads_load_in_every_plane(name: str) -> None:
    path = shared(f"t1/{name}")
    for plane in ("axial", "coronal", "sagittal"):
        found = load_slice(path, SliceOptions(plane=plane, size=(128, 160)))  # type: ignore[arg-type]
        assert found.tensor.shape == (1, 1, 128, 160)
        assert found.tensor.min() == 0 and 0.5 < found.tensor.max() <= 1


# --- what a user can do wrong -------------------------------------------------------------------------------------


def wrong(folder: Path) -> dict[str, tuple[Path | str, dict[str, Any], str]]:
    path = written(folder / "sub-01_t1.nii.gz", head())
    damaged = folder / "damaged.nii.gz"
    damaged.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    (folder / "notes.nii").write_text("not an image")
    (folder / "notes.txt").write_text("not an image")
    holes = head()
    holes[1, 1, 1], holes[2, 2, 2] = np.nan, np.inf
    moved = np.diag([2.0, 1.0, 1.5, 1.0])
    moved[0, 3] = 8
    return {
        "no file": (folder / "sub-01_t2.nii.gz", {}, "nearest names there are sub-01_t1.nii.gz"),
        "no file like it": (folder / "xyz", {}, "has a name like it"),
        "no folder": (folder / "data" / "x.nii", {}, "there is no folder"),
        "a folder": (folder, {}, "got the folder"),
        "a text": (folder / "notes.txt", {}, "Expected an image that nibabel can read"),
        "a text named nii": (folder / "notes.nii", {}, "Expected an image that nibabel can read"),
        "damaged": (damaged, {}, "damaged"),
        "4-D": (written(folder / "4d.nii", np.zeros((4, 4, 4, 3), np.float32)), {}, "Expected a 3-D image"),
        "2-D": (written(folder / "2d.nii", np.zeros((4, 4), np.float32)), {}, "Expected a 3-D image"),
        "colour": (
            written(folder / "c.nii", np.zeros((4, 4, 4), [("R", "u1"), ("G", "u1"), ("B", "u1")])),
            {},
            "colour",
        ),
        "complex": (written(folder / "z.nii", np.ones((4, 4, 4), np.complex64)), {}, "real intensities"),
        "NaN": (written(folder / "nan.nii", holes), {}, "got 2 voxels of 960 that are NaN or infinite"),
        "constant": (written(folder / "1.nii", head() * 0 + 4), {"intensity": "minmax"}, "is constant"),
        "all zero": (written(folder / "0.nii", head() * 0), {}, "quantile of the non-zero voxels is 0"),
        "negative": (written(folder / "-.nii", -head()), {}, "Expected positive intensities"),
        "empty slice": (path, {"index": 0}, "slice 0 of .* is empty"),
        "beyond": (path, {"index": 8}, "Expected a slice of 0 to 7, got 8: .* has 8 axial slices"),
        "before": (path, {"index": -9, "plane": "axial"}, "0 to 7, got -9"),
        "mask shape": (
            path,
            {"mask": written(folder / "m.nii", np.ones((10, 12, 9), np.uint8))},
            r"shape \(10, 12, 8\) in RAS order, got .*\(10, 12, 9\)",
        ),
        "mask place": (
            path,
            {"mask": written(folder / "p.nii", np.ones(SHAPE, np.uint8), moved)},
            "lies 8 mm away",
        ),
        "mask empty": (path, {"mask": written(folder / "e.nii", np.zeros(SHAPE, np.uint8))}, "is empty"),
        "mask missing": (path, {"mask": folder / "sub-01_t1.nii"}, "nearest names"),
        "singular affine": (_singular(folder / "s.nii"), {}, "invertible affine"),
    }


def _singular(path: Path) -> Path:
    image = nib.Nifti1Image(head(), np.eye(4))
    image.header.set_sform(np.diag([1.0, 1.0, 0.0, 1.0]), code=1)
    image.header["sform_code"] = 1
    image.to_filename(path)
    raw = bytearray(path.read_bytes())
    raw[312:328] = np.zeros(4, np.float32).tobytes()  # srow_z
    path.write_bytes(bytes(raw))
    return path


MISTAKES = [
    "no file", "no file like it", "no folder", "a folder", "a text", "a text named nii", "damaged", "4-D", "2-D",
    "colour", "complex", "NaN", "constant", "all zero", "negative", "empty slice", "beyond", "before", "mask shape",
    "mask place", "mask empty", "mask missing", "singular affine",
]  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_each_mistake_has_one_sentence(tmp_path: Path, mistake: str) -> None:
    cases = wrong(tmp_path)
    assert sorted(cases) == sorted(MISTAKES)
    path, options, sentence = cases[mistake]
    with pytest.raises(InputError, match=sentence) as error:
        load_slice(path, SliceOptions(**options))
    text = str(error.value)
    assert text.endswith(".") and "\n" not in text and not text.endswith("..")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"plane": "oblique"}, "axial, coronal or sagittal"),
        ({"intensity": "z"}, "quantile, minmax or none"),
        ({"context": -1}, "0 or more"),
        ({"size": (0, 4)}, "two positive numbers"),
        ({"voxel_size": 0.0}, "positive voxel size"),
        ({"voxel_size": float("nan")}, "positive voxel size"),
    ],
)
def test_wrong_options_are_refused_before_a_file_is_read(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        SliceOptions(**options)


def test_tensors_are_taken_as_they_are(tmp_path: Path) -> None:
    x = torch.randn(2, 3, 5, 4, 6, generator=torch.Generator().manual_seed(0))
    np.save(tmp_path / "x.npy", x.numpy())
    safetensors.torch.save_file({"x": x}, tmp_path / "x.safetensors")
    torch.save(x, tmp_path / "x.pt")
    torch.save({"x": x}, tmp_path / "dict.pt")
    for name in ("x.npy", "x.safetensors", "x.pt", "dict.pt"):
        found = load_slice(tmp_path / name)
        assert torch.equal(found.tensor, x) and found.anatomy is None and found.mask is None and found.affine is None
        assert "tensor" in found.mask_rule


class Executed:
    def __reduce__(self) -> Any:
        return (Path.touch, (Path("executed"),))


def test_a_pickle_is_not_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"x": Executed()}, tmp_path / "evil.pt")
    np.save(tmp_path / "evil.npy", np.array([Executed()], dtype=object), allow_pickle=True)
    for name in ("evil.pt", "evil.npy"):
        with pytest.raises(InputError, match="Expected a tensor in"):
            load_tensor(name)
    assert not (tmp_path / "executed").exists()


def test_a_file_that_is_not_one_finite_tensor_is_refused(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(2), "b": torch.ones(2)}, tmp_path / "two.pt")
    torch.save(torch.tensor([1.0, float("nan")]), tmp_path / "nan.pt")
    torch.save(torch.empty(0), tmp_path / "empty.pt")
    for name in ("bad.pt", "bad.npy", "bad.safetensors"):
        (tmp_path / name).write_bytes(b"nothing of the kind")
    for name, sentence in {
        "two.pt": "Expected one tensor in .* got 2 entries: a, b",
        "nan.pt": "got 1 elements of 2 that are NaN",
        "empty.pt": "with elements",
        "bad.pt": "Expected a tensor",
        "bad.npy": "Expected a tensor",
        "bad.safetensors": "Expected a tensor",
    }.items():
        with pytest.raises(InputError, match=sentence) as error:
            load_tensor(tmp_path / name)
        assert "\n" not in str(error.value)


def test_the_space_code_comes_from_the_header(tmp_path: Path) -> None:
    image = nib.Nifti1Image(head(), np.eye(4))
    image.set_sform(np.eye(4), code=4)
    nib.save(image, tmp_path / "mni.nii.gz")
    assert load_slice(tmp_path / "mni.nii.gz").space == 4
    nib.save(nib.MGHImage(head(), np.eye(4)), tmp_path / "h.mgz")
    assert read_volume(tmp_path / "h.mgz").space == 1
