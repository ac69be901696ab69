"""What does `mcaprobe mask` answer, with which exit code, and what lies where in its folder?"""

import csv
import json
import os
import re
import shlex
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from safetensors import safe_open

import mcaprobe
from mcaprobe import bids, mask_files, storage
from mcaprobe.commands.mask import CLASSES, REDUCTIONS
from mcaprobe.layer_masks import REDUCTIONS as KNOWN
from mcaprobe.masks import IndexChange, Unstable
from mcaprobe.statistics import Class
from tests.mcaprobe import command_line
from tests.mcaprobe.made_runs import FINE, POOLED, change_manifest, make_run, place_of
from tests.mcaprobe.small_head import write_head
from tests.mcaprobe.small_models import HERE
from tests.mcaprobe.swept_layers import layer
from tests.reference.world import oblique_affine

SMALL = f"{HERE}:build_small"
START = "sub-01_ses-2_label-"


def call(capsys, *arguments: object) -> tuple[int, str, str]:
    return command_line.call(capsys, "mask", *arguments)


def indices(n: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Indices (1, 2, 4, 3) of which window i changes in i % (n + 1) samples."""
    reference = torch.arange(24).reshape(1, 2, 4, 3)
    samples = torch.stack([reference + (reference % (n + 1) > k) for k in range(n)])
    return reference, samples


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A run made by hand: a layer of the image's size, a pooled one, indices, one without image axes, one not kept."""
    layers = {"net.conv": layer((1, 3, 8, 6), 5), "net.pool": layer((1, 2, 4, 3), 5, seed=1),
              "net.pool.indices": indices(5), "head": layer((1, 10), 5, seed=2),
              "lost": layer((1, 2, 8, 6), 5)}  # fmt: skip
    grids = {"net.pool": POOLED, "net.pool.indices": POOLED, "head": None}
    folder = make_run(tmp_path_factory.mktemp("made") / "run", layers, grids=grids, unkept=("lost",),
                      place=place_of(torch.eye(4, dtype=torch.float64), 2, (8, 6)))  # fmt: skip
    return folder


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_each_layer_has_its_reductions_as_nifti_and_all_channels_as_safetensors(capsys, made, tmp_path):
    code, output, errors = call(capsys, made, "--below", "1", "--out", tmp_path / "m")
    assert (code, errors) == (0, "")
    volumes = {f"{START}{label}_desc-{end}" for label in ("netconv", "netpool")
               for end in ("unstable_mask", "unstableAll_mask", "unstable_probseg")}  # fmt: skip
    expected = {f"{name}{suffix}" for name in volumes for suffix in (".nii.gz", ".json")}
    tables = {"masks.safetensors", "undefined.safetensors", "masks.json", "masks.csv", "dataset_description.json"}
    assert names_in(tmp_path / "m") == expected | tables
    with safe_open(tmp_path / "m/masks.safetensors", "pt") as file:
        assert set(file.keys()) == {"net.conv", "net.pool", "head"}
    for name, mask in mcaprobe.load_masks(tmp_path / "m", mcaprobe.load(made)).items():
        again = mcaprobe.unstable(made, name)
        assert torch.equal(mask.values, again.values) and torch.equal(mask.undefined, again.undefined)
        assert {k: v for k, v in mask.about.items() if k != "GeneratedBy"} == json.loads(
            storage.to_json({k: v for k, v in again.about.items() if k != "GeneratedBy"})
        )
        for how, end in (("any", "unstable_mask"), ("all", "unstableAll_mask"), ("share", "unstable_probseg")):
            path = tmp_path / "m" / f"{START}{bids.alphanumeric(name)}_desc-{end}.nii.gz"
            assert path.exists() == (name != "head")
            if path.exists():
                image = nib.load(path)
                assert image.get_data_dtype() == (np.float32 if how == "share" else np.uint8)
                assert np.array_equal(np.asarray(image.dataobj)[..., 0], mask.reduced(how).numpy())
    for words in ("1 of 4 layers kept no moments, .* .the first is lost.", "1 layers are decisions",
                  "1 layers have no image axes, .* .the first is head.", "neither stable nor unstable",
                  "at most 0.45 of all runs", r"The masks are .*/m \(6 .nii.gz"):  # fmt: skip
        assert re.search(words, output), words


def test_channels_are_a_fourth_axis_only_when_asked_for(capsys, made, tmp_path):
    code, _, _ = call(capsys, made, "--layers", "net.conv", "--reduce", "none", "any", "none", "--out", tmp_path / "m")
    assert code == 0
    volumes = {name for name in names_in(tmp_path / "m") if name.endswith(".nii.gz")}
    assert volumes == {f"{START}netconv_desc-{end}_mask.nii.gz" for end in ("unstable", "unstableChannels")}
    image = nib.load(tmp_path / "m" / f"{START}netconv_desc-unstableChannels_mask.nii.gz")
    values = mcaprobe.unstable(made, "net.conv").values[0]
    assert image.shape == (8, 6, 1, 3)
    assert np.array_equal(np.moveaxis(np.asarray(image.dataobj)[:, :, 0], -1, 0), values.numpy())


def test_a_sidecar_says_criterion_estimator_n_run_tensor_and_counts(capsys, made, tmp_path):
    out = tmp_path / "m"
    assert call(capsys, made, "--below", "2.5", "--method", "general", "--confidence", ".9", "--out", out)[0] == 0
    about = json.loads((out / f"{START}netpool_desc-unstable_mask.json").read_text())
    mask = mcaprobe.unstable(made, "net.pool", Unstable(2.5), mcaprobe.Estimator("general", confidence=0.9))
    assert about["Criterion"]["Threshold"] == 2.5 and about["Reduction"]["Name"] == "any"
    assert about["Estimator"]["Method"] == "general" and about["Estimator"]["Confidence"] == 0.9
    assert (about["Samples"], about["Mode"], about["Seed"], about["Route"]) == (5, "random", 3, "model")
    assert about["SupportedProbability"] == pytest.approx(0.1 ** (1 / 5))
    assert about["MaskedElements"] == mask.masked and about["MaskedShare"] == mask.masked / 24
    assert about["MaskedVoxels"] == int(mask.values[0].any(0).sum()) and about["Voxels"] == 12
    assert about["UndefinedElements"] == int(mask.undefined.sum()) == 24 - sum(
        about["ElementsOfClass"][kind] for kind in ("number", "noise")
    )
    assert about["UndefinedVoxels"] == int(mask.undefined[0].all(0).sum())
    assert (about["Layer"], about["Tensor"], about["Shape"]) == ("net.pool", "output of net.pool", [1, 2, 4, 3])
    assert about["Run"]["Identity"]["model"] == "a:model" and about["Run"]["Command"][1] == "run"
    assert about["GeneratedBy"][0]["Name"] == "mcaprobe" and about["GeneratedBy"][0]["Version"]
    assert about["Sources"] == ["bids:run:layers/net.pool.safetensors", "data/sub-01_ses-2_desc-preproc_T1w.nii.gz"]
    description = json.loads((out / "dataset_description.json").read_text())
    assert description["DatasetType"] == "derivative" and description["GeneratedBy"][0]["Name"] == "mcaprobe"
    link = description["DatasetLinks"]["run"]
    assert (out / link / "layers/net.pool.safetensors").resolve() == (made / "layers/net.pool.safetensors").resolve()
    with (out / "masks.csv").open(newline="") as file:
        rows = {row["layer"]: row for row in csv.DictReader(file)}
    assert int(rows["net.pool"]["masked"]) == mask.masked and rows["net.pool"]["shape"] == "1x2x4x3"
    assert rows["head"]["positions"] == "" and int(rows["net.pool"]["positions_any"]) == about["MaskedVoxels"]
    whole = json.loads((out / "masks.json").read_text())
    assert set(whole["Layers"]) == {"net.conv", "net.pool", "head"} and whole["Criterion"] == about["Criterion"]


def test_windows_of_poolings_are_marked_by_their_change_rate(capsys, made, tmp_path):
    code, output, _ = call(capsys, made, "--index-change-rate", ".3", "--out", tmp_path / "m")
    assert code == 0 and "from 2 changed samples of 5 on" in output and "without bits" not in output
    mask = mcaprobe.load_masks(tmp_path / "m")["net.pool.indices"]
    assert mask.values.reshape(-1).tolist() == [i % 6 >= 2 for i in range(24)]
    assert not mask.undefined.any() and mask.about["Tensor"] == "indices of net.pool"
    assert mask.about["ElementsOfClass"] is None and mask.about["SamplingCeiling"]["LargestShareNeverSeen"] > 0
    assert f"{START}netpoolindices_desc-unstable_mask.nii.gz" in names_in(tmp_path / "m")


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("grid", [FINE, POOLED], ids=["fine", "pooled"])
def test_a_marked_element_lies_in_the_scanner_where_the_layer_saw_the_head(capsys, tmp_path, axis, grid):
    shape = (8, 6) if grid == FINE else (4, 3)
    reference = torch.ones(1, 2, *shape)
    samples = reference + 2.0**-20 * torch.randn(5, 1, 2, *shape, generator=torch.Generator().manual_seed(1))
    samples[:, 0, 1, 1, 2] = torch.tensor([-1.0, 2.0, -3.0, 1.0, 0.5])  # the one element without a digit
    affine = oblique_affine((-1, 1, -1), (1, 2, 0), (0.7, 1.0, 2.4))
    run = make_run(tmp_path / "r", {"x": (reference, samples)}, grids={"x": grid},
                   place=place_of(torch.from_numpy(affine), axis, (8, 6)))  # fmt: skip
    assert call(capsys, run, "--reduce", "any", "none", "--quiet")[0] == 0
    fine = [grid[0][1] + grid[0][0] * 1, grid[1][1] + grid[1][0] * 2]
    fine.insert(axis, 0.0)
    for end in ("unstable", "unstableChannels"):
        image = nib.load(run / "masks" / f"{START}x_desc-{end}_mask.nii.gz")
        expected = [*shape]
        expected.insert(axis, 1)
        assert list(image.shape[:3]) == expected
        [place] = np.argwhere(np.asarray(image.dataobj))
        assert np.allclose(image.affine @ [*place[:3], 1], affine @ [*fine, 1], atol=1e-4)
        assert list(place[3:]) == ([] if end == "unstable" else [1])
        assert image.header["sform_code"] == 2 and image.header.get_xyzt_units()[0] == "mm"


def test_a_layer_of_unknown_place_keeps_the_field_of_view_and_says_so(capsys, tmp_path):
    run = make_run(tmp_path / "r", {"x": layer((1, 2, 4, 3), 4)}, grids={"x": None})
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["layers"]["x"]["grid_assumed"] = True
    change_manifest(run, layers=manifest["layers"])
    assert call(capsys, run, "--quiet")[0] == 0
    image = nib.load(run / "masks" / f"{START}x_desc-unstable_mask.nii.gz")
    assert np.allclose(image.affine, [[2, 0, 0, 0.5], [0, 2, 0, 0.5], [0, 0, 1, 0], [0, 0, 0, 1]])
    assert json.loads((run / "masks" / f"{START}x_desc-unstable_mask.json").read_text())["FieldOfViewAssumed"] is True


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("data/sub-01_ses-2_T1w.nii.gz", "sub-01_ses-2"),
        ("sub-01_task-rest_run-1_desc-preproc_bold.nii.gz", "sub-01_task-rest_run-1"),
        ("sub-a.nii", "sub-a"),
        ("tpl-MNI152NLin2009cAsym_res-01_T1w.nii.gz", "tpl-MNI152NLin2009cAsym_res-01"),
        ("sub-01 copy.nii", "sub-sub01copy"),
        ("my head (2).mgz", "sub-myhead2"),
        ("mni152", "sub-mni152"),
        ("...", "sub-input"),
    ],
)
def test_a_name_begins_with_the_entities_of_the_input(source, expected):
    assert bids.prefix(source) == expected


