"""Are the figures drawn from the rows, and are their numbers those of the rows?"""

import json
import math
from pathlib import Path

import pytest
from matplotlib import pyplot

from analyses.__main__ import main
from analyses.figures import against_paper, brains, formats, thresholds, tolerances
from analyses.results_files import cells, write_table
from mcaprobe.storage import TEMPORARY

MANIFEST = {"machine": {"processor": "P"}, "threads": 1, "versions": {"torch": "2"}, "date": "2026-01-02T03:04:05"}


def mnist_rows() -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for network in ("mnist", "mnist_nan"):
        about = {"network": network, "format": "float32", "images": 100}
        for layer in ("conv1", "conv2", "total"):
            row = about | {"method": "stock", "layer": layer, "windows": 1000, "skipped": 0}
            rows.append(row | ({"f1": 0.99, "accuracy": 0.98} if layer == "total" else {}))
        for fill in ("max_normal", "mean"):
            for t in (1.0, 0.5):
                for layer, skipped in (("conv1", 0), ("conv2", round(100 / t)), ("total", round(100 / t))):
                    row = about | {"method": "aggressive", "pooling": "aggressive", "threshold": t, "fill": fill}
                    row |= {"layer": layer, "windows": 1000, "skipped": skipped, "window_share": skipped / 1000}
                    row |= {"mac_share": 0.1 / t} | ({"f1": t, "accuracy": t - 0.01} if layer == "total" else {})
                    rows.append(row)
    return rows


def xception_rows() -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for network, n in (("separable", 2000), ("SqueezeNet", 200)):
        about = {"network": network, "format": "float32", "images": n, "layer": "total"}
        rows.append(about | {"method": "stock", "window_share": 0, "mac_share": 0, "f1": 0.8, "accuracy": 0.9})
        for eps in (1e-7, 1e-2):
            for t in (1.0, 0.5):
                row = about | {"method": "aggressive", "threshold": t, "fill": "mean", "tolerance": eps}
                share = eps + 0.01 / t
                rows.append(row | {"window_share": share, "mac_share": 2 * share, "f1": t / 2, "accuracy": t / 2 + 0.1})
    return rows


def precision_rows() -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for k, name in enumerate(("float32", "bfloat16", "float16")):
        about = {"network": "mnist", "format": name, "images": 2000, "layer": "total"}
        rows.append(about | {"method": "stock", "accuracy": 0.99})
        for fill in ("max_normal", "mean"):
            for t in (1.0, 0.5):
                accuracy = 0.1 + 0.01 * k + (0.2 if fill == "mean" else 0) + t / 2
                rows.append(about | {"method": "aggressive", "threshold": t, "fill": fill, "accuracy": accuracy})
    return rows


def brain_rows(table: str) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for subject in ("1013", "1014"):
        for method, t, uniform in ((None, None, None), ("conservative", 0.5, False), ("conservative", 0.5, True)):
            about: dict[str, object] = {"plane": "axial", "subject": subject, "method": method or "stock"}
            if method:
                about |= {"pooling": method, "threshold": t, "uniform": uniform, "fill": "mean"}
            if table == "layers" and method:
                for layer, skipped in (("encode1.conv0", 0), ("decode1.conv0", 60), ("total", 60)):
                    here = skipped + int(subject == "1014") * 20 * bool(skipped)
                    row = about | {"layer": layer, "windows": 100, "skipped": here, "window_share": here / 100}
                    row |= {"mac_share": 0.25, "executed_share": 0.5, "mean_over_layers": here / 200}
                    rows += [row | {"scope": "brain slices"}, row | {"scope": "whole volume", "mean_over_layers": 0.9}]
            elif table == "slices":
                for i in (10, 11, 12):
                    dice = math.nan if i == 12 else 0.5 + i / 100 - 0.01 * bool(method)
                    row = about | {"slice": i, "dice": dice, "psnr": 30 + i, "labels_changed": 7 if method else 0}
                    rows.append(row | ({"windows": 100, "window_share": i / 100} if method else {}))
            elif table == "dice":
                for structure, score in (("background", 1.0), ("thalamus", 0.8), ("caudate", 0.7)):
                    rows.append(about | {"structure": structure, "dice": score})
    return rows


def write(folder: Path, name: str, rows: list[dict[str, object]]) -> list[dict[str, str]]:
    columns = list(dict.fromkeys(column for row in rows for column in row))
    texts = [cells(row, columns) for row in rows]
    write_table(folder / f"{name}.csv", texts)
    return texts


@pytest.fixture
def results(tmp_path: Path) -> Path:
    write(tmp_path, "mnist_layers", mnist_rows())
    write(tmp_path, "xception_layers", xception_rows())
    write(tmp_path, "precision_layers", precision_rows())
    for kind in ("segmentation", "denoising"):
        for table in ("layers", "slices", *(["dice"] if kind == "segmentation" else [])):
            write(tmp_path, f"conservative_{kind}_{table}", brain_rows(table))
    for name in ("mnist", "xception", "precision", "conservative"):
        (tmp_path / f"{name}.json").write_text(json.dumps(MANIFEST))
    return tmp_path


@pytest.mark.parametrize(("name", "count"), [("mnist", 2), ("xception", 2), ("precision", 2), ("conservative", 6)])
def test_a_command_draws_from_rows_alone(results: Path, capsys, name: str, count: int) -> None:  # type: ignore[no-untyped-def]
    already = pyplot.get_fignums()
    assert main(["draw", name, "--results", str(results)]) == 0
    paths = [Path(line) for line in capsys.readouterr().out.split()]
    assert len(paths) == count and all(path.stat().st_size > 100 for path in paths)
    assert not list(results.glob(f"{TEMPORARY}*")) and pyplot.get_fignums() == already


