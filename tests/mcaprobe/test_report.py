"""What does the one file of `mcaprobe report` hold, what does it never do, and what is refused?"""

import base64
import csv
import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import mcaprobe
from mcaprobe.commands.reporting import main_rows
from mcaprobe.html_report import page as pages
from mcaprobe.html_report.overlays import COLOURS
from mcaprobe.mask_facts import sampling_ceiling
from mcaprobe.masks import Unstable
from mcaprobe.palette import BITS, colour_image
from mcaprobe.selection import select_layers
from tests.mcaprobe import command_line
from tests.mcaprobe.made_runs import change_manifest
from tests.mcaprobe.report_pages import Page, decoded, moved, write_nan_map
from tests.mcaprobe.small_models import HERE
from tests.reference.vision import VISIONS, difference


def call(capsys, *arguments: object) -> tuple[int, str, str]:
    return command_line.call(capsys, "report", *arguments)


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_every_row_of_every_table_is_in_the_page_with_all_its_digits(for_report, whole_report):
    data = Page.read(whole_report).data
    assert [run["folder"] for run in data["runs"]] == [run.name for run in for_report["runs"]]
    for run, shown in zip(for_report["runs"], data["runs"], strict=True):
        lines = read(run / "table.csv")
        assert len(lines) == len(shown["rows"]) > 10
        for line, row in zip(lines, shown["rows"], strict=True):
            for column, value in zip(data["columns"], row, strict=True):
                text = line[column]
                number = isinstance(value, float)
                assert float(text) == value if number else (text or None) == (None if value is None else str(value))


