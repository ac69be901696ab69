"""Is a method called no worse than torch's network where it is, and only there?"""

import csv
import json
import math
from pathlib import Path

import pytest

from analyses.__main__ import main
from analyses.experiments.noninferiority import MEAN, NO, NOTHING, UNDECIDED, UNTESTED, YES, run
from analyses.results_files import cells, write_table
from analyses.statistics import holm, non_inferiority
from mcaprobe.errors import InputError
from mcaprobe.intervals import student_interval

SUBJECTS = ("1013", "1014", "1015", "1017", "1036")
STOCK = {"thalamus": (0.80, 0.82, 0.84, 0.86, 0.88), "caudate": (0.70, 0.71, 0.72, 0.73, 0.74)}
SMALL = (0.001, -0.001, 0.0005, -0.0005, 0.0)  # differences far inside the margin


def rows_of(method: str, scores: dict[str, tuple[float, ...]]) -> list[dict[str, str]]:
    about = {"plane": "axial", "method": method}
    if method != "stock":
        about |= {"pooling": method, "threshold": "0.5", "uniform": "False", "fill": "mean"}
    table = {"background": (1.0,) * 5, **scores}
    found = [about | {"subject": s, "structure": k, "dice": v} for k, row in table.items()
             for s, v in zip(SUBJECTS, row, strict=True)]  # fmt: skip
    columns = ("plane", "subject", "method", "structure", "dice", "pooling", "threshold", "uniform", "fill")
    return [cells(row, columns) for row in found]


def shifted(*differences: float) -> dict[str, tuple[float, ...]]:
    """Return the scores of a method that differs from torch's by so much, thalamus first, and a little at random."""
    return {
        k: tuple(x + d + e for x, e in zip(row, SMALL, strict=True))
        for (k, row), d in zip(STOCK.items(), differences, strict=True)
    }


def compared(scores: dict[str, tuple[float, ...]], stock: dict[str, tuple[float, ...]] = STOCK) -> dict[str, dict]:  # type: ignore[type-arg]
    return {row["structure"]: row for row in run(rows_of("stock", stock) + rows_of("aggressive", scores))}


def test_known_differences_are_found_and_the_small_ones_called_no_worse() -> None:
    found = compared(shifted(0.0, -0.001))
    assert list(found) == ["thalamus", "caudate", MEAN]
    assert [row["n"] for row in found.values()] == [5, 5, 5]
    assert [row["difference"] for row in found.values()] == pytest.approx([0, -0.001, -0.0005], abs=1e-9)
    assert found["thalamus"]["torch"] == pytest.approx(0.84) and found["caudate"]["dice"] == pytest.approx(0.719)
    assert {row["verdict"] for row in found.values()} == {YES}
    assert all(row["low"] < row["difference"] < row["high"] for row in found.values())


def test_the_p_of_the_structures_are_corrected_together_and_the_mean_alone() -> None:
    scores = shifted(0.0, -0.003)
    found = compared(scores)
    plain = [non_inferiority(scores[k], STOCK[k], 0.005).p for k in STOCK]
    assert [found[k]["p"] for k in STOCK] == pytest.approx(plain, rel=1e-4)
    assert [found[k]["p_holm"] for k in STOCK] == pytest.approx(holm(plain), rel=1e-4)
    assert found[MEAN]["p_holm"] == found[MEAN]["p"]


def test_a_method_that_is_worse_is_not_called_non_inferior() -> None:
    found = compared(shifted(-0.02, 0.0))
    assert found["thalamus"]["verdict"] == NO and found["thalamus"]["p"] > 0.99
    assert found["caudate"]["verdict"] == YES and found[MEAN]["verdict"] == NO
    assert compared(shifted(-0.005, 0.0))["thalamus"]["verdict"] == UNDECIDED  # just at the margin: nothing is shown


