"""Does a map lie where its layer lies, is a cell of the heatmap the mean it says, and which runs belong together?"""

import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import mcaprobe
from mcaprobe.html_report.groups import load_runs
from mcaprobe.html_report.maps import frames_of, maps_of
from mcaprobe.html_report.overlays import Overlays
from mcaprobe.html_report.pictures import LEVELS, PALETTE, View, indices, nearest
from mcaprobe.html_report.png import grey_png, indexed_png
from mcaprobe.html_report.profiles import heat_of, profile
from mcaprobe.palette import COLOURS
from mcaprobe.place import Place
from mcaprobe.statistics import Class
from tests.mcaprobe.made_runs import FINE, POOLED, change_manifest, make_run
from tests.mcaprobe.report_pages import decoded, picture_of
from tests.mcaprobe.swept_layers import layer
from tests.reference.band_twin import bands
from tests.reference.world import oblique_affine

NOTHING = Overlays([], {}, {})
UP, DOWN = View((8, 6), True, 8 / 6), View((8, 6), False, 6 / 8)


@pytest.mark.parametrize(("view", "grid", "shape", "box"), [
    (UP, FINE, (8, 6), (0, 0, 100, 100)),
    (DOWN, FINE, (8, 6), (0, 0, 100, 100)),
    (UP, POOLED, (4, 3), (0, 0, 100, 100)),
    (UP, [[1.0, 1.0], [1.0, 1.0]], (6, 4), (12.5, 100 / 6, 75, 400 / 6)),  # a convolution without padding
    (UP, [[2.0, 0.0], [2.0, 0.0]], (4, 3), (-6.25, 100 / 12, 100, 100)),  # a stride that begins at the first voxel
    (DOWN, [[2.0, 0.0], [2.0, 0.0]], (4, 3), (-100 / 12, -6.25, 100, 100)),
    (View((10,), False, 4.0), [[1.0, 2.0]], (6,), (20, 0, 60, 100)),
    (View((5, 8, 6), False, 1.0, 0), [[1.0, 0.0], [2.0, 0.5], [1.0, 1.0]], (5, 4, 4), (100 / 6, 0, 400 / 6, 100)),
    (View((8, 6, 5), True, 1.0, 2), [[2.0, 0.5], [1.0, 1.0], [1.0, 0.0]], (4, 4, 5), (0, 100 / 6, 100, 400 / 6)),
    (View((8, 5, 6), True, 1.0, 1), [[2.0, 0.5], [1.0, 0.0], [1.0, 1.0]], (4, 5, 4), (0, 100 / 6, 100, 400 / 6)),
], ids=["whole up", "whole", "pooled", "valid up", "stride up", "stride", "line", "volume",
        "axial volume", "coronal volume"])  # fmt: skip
def test_a_map_is_placed_by_the_grid_of_its_layer(view, grid, shape, box):
    assert view.box(grid, shape) == pytest.approx(box, abs=1e-3)


def test_a_slice_is_turned_so_that_its_second_axis_points_up():
    values = np.arange(48).reshape(8, 6)
    (up,), (down,) = UP.cut(values), DOWN.cut(values)
    assert up.shape == (6, 8) and up[0, 7] == values[7, 5] and up[5, 0] == values[0, 0]
    assert np.array_equal(down, values)
    assert [part.shape for part in View((2, 8, 6), False, 1.0, 0).cut(np.zeros((2, 8, 6)))] == [(8, 6), (8, 6)]
    for across in range(3):
        volume = np.stack([values, values + 1], axis=across)
        first, second = View(volume.shape, True, 1.0, across).cut(volume)
        assert np.array_equal(first, up) and np.array_equal(second, up + 1)
    assert View((6,), False, 4.0).cut(np.arange(6))[0].shape == (1, 6)


@pytest.mark.parametrize(("step", "size", "whole", "expected"), [
    ((1.0, 0.0), 4, 4, [0, 1, 2, 3]),
    ((2.0, 0.5), 2, 4, [0, 0, 1, 1]),
    ((1.0, 1.0), 2, 4, [-1, 0, 1, -1]),
    ((0.5, -0.25), 8, 4, [1, 3, 5, 7]),
])  # fmt: skip
def test_each_voxel_shows_the_nearest_element(step, size, whole, expected):
    assert nearest(step, size, whole) == expected


