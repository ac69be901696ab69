"""Do `validate` and `calibrate` compare what they say, go on where they were, and refuse what makes no sense?"""

import argparse
import csv
import json
import re
from pathlib import Path

import matplotlib.pyplot as plt
import nibabel as nib
import pytest
import torch

import mcaprobe
import nanops
from analyses import kept
from analyses.__main__ import main
from analyses.commands.subjects import Study, sampling_of
from analyses.figures.fates import COLOURS, mixed
from analyses.validation import views as seen
from analyses.validation.agreement import fate
from analyses.validation.calibration import chosen, held_out
from analyses.validation.instability import Sampling
from analyses.validation.nans import nans_of
from analyses.validation.study import DIGITS, Plan, subject
from analyses.validation.views import name_of, spread, views
from analyses.validation.ways import MOVED, ORACLE, RANDOM, by_masks, moved, scattered
from mcaprobe.errors import InputError
from mcaprobe.loading import load_input
from nanops import Tolerance
from tests.analyses.small_segmenter import build, write_head
from tests.shared_data import shared

MODEL = "tests.analyses.small_segmenter:build"
REGRESSION = "tests.analyses.small_segmenter:build_regression"


@pytest.fixture
def heads(tmp_path, monkeypatch):
    """Two heads; finished parts are kept in the temporary folder."""
    monkeypatch.setattr(kept.Kept.__init__, "__defaults__", (tmp_path / "kept",))
    return [str(write_head(tmp_path / f"head{i}.nii.gz", i)) for i in (1, 2)]