def test_layers_that_letters_and_digits_do_not_tell_apart_get_other_labels():
    labels = bids.labels(["a.1.12", "a.11.2", "b:cat", "B.cat", ":", "c.1"])
    assert len({label.lower() for label in labels.values()}) == 6
    assert all(label.isalnum() for label in labels.values()) and labels["c.1"] == "c1"
    assert labels["a.1.12"].startswith("a112") and len(labels["a.1.12"]) == 12


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--below", "x"], "Argument --below: invalid float value: 'x'"),
        (["--below", "-1"], "Expected a threshold of at least 0 bits, got -1.0"),
        (["--below", "1", "--class", "noise"], "Argument --class: not allowed with argument --below"),
        (["--class", "noisy"], "Argument --class: invalid choice: 'noisy'"),
        (["--snr-below", "0"], "Expected a signal-to-noise ratio above 0, got 0.0"),
        (["--index-change-rate", "2"], "Expected an index change rate above 0 and at most 1, got 2.0"),
        (["--reduce", "mean"], "Argument --reduce: invalid choice: 'mean'"),
        (["--layers", "net.cov"], "The layer glob net.cov matches none of the 5 layers: the nearest are net.conv"),
        (["--layers", "lost"], "run kept none of lost: run it with --keep-moments 'lost'"),
        (["--layers", "*.indices"], "net.pool.indices holds decisions: .*use --index-change-rate"),
        (["--layers", "net.conv", "--index-change-rate", ".1"], "net.conv holds no decisions"),
        (["--probability", "2"], "Expected probability strictly between 0 and 1"),
        (["--out", "{run}/manifest.json"], "manifest.json is a file, not a folder for the masks"),
        (["--out", "{run}"], "is no folder of masks and not empty .it has anatomy.safetensors.: choose another --out"),
    ],
    ids=lambda value: "_".join(value).replace("/", "_") if isinstance(value, list) else "",
)
def test_bad_input_is_one_sentence_and_exit_code_2(capsys, made, tmp_path, arguments, sentence):
    filled = [x.format(run=made) for x in arguments]
    elsewhere = [] if "--out" in arguments else ["--out", tmp_path / "m"]
    code, output, errors = call(capsys, made, *filled, *elsewhere)
    assert code == 2 and output == "" and re.search(sentence, errors), errors
    assert errors.startswith("mcaprobe: ") and errors.count("\n") == 1 and list(tmp_path.iterdir()) == []


