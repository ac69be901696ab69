"""Is the table of the papers' figures about size what the counts give, and are those that do not come out named?"""

import csv
from pathlib import Path

import pytest

from analyses.__main__ import main
from analyses.commands import run as command
from analyses.experiments import sizes
from analyses.kept import Kept
from analyses.paths import RESULTS, ROOT
from analyses.results_files import texts

MISSED = {
    "parameters of a block, training form over fused", "parameters of a block, plain over fused",
    "parameters that the fused network saves, of 1", "parameters of the plain network over the fused one",
}  # fmt: skip


def test_what_fasterfusion_does_not_reach_is_said_with_a_reason() -> None:
    rows = [row for row in sizes.run()["rows"] if row["system"] == "FasterFusion"]
    assert {row["quantity"] for row in rows if not row["reproduced"]} == MISSED
    assert all(bool(row["reading"]) != row["reproduced"] for row in rows)


@pytest.mark.parametrize(("here", "same"), [(9.4351, True), (9.4349, False), (9.4499, True), (9.4501, False)])
def test_a_figure_comes_out_where_it_is_the_papers_rounded_or_cut(here: float, same: bool) -> None:
    assert sizes._figure("", 9.44, here, "")["reproduced"] is same


def test_the_command_writes_and_draws_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "Kept", lambda name, identity: Kept(name, identity, tmp_path / "kept"))
    assert main(["run", "sizes", "--out", str(tmp_path)]) == 0
    rows = list(csv.DictReader((tmp_path / "sizes_rows.csv").read_text().splitlines()))
    dense = next(row for row in rows if row["quantity"] == "operations, 10^9: nnU-Net, AMOS")
    assert (dense["paper"], dense["here"], dense["each_product_once"]) == ("1067.89", "1067.89", "957.052")
    assert main(["draw", "sizes", "--results", str(tmp_path)]) == 0
    text = (tmp_path / "sizes.md").read_text()
    assert f"{sum(row['reproduced'] == 'True' for row in rows)} of {len(rows)} figures come out" in text
    assert text.count("**no**") == sum(row["reproduced"] == "False" for row in rows)


def test_the_readme_counts_what_the_committed_rows_say() -> None:
    rows = list(csv.DictReader((RESULTS / "sizes_rows.csv").read_text().splitlines()))
    same = sum(row["reproduced"] == "True" for row in rows)
    readme = " ".join((ROOT / "README.md").read_text().split())
    assert f"Of {len(rows)} figures about size in the papers {same} come out here" in readme
    assert rows == texts(sizes.run()["rows"]), "the rows are those of the code"