def test_bits_go_over_all_levels_and_each_class_has_its_colour():
    bits = np.array([[-3.0, 0.0, 12.0, 24.0, 99.0, math.nan]])
    assert indices(bits, np.zeros((1, 6), np.uint8), 24).tolist() == [[0, 0, 124, 247, 247, 0]]
    for kind in COLOURS:
        at = indices(np.zeros((1, 1)), np.full((1, 1), int(kind), np.uint8), 24)[0, 0]
        assert "#{:02x}{:02x}{:02x}".format(*PALETTE[at]) == COLOURS[kind]
    assert len(PALETTE) == LEVELS + len(Class) - 1 <= 256 and len(set(PALETTE)) == len(PALETTE)


def test_a_picture_holds_what_was_drawn():
    values = np.random.default_rng(0).integers(0, 200, (7, 5)).astype(np.uint8)
    assert np.array_equal(decoded(grey_png(values)), values)
    assert np.array_equal(decoded(indexed_png(values, PALETTE)), values)
    coloured = picture_of(indexed_png(values, PALETTE)).convert("RGB")
    assert np.array_equal(np.asarray(coloured), np.array(PALETTE)[values])
    assert indexed_png(values, PALETTE) == indexed_png(values.copy(), PALETTE)
    with pytest.raises(ValueError, match="indices into 1 to 256 colours"):
        indexed_png(values, PALETTE[:100])
    with pytest.raises(ValueError, match="Expected a picture of uint8"):
        grey_png(values.astype(np.float32))


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("grid", [FINE, POOLED, [[1.0, 1.0], [1.0, 1.0]], [[2.0, 0.0], [2.0, 0.0]]])
@pytest.mark.parametrize("count", [1, 3, 5])
def test_a_cell_is_the_mean_of_the_map_in_its_band(axis, grid, count):
    whole, random = (9, 7), np.random.default_rng(axis + count)
    shape = tuple(int((n - 1 - step[1]) // step[0]) + 1 for n, step in zip(whole, grid, strict=True))
    shares = random.dirichlet(np.ones(8), shape).transpose(2, 0, 1)
    shares[0][random.random(shape) < 0.3] = 0
    bits = np.where(shares[0] > 0, random.uniform(0, 24, shape), np.nan)
    region = random.random(shape) < 0.6
    region.reshape(-1)[0] = True
    made = SimpleNamespace(bits=torch.from_numpy(bits), shares=torch.from_numpy(shares))
    found = profile(made, grid, axis, whole[axis], count, torch.from_numpy(region))
    expected = bands(bits.tolist(), shares.tolist(), region.tolist(), grid, axis, whole[axis], count)
    assert len(found) == len(expected) == count
    for cell, wanted in zip(found, expected, strict=True):
        if wanted is None:
            assert cell is None
        else:
            mean, parts = wanted
            assert cell[0] == (None if mean is None else pytest.approx(mean, abs=1e-4))
            assert cell[1:] == pytest.approx(parts, abs=1e-4)


def run_of(folder: Path, shift: float, **manifest: object) -> Path:
    affine = torch.eye(4, dtype=torch.float64)
    affine[2, 3] = shift
    place = Place(torch.ones(8, 6), torch.ones(8, 6, dtype=torch.bool), affine, 2, 2)
    make_run(folder, {"conv": layer((1, 2, 8, 6), 4)}, place=place)
    change_manifest(folder, **manifest)
    return folder


def identity_of(**what: object) -> dict[str, object]:
    estimator = {"method": "cnh", "reference": "ieee", "error": "relative", "probability": 0.95, "confidence": 0.95}
    return {"samples": 4, "seed": 3, "model": "a:model", "input": "x.nii", "convention": "classes", **estimator, **what}


def test_slices_of_one_image_are_one_group_in_the_order_of_their_positions(tmp_path):
    runs = [run_of(tmp_path / f"r{z}", z, identity=identity_of(**{"input index": i, "input sha256": f"s{z}"}))
            for z, i in ((5.0, 5), (-3.0, -8), (1.5, None))]  # fmt: skip
    (group,) = load_runs(runs)
    assert [run.label for run in group.runs] == ["z = -3 mm", "z = 1.5 mm", "slice 5, z = 5 mm"]
    assert [label for _, label in frames_of(group)] == [run.label for run in group.runs]
    assert (group.plane, group.title) == ("axial", "a:model on sub-01_ses-2_desc-preproc_T1w.nii.gz")


def test_seeds_of_one_slice_are_told_apart_by_their_seeds_and_copies_by_their_folders(tmp_path):
    seeds = [run_of(tmp_path / f"seed{s}", 2.0, identity=identity_of(seed=s), seed=s) for s in (4, 3)]
    assert [run.label for run in load_runs(seeds)[0].runs] == ["z = 2 mm, seed 3", "z = 2 mm, seed 4"]
    copies = [run_of(tmp_path / name, 2.0, identity=identity_of()) for name in ("one", "two")]
    assert [run.label for run in load_runs(copies)[0].runs] == [f"z = 2 mm, seed 3, {path}" for path in copies]


@pytest.mark.parametrize("what", [{"mode": "nearness"}, {"samples": 9}, {"model": "b:model"}, {"probability": 0.9},
                                  {"input voxel_size": 1.0}])  # fmt: skip
def test_runs_that_differ_in_more_than_slice_and_seed_are_groups_of_their_own(tmp_path, what):
    one, two = (run_of(tmp_path / str(z), z, identity=identity_of(**more)) for z, more in ((0.0, {}), (1.0, what)))
    assert len(load_runs([one, two])) == 2


def test_the_position_of_an_oblique_slice_is_counted_along_its_normal(tmp_path):
    affine = torch.from_numpy(oblique_affine((1, 1, 1), (0, 1, 2), (1.0, 1.0, 2.0)))
    places = []
    for k in (0, 3):
        moved = affine.clone()
        moved[:3, 3] += k * affine[:3, 2]
        place = Place(torch.ones(8, 6), torch.ones(8, 6, dtype=torch.bool), moved, 2, 2)
        make_run(tmp_path / f"r{k}", {"conv": layer((1, 2, 8, 6), 4)}, place=place)
        change_manifest(tmp_path / f"r{k}", identity=identity_of())
        places.append(tmp_path / f"r{k}")
    (group,) = load_runs(places)
    low, high = (run.position for run in group.runs)
    assert high - low == pytest.approx(6.0)
    assert all(run.label.startswith("normal = ") for run in group.runs)


class Deep(torch.nn.Module):
    """A convolution and a pooling of a volume."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.conv, self.pool = torch.nn.Conv3d(1, 3, 3, padding=1), torch.nn.MaxPool3d(2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.pool(self.conv(x))


def test_a_volume_is_cut_into_the_slices_of_its_first_axis(tmp_path):
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(1, 1, 6, 8, 4)).astype(np.float32))
    result = mcaprobe.run(Deep().eval(), x, out=tmp_path / "run", samples=4, block=2, threads=1)
    (group,) = load_runs([tmp_path / "run"])
    assert [label for _, label in frames_of(group)] == [f"slice {k} (0 to 5)" for k in range(6)]
    conv, pool = maps_of(group, NOTHING, ["*"])
    assert (conv.frames, pool.frames) == ([0, 1, 2, 3, 4, 5], [0, 0, 1, 1, 2, 2])
    for cut, bits, kinds in zip(pool.cuts, result["pool"].bits, result["pool"].majority, strict=True):
        drawn = indices(bits.numpy().astype(np.float64), kinds.numpy(), 24)
        assert np.array_equal(decoded(cut["map"]), drawn)
    heat = heat_of(group)
    assert len(heat.columns) == 6 and list(heat.rows) == ["conv", "pool"] and list(heat.rows["pool"]) == ["all"]
    cell = heat.rows["conv"]["all"][2]
    plane = result["conv"].bits[2]
    assert cell is not None and cell[0] == pytest.approx(float(plane[~plane.isnan()].double().mean()), abs=1e-4)


def test_the_heatmap_of_slices_is_the_table(tmp_path):
    x = [torch.from_numpy(np.random.default_rng(k).normal(size=(1, 1, 8, 8)).astype(np.float32)) for k in (0, 0)]
    runs = []
    for seed, tensor in enumerate(x):
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.ReLU()).eval()
        mcaprobe.run(model, tensor, out=tmp_path / f"r{seed}", samples=4, block=2, threads=1, seed=seed)
        runs.append(tmp_path / f"r{seed}")
    (group,) = load_runs(runs)
    heat = heat_of(group)
    assert heat.columns == ["the input, seed 0", "the input, seed 1"]
    for name, regions in heat.rows.items():
        for run, cell in zip(runs, regions["all"], strict=True):
            row = mcaprobe.load(run)[name].row()
            assert cell is not None and cell[0] == pytest.approx(row.bits_mean, abs=1e-4)
            assert cell[1 + Class.ZERO] == pytest.approx(row.share_zero, abs=1e-4)
            assert sum(cell[1:]) == pytest.approx(1, abs=1e-3)