def read(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def arguments(command, heads, out, *more):
    return [command, MODEL, *heads, "--samples", "5", "--name", "small", "--out", str(out), *more]


def test_validate_writes_tables_a_page_and_pictures(heads, tmp_path, capsys):
    out, already = tmp_path / "out", plt.get_fignums()
    assert main(arguments("validate", heads, out, "--slices", "2", "--probes", "2", "--picture")) == 0
    layers = read(out / "validation_small_layers.csv")
    assert {row["subject"] for row in layers} == {"head1", "head2"}
    assert {row["method"] for row in layers} == {"conservative", "aggressive", "hybrid"}
    unpool = [r for r in layers if r["layer"] == "unpool1" and r["method"] == "conservative"]
    assert {int(r["elements"]) for r in unpool} == {2 * 4 * 32 * 32}  # both slices, four channels
    assert all(int(r["predicted"]) > 0 and int(r["both"]) > 0 for r in unpool)
    networks = {(r["subject"], r["method"]): r for r in read(out / "validation_small_networks.csv")}
    assert {ORACLE, MOVED, RANDOM, "conservative, 256 ulps"} <= {method for _, method in networks}
    assert all(r["labels"] == str(2 * 32 * 32) and r["slices"] == "2" for r in networks.values())
    assert float(networks["head1", "conservative"]["mean_over_layers"]) > 0.1
    digits = read(out / "validation_small_digits.csv")
    assert {r["samples"] for r in digits} == {"2"} and "stock" in {r["method"] for r in digits}
    assert {":output.labels"} <= {r["layer"] for r in digits}
    for name in ("small.png", "small_digits.png", "small_fates.png", "small.md", "small.json"):
        assert (out / f"validation_{name}").stat().st_size > 0
    manifest = json.loads((out / "validation_small.json").read_text())
    assert manifest["subjects"] == ["head1", "head2"] and manifest["plan"]["sampling"]["samples"] == 5
    assert str(tmp_path) not in (out / "validation_small.md").read_text() + "".join(manifest["subjects"])
    assert "Windows of poolings" in capsys.readouterr().out
    assert plt.get_fignums() == already


def test_finished_subjects_are_kept_and_the_same_again(heads, tmp_path, monkeypatch):
    options = "--probes", "0"
    assert main(arguments("validate", heads[:1], tmp_path / "a", *options)) == 0
    calls = []
    from analyses.commands import validate as command

    def counted(*given):
        calls.append(given[1][0].subject)
        return subject(*given)

    monkeypatch.setattr(command, "subject", counted)
    assert main(arguments("validate", heads, tmp_path / "b", *options)) == 0
    assert calls == ["head2"]
    first, both = (read(tmp_path / f"{name}/validation_small_layers.csv") for name in "ab")
    assert [row for row in both if row["subject"] == "head1"] == first


def study(heads, **options):
    asked = {"slices": 1, "plane": "axial", "samples": 5, "threads": 1, "seed": 0, "name": "small", "out": Path("out")}
    args = argparse.Namespace(model=MODEL, inputs=heads, **{**asked, **options})
    return Study.of("calibrate", args, sampling=sampling_of(args))


def looked_at(made, others=None):
    """Return the sources that are looked at, those that are kept left out."""
    found = []
    made.tables(lambda source, say: (found.append(source), {"rows": [{"x": 1}]})[1], others)
    return found


@pytest.mark.parametrize("other", [{"slices": 2}, {"plane": "coronal"}, {"samples": 6}, {"seed": 1}], ids=str)
def test_what_is_kept_is_that_of_the_same_options(heads, other):
    assert looked_at(study(heads)) == heads and looked_at(study(heads)) == []
    assert looked_at(study(heads, **other)) == heads


def test_what_is_kept_is_that_of_the_same_file_and_the_same_content(heads):
    assert looked_at(study(heads)) == heads
    write_head(Path(heads[1]), seed=9)
    assert looked_at(study(heads)) == heads[1:]
    assert looked_at(study(heads), {heads[0]: "-picture"}) == heads[:1]


def test_a_picture_is_drawn_of_a_subject_that_was_kept_without(heads, tmp_path):
    for picture in ([], ["--picture"]):
        assert main(arguments("validate", heads[:1], tmp_path / "out", "--probes", "0", *picture)) == 0
    assert (tmp_path / "out/validation_small_fates.png").stat().st_size > 0


def test_calibrate_writes_what_convert_reads(heads, tmp_path):
    out = tmp_path / "out"
    assert main(arguments("calibrate", heads, out)) == 0
    overrides = nanops.load_overrides(out / "calibration_small_overrides.json")
    assert set(overrides) <= {"pool1", "pool2"} and overrides
    assert all(isinstance(found["tolerance"], Tolerance) and found["max_ties"] >= 1 for found in overrides.values())
    nanops.convert(build(), overrides=out / "calibration_small_overrides.json")
    judged = read(out / "calibration_small_held_out.csv")
    assert {row["setting"] for row in judged} == {"paper", "held out", "best"}
    for row in judged:
        own = {r["setting"]: float(r["mcc"] or 0) for r in judged
               if (r["layer"], r["subject"]) == (row["layer"], row["subject"])}  # fmt: skip
        assert own["best"] >= max(own["paper"], own["held out"]) - 1e-6
    assert (out / "calibration_small.png").stat().st_size > 0
    code = main(arguments("validate", heads[:1], out, "--probes", "0",
                          "--overrides", str(out / "calibration_small_overrides.json")))  # fmt: skip
    assert code == 0
    assert "conservative, calibrated" in {row["method"] for row in read(out / "validation_small_networks.csv")}


def test_one_subject_is_not_held_out(heads, tmp_path, capsys):
    assert main(arguments("calibrate", heads[:1], tmp_path)) == 0
    assert not (tmp_path / "calibration_small_held_out.csv").exists()
    assert "No subject was held out" in capsys.readouterr().out


@pytest.mark.parametrize(
    "command, more, sentence",
    [
        ("validate", ["--samples", "1"], "Expected --samples of at least 2, got 1"),
        ("validate", ["--probes", "1"], "Expected --probes of 0 or at least 2, got 1"),
        ("validate", ["--threshold", "0"], r"Expected --threshold in \(0, 1\], got 0.0"),
        ("validate", ["--below", "-1"], "Expected a threshold of at least 0 bits, got -1.0"),
        ("validate", ["--slices", "9"], "Expected from 1 to 4 slices of .*head1.nii.gz, which hold a voxel, got 9"),
        ("validate", ["--name", "a/b"], "Expected a --name of letters"),
        ("validate", ["--overrides", "nowhere.json"], "nowhere.json"),
        ("calibrate", ["--slices", "0"], "Expected --slices of at least 1, got 0"),
    ],
)
def test_options_that_make_no_sense_are_refused(heads, tmp_path, capsys, command, more, sentence):
    assert main([*arguments(command, heads[:1], tmp_path / "out"), *more]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and re.search(sentence, error)
    assert not (tmp_path / "out").exists()


def test_an_input_that_is_given_twice_is_refused(heads, tmp_path, capsys):
    assert main(arguments("validate", [heads[0], heads[0]], tmp_path)) == 2
    assert "each input once" in capsys.readouterr().err


@pytest.mark.parametrize("model, sentence", [(REGRESSION, "two classes or more"), ("nowhere:x", "Cannot import")])
def test_networks_that_choose_no_class_are_refused(heads, tmp_path, capsys, model, sentence):
    command = ["validate", model, heads[0], "--samples", "2", "--probes", "0", "--out", str(tmp_path / "out")]
    assert main(command) == 2
    assert sentence in capsys.readouterr().err


def test_maps_of_nans_lie_on_the_grids_of_a_run(heads, tmp_path, capsys):
    run = mcaprobe.run(MODEL, heads[0], samples=2, out=tmp_path / "run")
    assert main(["nans", str(tmp_path / "run"), "--out", str(tmp_path / "nans"), "--threshold", "0.4"]) == 0
    found = nans_of(nanops.convert(build(), threshold=0.4), load_input(heads[0], build(), {}).tensor, ["unpool1"])
    path = tmp_path / "nans" / "sub-head1_label-unpool1_desc-nan_probseg.nii.gz"
    image, about = nib.Nifti1Image.from_filename(path), json.loads(path.with_name(path.name[:-7] + ".json").read_text())
    own = nib.Nifti1Image.from_filename(next((tmp_path / "run/maps").glob("unpool1*.nii.gz")))
    assert image.shape == own.shape[:3] and (image.affine == own.affine).all()
    share = found.masks["unpool1"][0].float().mean(0)
    assert share.max() > 0 and torch.equal(torch.from_numpy(image.get_fdata()[..., 0]).float(), share)
    assert about["Layer"] == "unpool1" and about["NaNElements"] == int(found.masks["unpool1"].sum())
    assert run["unpool1"].spatial and "layers with NaN" in capsys.readouterr().out


def test_maps_of_another_input_are_refused(heads, tmp_path, capsys):
    mcaprobe.run(MODEL, heads[0], samples=2, out=tmp_path / "run")
    write_head(Path(heads[0]), seed=9)
    assert main(["nans", str(tmp_path / "run"), "--out", str(tmp_path / "nans")]) == 2
    assert "Expected the input of" in capsys.readouterr().err and not (tmp_path / "nans").exists()


def test_the_oracle_puts_nan_exactly_where_the_campaign_found_none_to_be_sure_of(heads):
    network = build()
    (view,) = views(network, heads[0], 1)
    run = mcaprobe.run(network, view.input.tensor, samples=5)
    masks = {name: mcaprobe.unstable(run, name).values for name in ("unpool1", "unpool2")}
    assert all(m.any() for m in masks.values())
    found = nans_of(by_masks(masks)[ORACLE](network), view.input.tensor, masks)
    # The deeper unpool's NaNs reach the next one only through convolutions.
    assert torch.equal(found.masks["unpool2"], masks["unpool2"])
    assert (found.masks["unpool1"] >= masks["unpool1"]).all()


def test_controls_have_as_many_nans_in_each_layer():
    g = torch.Generator().manual_seed(1)
    masks = {"a": torch.rand(1, 3, 8, 6, generator=g) < 0.2, "b": torch.rand(1, 2, 4, 4, generator=g) < 0.7}
    for control in (moved(masks), scattered(masks, 0)):
        for name, mask in masks.items():
            assert control[name].sum() == mask.sum() and control[name].shape == mask.shape
            assert not torch.equal(control[name], mask)
    assert moved(masks)["a"][0, 1, 0, 0] == masks["a"][0, 1, 4, 3]
    assert torch.equal(scattered(masks, 5)["a"], scattered(masks, 5)["a"])


def test_the_first_slice_is_probed_with_another_seed(heads, monkeypatch):
    from analyses.validation import study

    seeds = []
    real = study.probe

    def noted(network, view, sampling, **options):
        seeds.append((view.index, sampling.seed, sampling.samples))
        return real(network, view, sampling, **options)

    monkeypatch.setattr(study, "probe", noted)
    network = build()
    found = list(views(network, heads[0], 2))
    tables = subject(network, found, Plan(Sampling(samples=5, seed=7), probes=2))
    assert (found[0].index, 7, 5) in seeds and (found[1].index, 7, 5) in seeds
    assert {(index, seed, n) for index, seed, n in seeds if seed != 7} == {(found[0].index, 8, 2)}
    assert {row["slice"] for row in tables[DIGITS]} == {found[0].index}


def test_a_view_is_the_slice_that_mcaprobe_reads(heads):
    network = build()
    first, second = views(network, heads[0], 2)
    assert (first.index, second.index) == (2, 4) and first.subject == "head1"
    expected = load_input(heads[0], network, {"index": 4})
    assert torch.equal(second.input.tensor, expected.tensor) and second.target is None
    assert torch.equal(second.brain, expected.picture.mask)


def test_slices_are_spread_evenly():
    assert spread(range(10, 20), 1, "x") == [15]
    assert spread(range(10, 20), 2, "x") == [12, 17]
    assert spread(range(3), 3, "x") == [0, 1, 2]
    with pytest.raises(InputError, match="from 1 to 3 slices of x"):
        spread(range(3), 4, "x")


def test_a_labelled_brain_has_its_manual_classes():
    shared("malc/1013_SS.nii.gz")
    from analyses.trained import structures_path

    if not structures_path("axial").is_file():
        pytest.skip("no trained network")
    (view,) = views(torch.nn.Identity(), "malc:1013", 1)
    assert view.subject == "malc 1013" and view.input.tensor.shape == (1, 7, 256, 256)
    assert view.target is not None and view.target.shape == (256, 256) and len(view.target.unique()) > 5
    # Where a structure was drawn there is brain.
    inside = view.brain[(view.target > 0) & (view.target < 255)]
    assert inside.float().mean() > 0.99


def test_names_hold_nothing_of_a_path():
    assert [name_of(s) for s in ("/a/b/sub-01_T1w.nii.gz", "mni152", "malc:1013")] == [
        "sub-01_T1w", "mni152", "malc 1013",
    ]  # fmt: skip
    assert seen.file_of("malc:1013").name == "1013_SS.nii.gz"


def test_the_fate_of_a_pixel_is_shared_by_its_channels():
    nan = torch.tensor([[[[True]], [[True]], [[False]], [[False]]]])
    unstable = torch.tensor([[[[True]], [[False]], [[True]], [[False]]]])
    assert fate(nan, unstable).flatten().tolist() == [0.25, 0.25, 0.25]


def test_colours_are_mixed_by_the_shares():
    from matplotlib.colors import to_rgb

    shares = torch.zeros(3, 1, 2)
    shares[0, 0, 0] = 1
    picture = mixed(shares.numpy(), torch.ones(2, 2).numpy())
    assert picture.shape == (2, 2, 3)
    assert picture[:, 0].tolist() == [list(to_rgb(next(iter(COLOURS.values()))))] * 2
    assert (picture[:, 1] == 0.75).all()


def test_a_setting_of_the_others_is_judged_on_the_one_left_out():
    def rows(subject, good):
        """One layer, two tolerances: the good one finds all, the other nothing."""
        return [
            {"subject": subject, "layer": "p", "kind": kind, "value": value, "max_ties": 1, "elements": 100, "true": 10,
             "predicted": 10 if value == good else 20, "both": 10 if value == good else 2}
            for kind, value in (("absolute", 1e-7), ("absolute", 1e-3))
        ]  # fmt: skip

    table = [*rows("a", 1e-7), *rows("b", 1e-3), *rows("c", 1e-3)]
    found = {(r["subject"], r["setting"]): r["value"] for r in held_out(table)}
    assert found["a", "held out"] == 1e-3 and found["a", "best"] == 1e-7
    assert found["b", "held out"] == 1e-7  # of equal ones the smallest
    assert chosen(table) == {"p": {"tolerance": Tolerance("absolute", 1e-3), "max_ties": 1}}
    assert list(held_out(rows("a", 1e-7))) == []