def test_a_nan_is_counted_and_its_pair_left_out() -> None:
    scores, stock = shifted(0.0, 0.0), dict(STOCK)
    scores["thalamus"] = (math.nan, *scores["thalamus"][1:])
    stock["thalamus"] = (*STOCK["thalamus"][:4], math.nan)
    found = compared(scores, stock)
    assert (found["thalamus"]["n"], found["thalamus"]["nan_left_out"]) == (3, 2)
    assert found["thalamus"]["torch"] == pytest.approx(0.84)  # of 1014, 1015 and 1017
    assert found["thalamus"]["difference"] == pytest.approx((-0.001 + 0.0005 - 0.0005) / 3, abs=1e-9)
    assert (found["caudate"]["n"], found[MEAN]["n"], found[MEAN]["nan_left_out"]) == (5, 5, 2)
    assert found[MEAN]["torch"] == pytest.approx((0.70 + (0.82 + 0.71 + 0.84 + 0.72 + 0.86 + 0.73) / 2 + 0.74) / 5)


def test_one_pair_is_no_test() -> None:
    scores = shifted(0.0, 0.0) | {"thalamus": (0.8, *[math.nan] * 4)}
    found = compared(scores)
    assert found["thalamus"]["verdict"] == UNTESTED and found["thalamus"]["p"] is None
    assert found["caudate"]["p_holm"] == found["caudate"]["p"]  # the only one of its family


def test_a_structure_that_torch_never_finds_is_not_called_non_inferior() -> None:
    stock, scores = STOCK | {"thalamus": (0.0,) * 5}, shifted(0.0, 0.0) | {"thalamus": (0.0,) * 5}
    found = compared(scores, stock)
    assert found["thalamus"]["p"] == 0 and found["thalamus"]["verdict"] == NOTHING
    assert found["caudate"]["verdict"] == YES


def test_scores_that_do_not_belong_together_are_one_sentence() -> None:
    stock, method = rows_of("stock", STOCK), rows_of("aggressive", shifted(0.0, 0.0))
    for rows, sentence in (
        (method, "Expected rows of the method stock, got none"), ([*stock, *stock], "got two"),
        ([*stock, *method[:-1]], "got others by aggressive 0.5"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=sentence):
            run(rows)


def test_a_command_writes_rows_manifest_and_page(tmp_path: Path, capsys) -> None:  # type: ignore[no-untyped-def]
    scores = shifted(-0.02, 0.0) | {"caudate": (math.nan,) * 5}
    write_table(tmp_path / "aggressive_segmentation_dice.csv", rows_of("stock", STOCK) + rows_of("aggressive", scores))
    assert main(["noninferiority", "aggressive", "--results", str(tmp_path)]) == 0, capsys.readouterr().err
    with (tmp_path / "aggressive_noninferiority.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["structure"], row["n"], row["verdict"]) for row in rows] == [
        ("thalamus", "5", NO), ("caudate", "0", UNTESTED), (MEAN, "5", NO)
    ]  # fmt: skip
    assert json.loads((tmp_path / "aggressive_noninferiority.json").read_text())["margin"] == 0.005
    lines = (tmp_path / "aggressive_noninferiority.md").read_text().splitlines()
    assert "| caudate | 0 | 5 | | | | | | not tested |" in lines
    assert any(line.startswith("| thalamus | 5 | 0 | 0.8400 | 0.8200 | -0.0200 (-0.02") for line in lines)
    assert any(line.endswith("| inferior | 0 of 2 |") for line in lines)


def test_wrong_options_are_one_sentence(tmp_path: Path, capsys) -> None:  # type: ignore[no-untyped-def]
    for wrong, sentence in ((["--margin", "0"], "a positive --margin"), ([], "`python -m analyses run conservative`")):
        assert main(["noninferiority", "conservative", "--results", str(tmp_path), *wrong]) == 2
        assert sentence in capsys.readouterr().err


def test_the_interval_of_a_mean_is_that_of_students_table() -> None:
    low, high = student_interval([1.0, 2.0, 3.0, 4.0, 5.0])
    half = 2.776445 * math.sqrt(2.5 / 5)  # t of 4 degrees of freedom, .975
    assert (low, high) == pytest.approx((3 - half, 3 + half), rel=1e-6)
    assert student_interval([0.5, 0.5]) == (0.5, 0.5)
    with pytest.raises(InputError, match="Expected two or more values for an interval, got 1"):
        student_interval([0.5])
