"""What does `mcaprobe compare` answer, with which exit code, and what does it leave?"""

import csv
import json
import os
import re
import shlex
import shutil
from pathlib import Path

import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

import mcaprobe
from mcaprobe import comparison_files, storage
from mcaprobe.agreement import Agreement
from mcaprobe.comparison import compare
from mcaprobe.comparison_figure import draw_comparison
from mcaprobe.comparison_words import sentences
from mcaprobe.digits import recompute
from mcaprobe.masks import Unstable
from mcaprobe.spread import std_ratio, varies
from tests.mcaprobe import command_line
from tests.mcaprobe import small_models as models
from tests.mcaprobe.small_head import write_head
from tests.mcaprobe.small_models import HERE

QUICK = {"samples": 4, "block": 2, "threads": 1}


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> dict[str, Path]:
    """Run directories by name: two seeds, fewer moments, fewer layers, another model, another input, and so on."""
    folder = tmp_path_factory.mktemp("runs")
    write_head(folder / "head.nii.gz")
    other = models.build_small()
    with torch.no_grad():
        other.conv1.bias.add_(1)
    small, size = f"{HERE}:build_small", {"input_options": {"size": (24, 24)}}
    keep = {"keep_moments": "*", **size}
    cases = {
        "a": (small, folder / "head.nii.gz", {**keep, "metrics": [f"{HERE}:mean_of"]}),
        "b": (models.build_small(), folder / "head.nii.gz", {**keep, "seed": 1, "samples": 6, "mode": "nearness"}),
        "binned": (small, folder / "head.nii.gz", {**size, "seed": 2}),
        "few": (small, folder / "head.nii.gz", {**keep, "layers": ["conv*", "norm"], "seed": 1}),
        "conv2": (small, folder / "head.nii.gz", {**keep, "layers": "conv2", "seed": 1}),
        "norm": (small, folder / "head.nii.gz", {**keep, "layers": "norm", "seed": 1}),
        "other_model": (other, folder / "head.nii.gz", keep),
        "other_input": (small, models.image(), {}),
    }
    for name, (model, x, options) in cases.items():
        mcaprobe.run(model, x, out=folder / name, **{**QUICK, **options})
    return {name: folder / name for name in cases}


def call(capsys, *arguments: object) -> tuple[int, str, str]:
    return command_line.call(capsys, "compare", *arguments)


def test_a_run_equals_itself(runs):
    found = compare(runs["a"], runs["a"])
    assert len(found.rows) > 6 and found.missing == []
    for row in found.rows:
        assert (row.bits_mean_a, row.share_noise_a) == (row.bits_mean_b, row.share_noise_b)
        assert row.index_change_rate_a == row.index_change_rate_b
        assert row.std_ratio == (1.0 if row.vary_both else None)
        if row.unstable_a:
            assert (row.dice, row.precision, row.recall) == (1.0, 1.0, 1.0)
        else:
            assert (row.dice, row.precision, row.recall) == (None, None, None)
        assert row.ieee_differs == (None if row.is_index else 0.0)
    assert any(row.unstable_a for row in found.rows) and any(row.is_index for row in found.rows)


def test_bits_noise_and_index_rates_are_those_of_digits(runs):
    estimator = mcaprobe.Estimator("general", confidence=0.9)
    found = compare(runs["a"], runs["b"], estimator=estimator)
    for letter, name in (("a", "a"), ("b", "b")):
        rows = {(r.layer, r.region): r for r in recompute(mcaprobe.load(runs[name]), estimator).rows}
        for row in found.rows:
            known = rows[row.layer, row.region]
            for column in ("bits_mean", "share_noise", "index_change_rate", "samples"):
                assert getattr(row, f"{column}_{letter}") == getattr(known, column)
            assert row.elements == known.elements


def test_regions_are_cut_from_the_whole_layer(runs):
    found = compare(runs["a"], runs["b"])
    a, b = (mcaprobe.load(runs[name])["conv2"] for name in "ab")
    rows = {row.region: row for row in found.rows if row.layer == "conv2"}
    masks = [Unstable(1).mask(layer.moments, found.estimator) for layer in (a, b)]
    brain = a.masks["brain"].expand(a.shape)
    where = varies(a.moments) & varies(b.moments) & brain
    assert set(rows) == {"all", "brain", "background"}
    assert rows["brain"].std_ratio == std_ratio(a.moments.m2[where], 4, b.moments.m2[where], 6)
    inside = Agreement.of(*(mask[brain] for mask in masks))
    assert (rows["brain"].unstable_a, rows["brain"].unstable_b) == (inside.a, inside.b)
    for column in ("elements", "vary_a", "vary_both", "unstable_a", "unstable_both"):
        parts = [getattr(rows[region], column) for region in ("all", "brain", "background")]
        assert parts[0] == parts[1] + parts[2]