def test_a_run_without_moments_or_without_indices_names_the_option(capsys, made, tmp_path):
    for unkept in ("a", "i.indices"):
        run = make_run(tmp_path / unkept, {"a": layer((1, 2, 4, 3), 5), "i.indices": indices(5)}, unkept=(unkept,))
        options = ["--index-change-rate", ".1"] if unkept == "i.indices" else []
        code, _, errors = call(capsys, run, *options)
        wanted = "--keep-moments '*.indices'" if options else "--keep-moments '*'"
        assert code == 2 and f"the run kept none of {unkept}: run it with {wanted}" in errors
        assert not (run / "masks").exists()
    run = make_run(tmp_path / "none", {"a": layer((1, 2, 4, 3), 5)})
    code, _, errors = call(capsys, run, "--index-change-rate", ".1")
    assert code == 2 and "recorded no decisions: a pooling puts out its indices with return_indices=True" in errors
    code, _, errors = call(capsys, tmp_path / "nowhere")
    assert code == 2 and "nowhere is no run directory" in errors
    (run / "layers" / "a.safetensors").write_bytes(b"short")
    code, _, errors = call(capsys, run)
    assert code == 2 and re.search("The run in .* is damaged: .*a.safetensors", errors) and not (run / "masks").exists()


def test_earlier_masks_are_replaced_as_a_whole_and_other_folders_are_left_alone(capsys, made, tmp_path):
    out = tmp_path / "m"
    assert call(capsys, made, "--out", out)[0] == 0
    (tmp_path / ".writing-1-m").mkdir()  # of a process that was killed
    assert call(capsys, made, "--class", "exact", "--layers", "head", "--out", out)[0] == 0
    assert names_in(out) == {"masks.safetensors", "undefined.safetensors", "masks.json", "masks.csv",
                             "dataset_description.json"}  # fmt: skip
    assert set(mcaprobe.load_masks(out)) == {"head"} and names_in(tmp_path) == {"m"}
    (out / "notes.txt").write_text("mine")
    code, _, errors = call(capsys, made, "--out", out)
    assert code == 2 and "not empty (it has notes.txt)" in errors and (out / "notes.txt").read_text() == "mine"
    (tmp_path / "empty").mkdir()
    assert call(capsys, made, "--out", tmp_path / "empty", "--quiet") == (0, f"{tmp_path / 'empty'}\n", "")


