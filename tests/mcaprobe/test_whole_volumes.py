"""Is a whole volume the campaigns of its slices or patches, put together, wherever they ran?"""

import gzip
import json

import nibabel as nib
import numpy as np
import pytest
import torch

import mcaprobe
from mcaprobe.__main__ import main
from mcaprobe.errors import InputError, RunFailure
from mcaprobe.storage import read_csv
from mcaprobe.streams import piece_seed
from tests.mcaprobe import small_models as models
from tests.mcaprobe import unit_faults as faults
from tests.mcaprobe.report_pages import Page, decoded
from tests.mcaprobe.run_directories import expect_equal
from tests.mcaprobe.test_campaign import Watcher

AXES = {"sagittal": 0, "coronal": 1, "axial": 2}
SHAPE = (12, 16, 8)
OPTIONS = {"samples": 4, "block": 2, "keep_moments": ["conv2", "pool.indices"], "metrics": [f"{models.HERE}:mean_of"]}


@pytest.fixture(scope="module")
def head(tmp_path_factory):
    """An image file with an empty slice at each end of the last axis."""
    data = np.random.default_rng(3).random(SHAPE, dtype=np.float32)
    data[..., 0] = data[..., -1] = 0
    data[:3] = 0
    affine = np.array([[2.0, 0, 0, -5], [0, 1.5, 0, 7], [0, 0, 3, 1], [0, 0, 0, 1]])
    path = tmp_path_factory.mktemp("head") / "sub-01_T1w.nii.gz"
    nib.save(nib.Nifti1Image(data, affine), path)
    return path


def run(head, out, model=f"{models.HERE}:build_small", **more):
    options = {**OPTIONS, "input_options": {"plane": "axial"}, "slices": None if "patches" in more else "all", **more}
    return mcaprobe.run(model, head, out=out, **options)


@pytest.fixture(scope="module")
def axial(head, tmp_path_factory):
    folder = tmp_path_factory.mktemp("axial") / "run"
    run(head, folder)
    return folder


@pytest.mark.parametrize("plane", AXES)
def test_a_slice_of_the_volume_is_the_campaign_of_that_slice_with_its_seed(head, tmp_path, plane):
    axis = AXES[plane]
    whole = run(head, tmp_path / "whole", slices="3:6:2", input_options={"plane": plane})
    for at, index in enumerate((3, 5)):
        alone = mcaprobe.run(f"{models.HERE}:build_small", head, out=tmp_path / str(index), seed=piece_seed(0, index),
                             input_options={"plane": plane, "index": index}, **OPTIONS)  # fmt: skip
        for name in alone.layers:
            for key in ("bits", "majority", "shares") if alone[name].has_map else ():
                found, expected = getattr(whole[name], key), getattr(alone[name], key)
                slab = found.select(found.ndim - 3 + axis, at)
                assert torch.equal(slab.nan_to_num(-9), expected.nan_to_num(-9)), (name, key)
        for name in ("conv2", "pool.indices"):
            one, other = whole[name].moments.state(), alone[name].moments.state()
            for key, expected in other.items():
                slab = one[key] if not expected.ndim else one[key].select(expected.ndim - 2 + axis, at)
                assert torch.equal(slab, expected), (name, key)
        rows = [r for r in read_csv(tmp_path / "whole/pieces.csv") if r.pop("piece") == str(index)]
        assert rows == read_csv(tmp_path / str(index) / "table.csv")


def test_rows_are_those_of_all_elements(axial):
    whole = mcaprobe.load(axial)
    layer = whole["conv2"]
    bits, classes = layer.significant_bits, layer.classes
    numbers = bits[classes == mcaprobe.Class.NUMBER]
    row = layer.row()
    assert row.shape == tuple(bits.shape) == (1, 2, 12, 16, 6) and row.elements == bits.numel()
    assert row.bits_mean == pytest.approx(float(numbers.mean()), rel=1e-12)
    assert row.bits_p05 == pytest.approx(float(np.quantile(numbers.numpy(), 0.05)), abs=1 / 8)
    for kind in mcaprobe.Class:
        assert getattr(row, f"share_{kind.name.lower()}") == pytest.approx(float((classes == kind).double().mean()))
    brain, background = layer.row("brain"), layer.row("background")
    assert brain.elements + background.elements == row.elements
    indices = whole["pool.indices"]
    changed = indices.moments.changes.sum() / (indices.moments.changes.numel() * 4)
    assert indices.row().index_change_rate == pytest.approx(float(changed))
    metric = whole["metric:mean_of"].row()
    assert metric.elements == 6 and len(read_csv(axial / "metrics.csv")) == 6 * 5


def test_the_histogram_of_the_volume_is_that_of_its_moments(axial):
    layer = mcaprobe.load(axial)["conv2"]
    expected = mcaprobe.summary.Histogram.of(layer.moments, layer.masks)
    assert torch.equal(layer.histogram.counts, expected.counts)
    assert torch.equal(layer.histogram.fixed, expected.fixed) and layer.histogram.regions == expected.regions