def test_swapped_runs_invert_the_ratio_and_swap_precision_and_recall(runs):
    forth = compare(runs["a"], runs["b"], below=12)
    back = compare(runs["b"], runs["a"], below=12)
    assert any(row.dice for row in forth.rows)
    for row, other in zip((r for r in forth.rows if not r.layer.startswith("metric:")), back.rows, strict=True):
        assert (row.precision, row.recall, row.dice) == (other.recall, other.precision, other.dice)
        if row.std_ratio is not None:
            assert row.std_ratio * other.std_ratio == pytest.approx(1)


def test_one_layer_of_each_run_is_read_at_a_time(runs, monkeypatch):
    from mcaprobe.layer_result import LayerResult

    alive, most = set(), []

    def watched(self, *rest):
        alive.add(id(self))
        most.append(len(alive))
        original(self, *rest)

    original = LayerResult.__init__
    monkeypatch.setattr(LayerResult, "__init__", watched)
    monkeypatch.setattr(LayerResult, "__del__", lambda self: alive.discard(id(self)), raising=False)
    compare(runs["a"], runs["b"])
    assert 2 <= max(most) <= 4  # the next two are opened before the last two are dropped


def test_without_moments_bits_are_compared_and_the_rest_is_empty_and_said(capsys, runs):
    code, output, _ = call(capsys, runs["a"], runs["binned"], "--all-layers")
    assert code == 0 and "5 of 5 layers of B kept no moments" in output and "--keep-moments '*'" in output
    for row in compare(runs["a"], runs["binned"]).rows:
        assert row.source_a == "moments" and (row.source_b == "histogram") != row.layer.startswith("metric:")
        assert row.std_ratio is None and row.dice is None and row.unstable_a is None and row.ieee_differs is None
        assert row.is_index or row.bits_mean_b is None or row.bits_mean_b > 0


def test_the_table_says_what_it_means_and_what_n_supports(capsys, runs):
    code, output, errors = call(capsys, runs["a"], runs["b"])
    assert code == 0 and errors == ""
    table = output[: output.index(f"A is {runs['a']}")]
    assert max(map(len, table.splitlines())) <= 120
    assert all(word in table for word in ("brain", "background", "conv2", "pool.indices", "Dice", "recall"))
    for words in (
        "A is .*: n = 4, mode random, emulator, route .*, seed 0", "B is .*: n = 6, mode nearness, emulator",
        "n = 4 samples .A. support p = 0.47 and n = 6 samples .B. support p = 0.61 at 95% confidence",
        "p = 0.95 needs 59", "scatters by 41% in A and 32% in B",
        "Unstable: class noise, or fewer than 1 significant bit\\.",
        "root mean square of the standard deviations .n - 1. of A over that of B",
        "of equal noise B has 0.60 bits more", "One model under two names: tests.mcaprobe.small_models:build_small",
        "metric:mean_of is only in A; in B",
    ):  # fmt: skip
        assert re.search(words, output), words


def test_the_statements_name_the_threshold_and_the_estimator_that_were_asked_for(capsys, runs):
    code, output, _ = call(capsys, runs["a"], runs["b"], "--below", "0", "--method", "general", "--layers", "conv*")
    assert code == 0 and "Unstable: class noise. Dice" in output and "general relative to ieee" in output
    assert "The table of A itself was made by another estimator (cnh" in output and "unpool" not in output
    assert "of equal noise" not in output  # General pays nothing