def test_the_page_asks_for_nothing(whole_report):
    page = Page.read(whole_report)
    for tag, attributes in page.tags:
        assert tag not in ("link", "iframe", "object", "embed", "base", "form", "audio", "video", "source"), tag
        for name in ("src", "srcset", "href", "xlink:href", "action", "data", "poster", "background", "style"):
            target = attributes.get(name, "#")
            doi = tag == "a" and target.startswith("https://doi.org/10.")
            assert target.startswith(("#", "data:image/png;base64,")) or doi, (tag, name, target)
        assert not any(name.startswith("on") for name in attributes), attributes
    style, script = ("".join(page.raw[f"{kind}:"]) for kind in ("style", "script"))
    assert not re.search(r"url\(|@import|http", style)
    assert not re.search(r"http|fetch\(|XMLHttp|import\(|WebSocket|sendBeacon|innerHTML|eval\(", script)
    (policy,) = (a["content"] for tag, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; img-src data:; ")
    for text in (style, script):
        assert f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" in policy
    assert "unsafe" not in policy


def test_what_was_run_is_said_with_what_the_samples_can_claim(for_report, whole_report):
    text, manifest = Page.read(whole_report).text, mcaprobe.load(for_report["runs"][0]).manifest
    for words in (f"{HERE}:build_small", "head.nii.gz", "axial", "slice 7, z = 14 mm", "slice 11, z = 22 mm",
                  "emulated (route ", "mode random", "n = 4", "cnh relative to ieee, p = 0.95, confidence = 0.95",
                  manifest["machine"]["processor"], f"torch {torch.__version__}", "Seed 0", "Threads 1",
                  manifest["commit"] or "", manifest["times"]["started"]):  # fmt: skip
        assert words in text, words
    claim = sampling_ceiling(Unstable(), mcaprobe.Estimator(), 4)["Statement"]
    assert f"What 4 samples can and cannot claim {claim}" in text
    assert text.count(claim) == 3  # the summary, the masks, the methods


def test_a_run_under_verrou_is_said_to_be_one(for_report, tmp_path):
    run = shutil.copytree(for_report["runs"][0], tmp_path / "run")
    change_manifest(run, route="verrou", verrou={"version": "2.7.0", "threads": {"0": 1}})
    mcaprobe.report(run, tmp_path / "r.html")
    text = Page.read(tmp_path / "r.html").text
    assert "under Verrou (2.7.0)" in text and "emulated" not in text and "Févotte & Lathuilière, 2016" in text


def test_the_methods_cite_what_the_mode_and_the_estimator_come_from(for_report, whole_report):
    text = Page.read(whole_report).text
    for author in ("Parker, D. S. (1997)", "Févotte, F., & Lathuilière, B. (2016)", "Sohier, D.", "significantdigits"):
        assert author in text
    assert "Croci" not in text and "class noise, or fewer than 20 significant bits" in text
    assert "NaN maps were made by another program, which describes them so: NaN of a pooling, made for a test." in text


def test_names_are_text_wherever_they_come_from(tmp_path):
    evil = "<script>alert(1)<"
    model = nn.Sequential()
    model.add_module(evil, nn.Conv2d(1, 2, 3, padding=1))
    model.add_module('"onload="x&amp;', nn.ReLU())
    image = tmp_path / "<img src=x onerror=alert(1)>.npy"
    np.save(image, np.random.default_rng(0).normal(size=(1, 1, 8, 8)).astype(np.float32))
    mcaprobe.run(model, image, out=tmp_path / "run<b>", samples=3, threads=1, block=3)
    rows = tmp_path / "rows<i>.csv"
    rows.write_text('<u>,b\n"</script><script>alert(2)</script>",1\n')
    mcaprobe.report(tmp_path / "run<b>", tmp_path / "r.html", rows=[rows])
    page = Page.read(tmp_path / "r.html")
    assert [tag for tag, _ in page.tags if tag in ("script", "b", "i", "u")] == ["script", "script"]
    assert not [a for _, a in page.tags if any(name.startswith("on") for name in a)]
    for name in (image.name, "run<b>", "rows<i>.csv", "<u>", "</script><script>alert(2)</script>"):
        assert name in page.text, name
    assert evil in [layer["name"] for layer in page.data["groups"][0]["layers"]]
    assert evil.encode() not in b"".join(re.findall(rb'<script type="application/json".*?</script>', _bytes(tmp_path)))


def _bytes(folder: Path) -> bytes:
    return (folder / "r.html").read_bytes()


def test_the_same_input_gives_the_same_bytes_in_any_process(for_report, whole_report, tmp_path):
    options = [part for key in ("masks", "nan", "rows") for path in for_report[key] for part in (f"--{key}", str(path))]
    for seed in ("1", "2"):
        command = [sys.executable, "-m", "mcaprobe", "report", *map(str, for_report["runs"]), *options]
        environment = os.environ | {"PYTHONHASHSEED": seed}
        subprocess.run([*command, "--out", str(tmp_path / f"{seed}.html"), "--quiet"], check=True, env=environment)
        assert (tmp_path / f"{seed}.html").read_bytes() == whole_report.read_bytes()


def test_a_map_has_the_colours_of_the_palette_and_points_as_the_picture_does(for_report, whole_report):
    data = Page.read(whole_report).data
    palette = np.array([[int(c[i : i + 2], 16) for i in (1, 3, 5)] for c in data["palette"]])
    layer = next(layer for layer in data["groups"][0]["layers"] if layer["name"] == "unpool")
    for run, frame in zip(for_report["runs"], layer["frames"], strict=True):
        found = mcaprobe.load(run)["unpool"]
        wanted = np.rot90(colour_image(found.bits, found.majority, 24)) * 255
        drawn = palette[decoded(layer["cuts"][frame]["map"])]
        assert drawn.shape == wanted.shape and len(np.unique(drawn.reshape(-1, 3), axis=0)) > 5
        steps = np.abs(np.diff(BITS(np.linspace(0, 1, 248))[:, :3], axis=0)).max() * 255
        assert np.abs(drawn - wanted).max() <= steps + 1
        classes = np.rot90(found.majority.numpy()) != 0
        assert np.abs(drawn - wanted)[classes].max() <= 0.5


def test_the_main_rows_are_those_that_the_terminal_lists(for_report, whole_report):
    for run, shown in zip(for_report["runs"], Page.read(whole_report).data["runs"], strict=True):
        assert set(shown["main"]) == {row.layer for row in main_rows(mcaprobe.load(run).rows)} >= {"pool.indices"}


def test_overlays_lie_on_the_layers_of_their_own_slices(for_report, whole_report):
    group = Page.read(whole_report).data["groups"][0]
    assert [(o["kind"], o["name"]) for o in group["overlays"]] == [
        ("unstable", "class noise, or fewer than 20 significant bits"), ("nan", "NaN, from nan")]  # fmt: skip
    unstable, nan = (o["key"] for o in group["overlays"])
    for layer in group["layers"]:
        keys = [set(layer["cuts"][frame]) for frame in layer["frames"]]
        over = {"map", unstable, nan} if layer["name"] == "unpool" else {"map", unstable}
        assert keys == [over, over, {"map"}], layer["name"]
    layer = next(layer for layer in group["layers"] if layer["name"] == "pool")
    for run, mask, frame in zip(for_report["runs"], for_report["masks"], layer["frames"], strict=False):
        shares = mcaprobe.load_masks(mask, mcaprobe.load(run))["pool"].reduced("share").numpy()
        shown = decoded(layer["cuts"][frame][unstable])
        assert np.array_equal(shown, np.rot90(np.ceil(shares * 255 - 1e-6))) and 0 < (shown > 0).mean() < 1


def test_the_agreement_is_counted_by_position_where_both_maps_are_there(for_report, whole_report):
    text = Page.read(whole_report).text
    for run, mask in zip(for_report["runs"], for_report["masks"], strict=False):
        result = mcaprobe.load(run)
        marked = mcaprobe.load_masks(mask, result)["unpool"].values[0].any(0).numpy()
        lost = moved(marked)
        both, only_nan, only_unstable = (int(x.sum()) for x in (marked & lost, lost & ~marked, marked & ~lost))
        dice, precision, recall = 2 * both / (lost.sum() + marked.sum()), both / lost.sum(), both / marked.sum()
        assert min(both, only_nan, only_unstable) > 0 and only_nan != only_unstable
        line = f"576 {both} {only_nan} {only_unstable} {dice:.3f} {precision:.3f} {recall:.3f}"
        assert line in text, line


@pytest.mark.parametrize("vision", VISIONS)
def test_agreement_is_told_apart_with_any_colour_vision_and_from_grey(vision: str) -> None:
    colours = [tuple(int(c[i : i + 2], 16) / 255 for i in (1, 3, 5)) for c in COLOURS.values()]
    greys = [(k / 10,) * 3 for k in range(11)]
    for i, a in enumerate(colours):
        assert min(difference(a, grey, vision) for grey in greys) > 16
        assert all(difference(a, b, vision) > 30 for b in colours[:i])


def test_layers_beyond_the_budget_are_left_out_in_the_order_of_the_picture_and_named(for_report, tmp_path):
    full = mcaprobe.report(for_report["runs"][0], tmp_path / "full.html")
    names = [layer["name"] for layer in Page.read(tmp_path / "full.html").data["groups"][0]["layers"]]
    bare = len(Page.read(tmp_path / "full.html").data["groups"][0]["layers"])
    assert (full.drawn, full.left_out) == (bare, ()) and full.size == (tmp_path / "full.html").stat().st_size
    limit = (full.size - 2000) / 1e6
    part = mcaprobe.report(for_report["runs"][0], tmp_path / "part.html", max_megabytes=limit)
    page = Page.read(tmp_path / "part.html")
    shown = [layer["name"] for layer in page.data["groups"][0]["layers"]]
    assert part.size <= limit * 1e6 and 0 < len(shown) < len(names) and part.drawn == len(shown)
    assert [*shown, *part.left_out] == names  # few layers: the picture shows all of them, in order
    assert page.text.count(", ".join(part.left_out)) == 2  # beside the maps and among the warnings
    with pytest.raises(mcaprobe.InputError, match=r"without any map takes 0\.\d\d megabytes, more than the 0.01"):
        mcaprobe.report(for_report["runs"][0], tmp_path / "none.html", max_megabytes=0.01)
    assert not (tmp_path / "none.html").exists()


def test_the_layers_of_the_picture_come_first_where_there_are_many() -> None:
    from mcaprobe.html_report.maps import LayerMaps, within

    names = [f"block{b}.conv{k}" for b in range(6) for k in range(6)]
    layers = [LayerMaps(name, "", (0, 0, 100, 100), [{"map": "A" * 1000}], [0]) for name in names]
    first = {layer.name for layer in select_layers(layers)}
    assert len(first) < len(layers)
    room = sum(layer.size for layer in layers if layer.name in first)
    kept = within([layers], room)
    assert {layer.name for layer in kept.layers[0]} == first
    assert kept.left_out == [[name for name in names if name not in first]]
    assert [layer.name for layer in kept.layers[0]] == [name for name in names if name in first]


def test_runs_of_another_model_stand_beside_the_others(for_report, tmp_path):
    mcaprobe.run(f"{HERE}:build_line", torch.ones(1, 1, 30), out=tmp_path / "line", samples=3, threads=1, block=3)
    mcaprobe.report([*for_report["runs"], tmp_path / "line"], tmp_path / "r.html")
    data = Page.read(tmp_path / "r.html").data
    assert [len({run["group"] for run in data["runs"] if run["group"] == g}) for g in (0, 1)] == [1, 1]
    assert [len(group["frames"]) for group in data["groups"]] == [3, 1]
    assert data["groups"][1]["sides"] is None and data["groups"][1]["anatomy"] == [None]


def test_warnings_of_the_manifest_are_told(for_report, tmp_path):
    run = shutil.copytree(for_report["runs"][0], tmp_path / "run")
    change_manifest(run, notes=["A chunk was slow."], failures=["Sample 3 was lost."], model_note="Only heads.",
                    commit="abc+changes", operators={"erf": "unmodelled", "add": "exact"})  # fmt: skip
    mcaprobe.report(run, tmp_path / "r.html")
    text = Page.read(tmp_path / "r.html").text
    for words in ("Errors: 1", "Sample 3 was lost.", "Warnings: 3", "A chunk was slow.", "too optimistic: erf.",
                  "Only heads.", "changes that were not committed", "1 error and 3 warnings"):  # fmt: skip
        assert words in text, words


@pytest.mark.parametrize("metric", [True, False])
def test_a_run_without_maps_has_a_report(tmp_path, metric):
    metrics = [f"{HERE}:mean_of"] if metric else []
    model, x = nn.Sequential(nn.Linear(4, 3)), torch.ones(1, 4)
    mcaprobe.run(model, x, out=tmp_path / "run", samples=3, threads=1, block=3, metrics=metrics)
    mcaprobe.report(tmp_path / "run", tmp_path / "r.html")
    page = Page.read(tmp_path / "r.html")
    assert "No layer of these runs has a map" in page.text
    (run,) = page.data["runs"]
    assert any(row[0] == "metric:mean_of" for row in run["rows"]) == ("metric:mean_of" in run["main"]) == metric


def test_an_earlier_report_is_replaced_and_nothing_else(capsys, for_report, tmp_path):
    run, out = for_report["runs"][0], tmp_path / "r.html"
    assert call(capsys, run, "--out", out)[0] == 0
    before = out.read_bytes()
    code, output, errors = call(capsys, run, "--out", out)
    assert (code, errors) == (0, "") and f"The report is {out} (0." in output and "maps of 5 layers" in output
    assert out.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["r.html"]
    foreign = tmp_path / "index.html"
    foreign.write_text("<!doctype html><title>mine</title>")
    code, _, errors = call(capsys, run, "--out", foreign)
    assert code == 2 and "is no report of mcaprobe" in errors and "mine" in foreign.read_text()


def test_json_and_quiet_say_where_it_is(capsys, for_report, tmp_path):
    out = tmp_path / "r.html"
    assert call(capsys, for_report["runs"][0], "--out", out, "--quiet")[:2] == (0, f"{out}\n")
    about = json.loads(call(capsys, for_report["runs"][0], "--out", out, "--json")[1])
    assert about["report"] == str(out) and about["bytes"] == out.stat().st_size and about["layers_left_out"] == []


def case(name: str, words: str, *arguments: str, id: str) -> object:
    return pytest.param(name, arguments, words, id=id)


@pytest.mark.parametrize(("out", "arguments", "words"), [
    case("r.html", "has no manifest.json", "{folder}", id="no run"),
    case("r.html", "is not complete", "{folder}/incomplete", id="incomplete"),
    case("r.html", "was given twice", "{run}", "{run}/../slice7", id="twice"),
    case("r.png", "Expected a report ending in .html", "{run}", id="suffix"),
    case("", "Expected a file for the report, got the folder", "{run}", id="folder"),
    case("missing/r.html", "there is no folder", "{run}", id="no folder"),
    case("r.html", "megabytes", "{run}", "--max-megabytes", "0", id="no room"),
    case("r.html", "matches none of the", "{run}", "--layers", "convv*", id="glob"),
    case("r.html", "is no folder of masks", "{run}", "--masks", "{folder}", id="no masks"),
    case("r.html", "are of another run: their input", "{run}", "--masks", "{mask}", id="masks of another run"),
    case("r.html", "has a second map of the same kind", "{other}", "--masks", "{mask}", "--masks", "{mask}",
         id="masks twice"),
    case("r.html", "has no NaN maps", "{run}", "--nan", "{folder}", id="no NaN maps"),
    case("r.html", "which is not there", "{run}", "--nan", "{folder}/nowhere", id="no NaN folder"),
    case("r.html", "mm away from those of the layer", "{third}", "--nan", "{nan}", id="NaN maps of another slice"),
    case("r.html", "Cannot read the rows", "{run}", "--rows", "{folder}/nowhere.csv", id="no rows"),
])  # fmt: skip
def test_bad_input_is_one_sentence_and_exit_code_2(capsys, for_report, tmp_path, out, arguments, words):
    (tmp_path / "incomplete").mkdir()
    (tmp_path / "incomplete" / "manifest.json").write_text('{"status": "running"}')
    runs = dict(zip(("run", "other", "third"), for_report["runs"], strict=True))
    places = {"folder": tmp_path, **runs, "mask": for_report["masks"][1], "nan": for_report["nan"][0]}
    code, output, errors = call(capsys, *(a.format(**places) for a in arguments), "--out", tmp_path / out)
    assert (code, output) == (2, "") and words in errors and errors.count("\n") == 1
    assert errors.startswith("mcaprobe: ") and errors.rstrip().endswith(".")
    assert not list(tmp_path.rglob("*.html"))


def test_the_layer_option_chooses_the_maps(for_report, tmp_path):
    mcaprobe.report(for_report["runs"][0], tmp_path / "r.html", layers=["conv*"])
    data = Page.read(tmp_path / "r.html").data
    assert [layer["name"] for layer in data["groups"][0]["layers"]] == ["conv1", "conv2"]
    assert {row[0] for row in data["runs"][0]["rows"]} >= {"conv1", "pool", "unpool"}


def spoil_layer(folder: Path) -> str:
    about = next(folder.glob("*.json"))
    about.write_text(json.dumps({"Layer": "unpol", "Description": "x"}))
    return "is of the layer unpol, which no run has: the nearest are unpool"


def spoil_values(folder: Path) -> str:
    result = mcaprobe.load(folder.parent / "run")
    write_nan_map(folder, result, "unpool", np.full((24, 24), 1.5), "x")
    return "Expected shares of 0 to 1 in the NaN map"


def spoil_nan(folder: Path) -> str:
    result = mcaprobe.load(folder.parent / "run")
    write_nan_map(folder, result, "unpool", np.full((24, 24), np.nan), "x")
    return "576 voxels that are NaN or infinite"


def spoil_sidecar(folder: Path) -> str:
    next(folder.glob("*.json")).unlink()
    return "needs a JSON file beside it"


def spoil_description(folder: Path) -> str:
    next(folder.glob("*.json")).write_text('{"Layer": "unpool"}')
    return "has no Description: expected an object with the texts Layer and Description"


def spoil_shape(folder: Path) -> str:
    next(folder.glob("*.json")).write_text('{"Layer": "pool", "Description": "x"}')
    return "the layer has 12 × 12 × 1 voxels, the file 24 × 24 × 1"


def spoil_file(folder: Path) -> str:
    next(folder.glob("*.nii.gz")).write_bytes(b"no image")
    return "cannot be read"


@pytest.mark.parametrize("spoil", [spoil_layer, spoil_values, spoil_nan, spoil_sidecar, spoil_description, spoil_shape,
                                   spoil_file])  # fmt: skip
def test_a_nan_map_that_is_not_as_documented_is_refused(for_report, tmp_path, spoil):
    run = shutil.copytree(for_report["runs"][0], tmp_path / "run")
    folder = tmp_path / "nan"
    folder.mkdir()
    for path in for_report["nan"][0].glob("*slice7*"):
        shutil.copy(path, folder)
    mcaprobe.report(run, tmp_path / "good.html", nan=[folder])
    words = spoil(folder)
    with pytest.raises(mcaprobe.InputError, match=re.escape(words)):
        mcaprobe.report(run, tmp_path / "r.html", nan=[folder])


def test_a_damaged_run_is_told_in_a_sentence(capsys, for_report, tmp_path):
    run = shutil.copytree(for_report["runs"][0], tmp_path / "run")
    (run / "layers" / "conv1.safetensors").write_bytes(b"short")
    code, _, errors = call(capsys, run, "--out", tmp_path / "r.html")
    assert code == 2 and "A run is damaged" in errors and "conv1" in errors


def test_the_commands_of_the_readme_parse() -> None:
    from mcaprobe.__main__ import parser

    text = (Path(__file__).resolve().parents[2] / "README.md").read_text()
    section = text[text.index("## One file to pass on") : text.index("## All subjects of a BIDS dataset")]
    commands = re.findall(r"^mcaprobe (.*?)(?:  +#.*)?$", section, re.M)
    run, mask, report = (parser().parse_args(shlex.split(command)) for command in commands)
    assert [run.out, mask.run] == [Path("z75")] * 2 and report.runs == [Path("z75"), Path("z90")]
    assert report.masks == [Path("z75/masks")] and len(report.rows) == 1 and report.max_megabytes == 40


def test_the_assets_are_in_the_package() -> None:
    root = Path(pages.__file__).parent
    assert {path.name for path in (root / "assets").iterdir()} == {"style.css", "script.js", "template.html"}
    settings = (root.parents[1] / "pyproject.toml").read_text()
    assert 'mcaprobe = ["html_report/assets/*"]' in settings
    assert all(pages.asset(name) for name in ("style.css", "script.js", "template.html"))