@pytest.mark.parametrize("plane", AXES)
def test_maps_lie_on_the_image_and_are_the_bytes_of_to_nifti(head, tmp_path, plane):
    result = run(head, tmp_path / "run", slices="2:6", input_options={"plane": plane, "size": (18, 10)})
    image = nib.load(head)
    found = nib.load(tmp_path / "run/maps/conv1.nii.gz")
    size, corner = [18, 10], np.zeros(3)
    size.insert(AXES[plane], 4)
    assert found.shape == (*size, 9)
    for a in range(3):
        corner[a] = 2 if a == AXES[plane] else (image.shape[a] - size[a]) // 2
    expected = image.affine @ [*corner, 1]
    assert found.affine @ [0, 0, 0, 1] == pytest.approx(expected)
    pooled = nib.load(tmp_path / "run/maps/pool.nii.gz")
    centre = [0.5, 0.5, 0.5]
    centre[AXES[plane]] = 0
    assert pooled.affine @ [0, 0, 0, 1] == pytest.approx(found.affine @ [*centre, 1])
    for name in ("conv1", "pool"):
        again = result[name].to_nifti(tmp_path / f"{name}.nii.gz")
        for suffix in (".nii.gz", ".json"):
            stored = tmp_path / f"run/maps/{name}{suffix}"
            read = gzip.decompress if suffix == ".nii.gz" else bytes
            assert read(stored.read_bytes()) == read(again.with_name(f"{name}{suffix}").read_bytes())


def test_the_anatomy_is_the_image_as_the_model_got_it(head, axial):
    place = mcaprobe.load(axial).place
    data = nib.load(head).get_fdata()[..., 1:7]
    top = np.quantile(data[data != 0], 0.999)
    assert place.anatomy.numpy() == pytest.approx(np.clip(data / top, 0, 1), abs=1e-6)
    assert place.mask.shape == place.anatomy.shape


@pytest.mark.parametrize("executor", [faults.Gathering, faults.Losing, faults.Repeating, faults.Lying])
def test_pieces_that_are_reordered_lost_or_repeated_give_the_same_bits(head, axial, tmp_path, executor):
    run(head, tmp_path / "run", executor=executor())
    expect_equal(axial, tmp_path / "run")


def test_processes_give_the_same_bits(head, axial, tmp_path):
    run(head, tmp_path / "run", executor="processes", workers=2)
    expect_equal(axial, tmp_path / "run")


@pytest.mark.parametrize("chunk", [2, None])
def test_little_memory_gives_the_same_bits(head, axial, tmp_path, chunk):
    run(head, tmp_path / "run", chunk=chunk, threads=1)
    expect_equal(axial, tmp_path / "run")


def test_the_rest_is_finished_and_exactly_the_pieces_that_failed_run_again(head, axial, tmp_path):
    executor = faults.Failing()
    with pytest.raises(RunFailure, match=r"1 of 6 units failed(?s:.*)slice 1: its worker was lost"):
        run(head, tmp_path / "run", executor=executor)
    assert json.loads((tmp_path / "run/manifest.json").read_text())["status"] == "failed"
    watcher = Watcher()
    run(head, tmp_path / "run", observer=watcher)
    assert watcher.chunks == [(0, 3)]
    expect_equal(axial, tmp_path / "run")


def test_a_damaged_piece_is_repeated(head, axial, tmp_path):
    with pytest.raises(RunFailure):
        run(head, tmp_path / "run", executor=faults.Failing())
    path = tmp_path / "run/pieces/3/layers/conv1.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    watcher = Watcher()
    run(head, tmp_path / "run", observer=watcher)
    assert len(watcher.chunks) == 2 and any("slice 3 is repeated" in s for s in watcher.said)
    expect_equal(axial, tmp_path / "run")


def test_a_complete_volume_is_not_run_again_and_other_slices_are_refused(head, axial):
    watcher = Watcher()
    run(head, axial, observer=watcher)
    assert watcher.chunks == [] and "complete: nothing to do" in watcher.said[0]
    with pytest.raises(InputError, match="holds another run: its input pieces"):
        run(head, axial, slices="2:4")