def test_files_are_a_tidy_table_a_picture_and_a_manifest(capsys, runs, tmp_path):
    out = tmp_path / "new" / "folder"
    code, output, _ = call(capsys, runs["a"], runs["b"], "--out", out)
    assert code == 0 and f"The comparison is {out} (compare.csv, compare.png, compare.json)" in output
    assert sorted(p.name for p in out.iterdir()) == ["compare.csv", "compare.json", "compare.png"]
    with (out / "compare.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    found = compare(runs["a"], runs["b"])
    assert len(lines) == len(found.rows) and list(lines[0]) == list(comparison_files.COLUMNS)
    for line, row in zip(lines, found.rows, strict=True):
        assert (line["mode_a"], line["mode_b"], line["backend_a"], line["seed_b"]) == (
            "random", "nearness", "emulator", "1")  # fmt: skip
        for name in ("bits_mean_a", "std_ratio", "dice", "recall", "unstable_b", "vary_both"):
            value = getattr(row, name)
            assert line[name] == ("" if value is None else str(value))
    about = json.loads((out / "compare.json").read_text())
    assert about["sentences"] == sentences(found) and about["unstable"]["below"] == 1
    manifest = json.loads((runs["b"] / "manifest.json").read_text())
    assert all(about["runs"]["B"][key] == manifest[key] for key in ("commit", "machine", "versions"))
    assert about["runs"]["B"]["seconds"] == manifest["times"]["seconds"]
    before = (out / "compare.png").read_bytes()
    assert call(capsys, runs["a"], runs["b"], "--out", out)[0] == 0  # the same bytes again
    assert (out / "compare.png").read_bytes() == before


def test_quiet_prints_only_the_folder_and_nothing_is_written_without_one(capsys, runs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert call(capsys, runs["a"], runs["b"], "--out", "c", "--quiet") == (0, "c\n", "")
    shutil.rmtree("c")
    assert call(capsys, runs["a"], runs["b"])[0] == 0 and list(tmp_path.iterdir()) == []


def test_json_is_one_object_with_every_row(capsys, runs):
    code, output, errors = call(capsys, runs["a"], runs["few"], "--json")
    found = json.loads(output)
    assert code == found["exit_code"] == 0 and errors == "" and found["files"] == []
    assert [row["layer"] for row in found["rows"]] == [row.layer for row in compare(runs["a"], runs["few"]).rows]
    assert found["runs"]["B"]["samples"] == 4 and {m["layer"] for m in found["missing"]} >= {"pool", "unpool"}


def test_layers_of_one_run_only_are_listed_with_the_nearest_names(capsys, runs):
    code, output, _ = call(capsys, runs["few"], runs["a"])
    assert code == 0 and re.search(r"unpool is only in B; in A the nearest are norm\.", output)
    assert {row.layer for row in compare(runs["few"], runs["a"]).rows} == {"conv1", "norm", "conv2"}
    assert compare(runs["few"], runs["a"], layers="conv*").missing == []


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ["a", "other_model"],
            r"on one input, got two models: .*build_small \(parameters [0-9a-f]{8}\) in A",
        ),
        (["a", "other_input"], r"one model on one input, got two inputs: .*head.nii.gz \(1x1x24x24, .* and tensor \("),
        (["conv2", "norm"], r"The runs have no layer in common: conv2 is in A, in B there are norm\."),
        (["a", "few", "--layers", "unpool"], "Of what both runs have, the layer glob unpool matches none of the 3"),
        (["a", "nowhere"], "nowhere is no run directory"),
        (["a", "b", "--below", "-1"], "Expected a threshold of at least 0 bits, got -1.0"),
        (["a", "b", "--below", "x"], "Argument --below: invalid float value: 'x'"),
        (["a", "b", "--probability", "2"], "Expected probability strictly between 0 and 1"),
        (["a", "binned", "--convention", "published"], "published convention needs per-element moments"),
        (["a", "b", "--quiet"], "Expected --out with --quiet"),
        (["a", "b", "--out", "{a}/table.csv"], "table.csv is a file, not a folder"),
        (["a"], "The following arguments are required: RUN_B"),
    ],
    ids=lambda value: "_".join(value).replace("/", "_") if isinstance(value, list) else "",
)
def test_bad_input_is_one_sentence_and_exit_code_2(capsys, runs, arguments, sentence):
    filled = [runs["a"].parent / x if i < 2 and x[0] != "-" else x.format(**runs) for i, x in enumerate(arguments)]
    code, output, errors = call(capsys, *filled)
    assert code == 2 and output == ""
    assert re.search(sentence, errors), errors
    assert errors.startswith("mcaprobe: ") and errors.count("\n") == 1


def changed(runs, tmp_path, **layer) -> Path:
    """A copy of run a whose manifest says something else of conv1."""
    folder = tmp_path / "changed"
    shutil.copytree(runs["a"], folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["layers"]["conv1"] |= layer
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        ({"shape": [1, 4, 24, 25]}, r"got conv1 with shape \[1, 4, 24, 24\] in A and \[1, 4, 24, 25\] in B"),
        ({"dtype": "float64"}, "got conv1 with dtype float32 in A and float64 in B"),
    ],
    ids=["shape", "dtype"],
)
def test_layers_of_another_shape_or_type_are_refused_by_name(capsys, runs, tmp_path, layer, words):
    code, _, errors = call(capsys, runs["a"], changed(runs, tmp_path, **layer))
    assert code == 2 and re.search(words, errors)