def test_the_table_of_the_brains_holds_paper_and_rows(tmp_path: Path) -> None:
    tables = {table: write(tmp_path, table, brain_rows(table)) for table in ("layers", "slices")}
    lines = against_paper.markdown([(against_paper.FASTSURFER, tables["layers"], tables["slices"])])
    cells_of = [[cell.strip() for cell in line.strip("| ").split("|")] for line in lines if line.startswith("| Fast")]
    assert cells_of == [
        ["FastSurferVINN", "conservative, t2 = 0.5", "26.6%", "35.0%", "90.0%", "70.0%", "25.0%", "50.0%",
         "Dice 0.6050", "0.5950", "42"],
        ["FastSurferVINN", "conservative, t2 = 0.5, uniform windows", "", "35.0%", "90.0%", "70.0%", "25.0%", "50.0%",
         "Dice 0.6050", "0.5950", "42"],
    ]  # fmt: skip
    assert "n = 2 brains" in lines[-1]


def test_rows_that_are_not_there_are_one_sentence(tmp_path: Path, capsys) -> None:  # type: ignore[no-untyped-def]
    assert main(["draw", "aggressive", "--results", str(tmp_path)]) == 2
    assert "`python -m analyses run aggressive` makes them." in capsys.readouterr().err


def test_the_table_holds_the_papers_numbers_beside_ours(tmp_path: Path) -> None:
    lines = thresholds.markdown(write(tmp_path, "m", mnist_rows()))
    assert len(lines) == 2 + 2 * 5
    assert "| MNIST net | B | 0.5 | 0.1982 | 0.4900 | 0.5000 | 20.0% | 20.0% |" in lines
    assert "| MNIST net | A | 1 |  | 0.9900 | 1.0000 | 10.0% | 10.0% |" in lines
    assert any("MNIST net trained through its NaNs" in line for line in lines)


def test_the_sweep_of_tolerances_is_that_of_the_rows(tmp_path: Path) -> None:
    rows = write(tmp_path, "x", xception_rows())
    assert tolerances.markdown(rows)[2:5] == [
        "| small Xception, digits | 2,000 | torch | | 0.9000 | 0.8000 | 0 % | 0 % |",
        "| small Xception, digits | 2,000 | 1e-7 | 1 | 0.6000 | 0.5000 | 1.00 % | 2.00 % |",
        "| small Xception, digits | 2,000 | 1e-7 | 0.5 | 0.3500 | 0.2500 | 2.00 % | 4.00 % |",
    ]
    figure = tolerances.draw(rows, "f")
    above, _, below, _ = figure.axes
    assert [line.get_ydata()[0] for line in above.lines] == [0.8, 0.5, 0.25]
    assert [bar.get_height() for bar in below.patches] == pytest.approx([1.00001, 2, 2.00001, 3], abs=1e-4)
    assert [text.get_text() for text in below.get_xticklabels()] == ["$10^{-7}$", "$10^{-2}$"]
    pyplot.close("all")


def test_the_accuracies_by_format_are_those_of_the_rows(tmp_path: Path) -> None:
    rows = write(tmp_path, "p", precision_rows())
    assert formats.markdown(rows) == [
        "| network | approach | t2 | float32 | bfloat16 | float16 |", "| --- | --- | --- | --- | --- | --- |",
        "| MNIST net | torch |  | 0.9900 | 0.9900 | 0.9900 |", "| MNIST net | A | 1 | 0.8000 | 0.8100 | 0.8200 |",
        "| MNIST net | A | 0.5 | 0.5500 | 0.5600 | 0.5700 |", "| MNIST net | B | 1 | 0.6000 | 0.6100 | 0.6200 |",
        "| MNIST net | B | 0.5 | 0.3500 | 0.3600 | 0.3700 |",
    ]  # fmt: skip
    heights = [bar.get_height() for bar in formats.draw(rows, "f").axes[0].patches]
    assert heights == pytest.approx([*[0.99] * 3, 0.8, 0.81, 0.82, 0.55, 0.56, 0.57, 0.6, 0.61, 0.62, 0.35, 0.36, 0.37])
    pyplot.close("all")


def test_curves_are_the_means_over_subjects(tmp_path: Path) -> None:
    layers, slices = (write(tmp_path, t, brain_rows(t)) for t in ("layers", "slices"))
    figure = brains.draw_skipped(layers, slices, "t", "f")
    left, right = figure.axes
    assert left.lines[0].get_ydata().tolist() == [0.0, 0.7] and len(left.lines) == 2
    assert right.lines[0].get_xdata().tolist() == [10, 11, 12]
    assert right.lines[0].get_ydata() == pytest.approx([0.1, 0.11, 0.12])
    scores = brains.draw_scores(slices, "dice", "Dice", "t", "f")
    assert [line.get_label() for line in scores.axes[0].lines] == [
        "torch", "conservative, t2 = 0.5", "conservative, t2 = 0.5, uniform windows"
    ]  # fmt: skip
    assert scores.axes[0].lines[0].get_xdata().tolist() == [10, 11]  # what has no score is left out
    structures = brains.draw_structures(write(tmp_path, "d", brain_rows("dice")), ["torch"], "t", "f")
    assert [t.get_text() for t in structures.axes[0].get_xticklabels()] == ["thalamus", "caudate"]
    pyplot.close("all")