def test_what_fails_on_the_way_leaves_the_earlier_masks_and_nothing_else(capsys, made, tmp_path, monkeypatch):
    out = tmp_path / "m"
    assert call(capsys, made, "--layers", "net.conv", "--out", out)[0] == 0
    before = {path.name: path.read_bytes() for path in out.iterdir()}

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        code, output, errors = call(capsys, made, "--out", out)
    assert code == 3 and output == "" and "Cannot write the masks to" in errors and "No space left" in errors

    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(mask_files, "rows_of", interrupted)
        assert call(capsys, made, "--out", out)[0] == 130
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before and names_in(tmp_path) == {"m"}


def test_json_is_one_object_and_the_lists_of_the_command_are_those_of_the_code(capsys, made, tmp_path):
    code, output, errors = call(capsys, made, "--json", "--out", tmp_path / "m")
    found = json.loads(output)
    assert code == found["exit_code"] == 0 and errors == "" and found["without_moments"] == ["lost"]
    assert [row["layer"] for row in found["rows"]] == ["net.conv", "net.pool", "head"]
    assert tuple(kind.name.lower() for kind in Class) == CLASSES and tuple(KNOWN) == REDUCTIONS


@pytest.fixture(scope="module")
def real(tmp_path_factory) -> Path:
    """A run of a small network on a head, with kept activations."""
    folder = tmp_path_factory.mktemp("real")
    write_head(folder / "sub-7_T1w.nii.gz")
    mcaprobe.run(SMALL, folder / "sub-7_T1w.nii.gz", out=folder / "run", samples=4, block=2, threads=1,
                 keep_moments="*", keep_samples="*", metrics=[f"{HERE}:mean_of"],
                 input_options={"size": (24, 24)})  # fmt: skip
    return folder / "run"