def test_patches_go_through_a_three_dimensional_model(head, tmp_path):
    solid = f"{models.HERE}:build_solid"
    options = {"keep_moments": ["conv2"], "metrics": []}
    whole = run(head, tmp_path / "run", solid, patches="8x8x8", **options)
    assert whole["conv2"].shape == (1, 2, 8, 8, 4) and whole["conv1"].bits.shape == (16, 16, 8)
    assert not whole["cut"].has_map and whole["cut"].row().elements == 4 * 8  # its elements lie on no common grid
    data = torch.from_numpy(np.pad(nib.load(head).get_fdata(dtype=np.float32), [(0, 4), (0, 0), (0, 0)]))
    x = data / np.float32(np.quantile(data[data != 0].numpy(), 0.999))
    corner = x.clamp(0, 1)[8:, 8:].clone()[None, None]
    alone = mcaprobe.run(solid, corner, samples=4, block=2, seed=piece_seed(0, 3), out=tmp_path / "alone",
                         keep_moments="conv2")  # fmt: skip
    assert torch.equal(whole["conv2"].moments.m2[:, :, 4:, 4:], alone["conv2"].moments.m2)
    assert torch.equal(whole["conv1"].bits[8:, 8:].nan_to_num(-9), alone["conv1"].bits.nan_to_num(-9))
    image, found = nib.load(head), nib.load(tmp_path / "run/maps/conv2.nii.gz")
    assert found.affine @ [0, 0, 0, 1] == pytest.approx(image.affine @ [0.5, 0.5, 0.5, 1])
    assert found.affine @ [4, 0, 0, 1] == pytest.approx(image.affine @ [8.5, 0.5, 0.5, 1])


def test_one_patch_of_everything_is_the_tensor_alone(head, tmp_path):
    solid = f"{models.HERE}:build_solid"
    whole = run(head, tmp_path / "run", solid, patches="whole", keep_moments=["conv2"], metrics=[])
    assert whole["cut"].has_map and whole["conv1"].bits.shape == SHAPE


def test_the_commands_read_a_volume(head, axial, tmp_path, capsys):
    command = ["run", f"{models.HERE}:build_small", str(head), "--out", str(tmp_path / "r"), "--samples", "4"]
    assert main([*command, "--slices", "2:4", "--plane", "axial"]) == 0
    assert "conv2" in capsys.readouterr().out
    assert main(["digits", str(axial), "--method", "general"]) == 0
    assert main(["mask", str(axial), "--below", "1", "--layers", "conv2"]) == 0
    assert main(["report", str(axial), "--out", str(tmp_path / "report.html")]) == 0


@pytest.mark.parametrize("plane", AXES)
def test_the_report_shows_the_slices_of_the_plane_with_the_input_beside_each(head, tmp_path, plane):
    run(head, tmp_path / "run", slices="2:7:2", input_options={"plane": plane}, metrics=[])
    mcaprobe.report(tmp_path / "run", tmp_path / "report.html")
    page = Page.read(tmp_path / "report.html")
    (group,) = page.data["groups"]
    assert f"One volume of 3 {plane} slices" in page.text
    assert [frame["label"] for frame in group["frames"]] == [f"slice {k} (2 to 6)" for k in (2, 4, 6)]
    place = mcaprobe.load(tmp_path / "run").place
    assert group["plane"] == plane and place is not None
    low, high = place.anatomy.min(), place.anatomy.max()
    for k, picture in enumerate(group["anatomy"]):
        grey = 255 * (place.anatomy.select(AXES[plane], k) - low) / (high - low)
        np.testing.assert_array_equal(decoded(picture), np.rint(np.rot90(grey.double().numpy())))
    conv = next(layer for layer in group["layers"] if layer["name"] == "conv1")
    assert conv["frames"] == [0, 1, 2] and len(group["heat"]["columns"]) == 3
    assert f"Columns are the {plane} slices" in group["heat"]["what"]


BAD = {
    "none": ({"slices": "90:99"}, "slices 90:99 are none of the 8 axial slices"),
    "text": ({"slices": "a:b"}, "Expected slices as all, START:STOP or START:STOP:STEP, got 'a:b'"),
    "step": ({"slices": "1:5:0"}, "Expected slices as all"),
    "both": ({"slices": "all", "patches": "8"}, "not both"),
    "index": ({"input_options": {"index": 4}}, "one slice \\(4\\) or slices"),
    "patch": ({"patches": "8x8"}, "Expected patches as XxYxZ voxels, one edge for a cube, or whole, got '8x8'"),
    "context": ({"patches": "8", "input_options": {"context": 1}}, "no neighbouring slices"),
    "samples": ({"keep_samples": "*"}, "activations of a whole volume are not kept"),
    "memory": ({"out": None}, "give out"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_sentence(head, tmp_path, case):
    options, sentence = BAD[case]
    with pytest.raises(InputError, match=sentence):
        run(head, **{"out": tmp_path / "run", **options})
    assert not (tmp_path / "run").exists()


def test_a_tensor_has_no_slices(tmp_path):
    with pytest.raises(InputError, match="Expected an image for slices or patches, got a tensor"):
        run(models.image(), tmp_path / "run")


def test_pieces_have_seeds_of_their_own():
    seeds = {piece_seed(seed, number) for seed in range(20) for number in range(50)}
    assert len(seeds) == 1000 and all(0 <= seed < 2**63 for seed in seeds)