def test_another_brain_mask_is_refused(capsys, runs, tmp_path):
    folder = tmp_path / "masked"
    shutil.copytree(runs["a"], folder)
    path = folder / "layers" / "conv1.safetensors"
    tensors, about = storage.read_tensors(path), storage.read_metadata(path)
    tensors["mask.brain"] = torch.ones_like(tensors["mask.brain"])
    storage.write_tensors(path, tensors, about)
    code, _, errors = call(capsys, runs["a"], folder)
    assert code == 2 and "Expected two runs with one brain mask, got conv1 with elements in all 2304, brain" in errors


def test_a_damaged_or_unfinished_run_is_one_sentence(capsys, runs, tmp_path):
    shutil.copytree(runs["b"], tmp_path / "r")
    (tmp_path / "r/layers/conv2.safetensors").write_bytes(b"short")
    code, _, errors = call(capsys, runs["a"], tmp_path / "r", "--out", tmp_path / "out")
    assert code == 2 and re.search("The run B in .* is damaged: .*conv2.safetensors is damaged", errors)
    assert not (tmp_path / "out").exists()
    manifest = json.loads((tmp_path / "r/manifest.json").read_text())
    (tmp_path / "r/manifest.json").write_text(json.dumps(manifest | {"status": "running"}))
    code, _, errors = call(capsys, runs["a"], tmp_path / "r")
    assert code == 2 and "is not complete (running)" in errors


def test_a_folder_that_cannot_be_written_is_exit_code_3_and_leaves_nothing(capsys, runs, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    code, output, errors = call(capsys, runs["a"], runs["b"], "--out", tmp_path)
    assert code == 3 and output == "" and "Cannot write the comparison to" in errors and "No space left" in errors
    assert list(tmp_path.iterdir()) == []


def test_another_backend_is_named_everywhere(runs, tmp_path):
    folder = tmp_path / "verrou"
    shutil.copytree(runs["b"], folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest |= {"route": "verrou"}
    manifest["machine"]["torch_cpu_capability"] = "AVX7"
    manifest["times"] |= {"seconds": 30.0, "jobs": 2}
    manifest["verrou"] = {"threads": {"reference": 1, "0": 1}}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    found = compare(runs["a"], folder)
    said = " ".join(sentences(found))
    assert "n = 6, mode nearness, verrou, seed 1" in said and "in B." in said and "AVX7" in said
    assert {line["backend_b"] for line in comparison_files.records(found)} == {"verrou"}
    seconds = json.loads((runs["a"] / "manifest.json").read_text())["times"]["seconds"]
    assert re.search(rf"Wall clock: {seconds:.1f} s .threads: [0-9]+, .+, cores: [0-9]+. for A, 30.0 s .jobs: 2, "
                     rf"threads: 1, .+, cores: [0-9]+. for B; A/B = {seconds / 30:.3g}[.]", said)  # fmt: skip
    assert any("nearness, verrou, n = 6" in text.get_text() for text in texts(comparison_files.picture(found)))


def texts(figure) -> list[Text]:
    return [text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip()]


def test_all_text_of_the_picture_is_within_the_page_and_apart(runs):
    figure = comparison_files.picture(compare(runs["a"], runs["b"]))
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    page = figure.bbox
    boxes = [(text.get_text(), text.get_window_extent(canvas.get_renderer())) for text in texts(figure)]
    for name, box in boxes:
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= page.x1 and box.y1 <= page.y1, name
    flat = [(name, box) for name, box in boxes if name not in ("conv1", "norm", "pool", "unpool", "conv2")]
    for i, (name, box) in enumerate(flat):
        for other, there in flat[:i]:
            assert not box.overlaps(there), (name, other)


def test_a_picture_of_nothing_is_refused():
    with pytest.raises(ValueError, match="one layer or more to draw, got none"):
        draw_comparison([], ("a", "b"), "title", "footer")


def test_the_commands_of_the_readme_parse():
    from mcaprobe.__main__ import parser

    text = (Path(__file__).resolve().parents[2] / "README.md").read_text()
    section = text[text.index("## Two runs side by side") : text.index("## One file to pass on")]
    commands = re.findall(r"^mcaprobe (.*?)(?:  #.*)?$", section, re.M)
    assert [command.split()[0] for command in commands] == ["run", "run", "compare"]
    parsed = [parser().parse_args(shlex.split(command)) for command in commands]
    assert [str(parsed[2].run_a), str(parsed[2].run_b)] == [str(run.out) for run in parsed[:2]]
    assert all(run.keep_moments == ["*"] for run in parsed[:2])