def test_masks_of_a_real_run_are_those_of_its_activations(capsys, real, tmp_path):
    code, output, _ = call(capsys, real, "--index-change-rate", ".5", "--out", tmp_path / "i")
    assert code == 0 and "brain" in output and "background" in output
    result = mcaprobe.load(real)
    samples = [result.activation("pool.indices", k) for k in range(4)]
    changed = sum((s != result.activation("pool.indices", None)).int() for s in samples)
    mask = mcaprobe.load_masks(tmp_path / "i", result)["pool.indices"]
    assert torch.equal(mask.values, changed >= 2) and 0 < mask.masked < mask.values.numel()
    assert call(capsys, real, "--snr-below", "1", "--quiet") == (0, f"{real / 'masks'}\n", "")
    values = torch.stack([result.activation("unpool", k).double() for k in range(4)])
    std, mean = values.std(0, correction=0), values.mean(0).abs()
    slow = (std >= mean) & (values.amin(0) < values.amax(0))
    # A value that is there in 2 of 4 samples lies on the edge: the rounding of the definition decides.
    clear = (std - mean).abs() > 1e-6 * mean
    found = mcaprobe.load_masks(real / "masks")
    assert torch.equal(found["unpool"].values[clear], slow[clear]) and bool(slow[clear].any())
    assert "metric:mean_of" not in found
    with (real / "masks" / "masks.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["layer"] == "unpool"]
    assert [row["region"] for row in rows] == ["all", "brain", "background"]
    for column in ("elements", "masked", "undefined", "positions", "positions_any", "positions_all"):
        assert int(rows[0][column]) == int(rows[1][column]) + int(rows[2][column])
    table = {row.region: row.share_snr_below_1 for row in result["unpool"].rows}
    for row in rows:
        assert int(row["masked"]) / int(row["elements"]) == pytest.approx(table[row["region"]])


def test_a_run_that_starts_again_removes_the_masks_of_the_old_one(real, tmp_path):
    shutil.copytree(real, tmp_path / "r")
    (tmp_path / "r" / "masks").mkdir(exist_ok=True)
    options = {"out": tmp_path / "r", "samples": 4, "block": 2, "threads": 1, "overwrite": True}
    mcaprobe.run(SMALL, real.parent / "sub-7_T1w.nii.gz", input_options={"size": (24, 24)}, **options)
    assert not (tmp_path / "r" / "masks").exists()


def rewritten(folder: Path, file: str, change) -> None:
    """Write a file of masks again after change(tensors, header)."""
    tensors, header = storage.read_tensors(folder / file), storage.read_metadata(folder / file)
    change(tensors, header)
    storage.write_tensors(folder / file, tensors, header)


@pytest.mark.parametrize(
    ("file", "change", "sentence"),
    [
        ("masks", lambda t, h: t.pop("head"), "masks.safetensors has no layer head"),
        ("masks", lambda t, h: t.update(more=t["head"]), "holds layers of which its header says nothing"),
        ("masks", lambda t, h: t.update(head=t["head"].float()), "head in .* is not bool of shape .1, 10. but"),
        ("masks", lambda t, h: t.update(head=t["head"][:, 1:]), "not bool of shape .1, 10. but .* of shape .1, 9."),
        ("masks", lambda t, h: t.update(head=~t["head"]), "head in masks.safetensors has .* instead of"),
        ("undefined", lambda t, h: t["head"].fill_(True), "head in undefined.safetensors has 10 marked elements"),
        ("undefined", lambda t, h: h.update(layers="{}"), "undefined.safetensors belongs to other masks"),
        ("masks", lambda t, h: h.update(format="other"), "is not of the format 'mcaprobe masks 1' but 'other'"),
        ("masks", lambda t, h: h.update(common="no json"), "The masks in .* are damaged"),
    ],
)
def test_masks_that_are_not_as_they_were_written_are_refused(made, tmp_path, file, change, sentence):
    mask_files.write(mcaprobe.load(made), Unstable(), tmp_path / "m")
    rewritten(tmp_path / "m", f"{file}.safetensors", change)
    with pytest.raises(mcaprobe.InputError, match=sentence):
        mcaprobe.load_masks(tmp_path / "m")


def test_masks_of_nothing_short_or_of_another_run_are_refused(made, real, tmp_path):
    with pytest.raises(mcaprobe.InputError, match=r"is no folder of masks: it has no masks\.safetensors"):
        mcaprobe.load_masks(tmp_path)
    mask_files.write(mcaprobe.load(made), IndexChange(), tmp_path / "m")
    assert list(mcaprobe.load_masks(tmp_path / "m/masks.safetensors")) == ["net.pool.indices"]
    with pytest.raises(mcaprobe.InputError, match="are of another run: its samples is 5, here 4"):
        mcaprobe.load_masks(tmp_path / "m", mcaprobe.load(real))
    (tmp_path / "m/undefined.safetensors").write_bytes(b"short")
    with pytest.raises(mcaprobe.InputError, match=r"are damaged: .*undefined\.safetensors"):
        mcaprobe.load_masks(tmp_path / "m")


def test_the_commands_of_the_readme_parse():
    from mcaprobe.__main__ import parser

    text = (Path(__file__).resolve().parents[2] / "README.md").read_text()
    section = text[text.index("## Masks of what is unstable") : text.index("## Two runs side by side")]
    commands = re.findall(r"^mcaprobe (.*?)(?:  #.*)?$", section, re.M)
    assert [command.split()[0] for command in commands] == ["run", "mask", "mask"]
    run, *masks = [parser().parse_args(shlex.split(command)) for command in commands]
    assert all(mask.run == run.out for mask in masks)
