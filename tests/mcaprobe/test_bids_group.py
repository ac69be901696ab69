"""What does the group level say of tables that a test wrote?"""

import csv
import json
import math
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from mcaprobe.__main__ import main
from mcaprobe.bids_app.derivatives import NOTHING, TABLE_COLUMNS
from mcaprobe.bids_app.folder import FORMAT, Folder
from mcaprobe.bids_app.group import bounds, group
from mcaprobe.errors import InputError

T_975 = {2: 12.706204736174694, 3: 4.302652729749462, 4: 3.182446305284264}  # of n - 1 degrees of freedom, by n
VALUES = {"01": 10.0, "02": 12.0, "03": 17.0}


def table(out: Path, subject: str, lines: list[dict[str, object]], session: str | None = None) -> None:
    prefix = f"sub-{subject}" + (f"_ses-{session}" if session else "")
    path = out / f"sub-{subject}" / (f"ses-{session}" if session else ".") / "anat" / f"{prefix}_sigbits.tsv"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, TABLE_COLUMNS, restval=NOTHING, delimiter="\t", lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)


def line(layer: str, bits: object, region: str = "all", **more: object) -> dict[str, object]:
    return {"layer": layer, "operator": "Conv2d", "region": region, "bits_mean": bits, **more}


@pytest.fixture
def out(tmp_path) -> Path:
    """Derivatives of three subjects: one layer with bits in all, one in two of them, decisions, a region in one."""
    folder = tmp_path / "out"
    (folder / "work").mkdir(parents=True)
    about = {"Name": "Bits <of> all", "Format": FORMAT}
    (folder / "dataset_description.json").write_text(json.dumps(about))
    for subject, bits in VALUES.items():
        lines = [line("conv1", bits, share_noise=0.25), line("pool.indices", NOTHING, index_change_rate=0.5)]
        if subject != "03":
            lines.append(line("conv2", bits + 1))
        table(folder, subject, lines)
    return folder


def rows(found) -> dict[tuple[str, str, str], object]:
    return {(row.layer, row.region, row.measure): row for row in found.rows}


def test_mean_and_interval_are_those_of_students_t(out) -> None:
    row = rows(group(Folder(out, out)))["conv1", "all", "bits_mean"]
    std = math.sqrt(((10 - 13) ** 2 + (12 - 13) ** 2 + (17 - 13) ** 2) / 2)
    half = T_975[3] * std / math.sqrt(3)
    assert (row.subjects, row.mean, row.least, row.most) == (3, 13.0, 10.0, 17.0)
    assert row.std == pytest.approx(std, rel=1e-12)
    assert (row.low, row.high) == (pytest.approx(13 - half, rel=1e-9), pytest.approx(13 + half, rel=1e-9))


def test_a_subject_without_a_value_is_not_counted(out) -> None:
    found = rows(group(Folder(out, out)))
    row = found["conv2", "all", "bits_mean"]
    assert (row.subjects, row.mean) == (2, 12.0)
    assert ("pool.indices", "all", "bits_mean") not in found
    assert found["pool.indices", "all", "index_change_rate"].mean == 0.5


def test_values_that_are_the_same_have_an_interval_of_no_width(out) -> None:
    for interval in ("t", "bootstrap"):
        row = rows(group(Folder(out, out), interval=interval))["conv1", "all", "share_noise"]
        assert (row.low, row.mean, row.high) == (0.25, 0.25, 0.25)


def test_sessions_and_slices_of_a_subject_count_as_one(out) -> None:
    table(out, "04", [line("conv1", 1.0), line("conv1", 3.0)], "a")
    table(out, "04", [line("conv1", 8.0)], "b")
    row = rows(group(Folder(out, out)))["conv1", "all", "bits_mean"]
    assert row.subjects == 4 and row.mean == pytest.approx((10 + 12 + 17 + 4) / 4) and row.least == 4.0


def test_one_subject_has_no_interval(out) -> None:
    row = rows(group(Folder(out, out), participants=["sub-02"]))["conv1", "all", "bits_mean"]
    assert (row.subjects, row.mean, row.low, row.high, row.std) == (1, 12.0, None, None, None)


def test_a_higher_level_has_a_wider_interval(out) -> None:
    narrow, wide = (rows(group(Folder(out, out), level=p))["conv1", "all", "bits_mean"] for p in (0.5, 0.99))
    assert wide.low < narrow.low < narrow.mean < narrow.high < wide.high


def test_the_bootstrap_is_that_of_its_seed_and_near_to_t() -> None:
    values = np.random.default_rng(3).normal(12, 2, 60).tolist()
    first, again, other = (bounds(values, "bootstrap", 0.95, np.random.default_rng(seed)) for seed in (1, 1, 2))
    low, high = bounds(values, "t", 0.95, np.random.default_rng(0))
    assert first == again != other
    assert first == (pytest.approx(low, abs=0.15), pytest.approx(high, abs=0.15))


@pytest.mark.parametrize("n", [2, 3, 4])
def test_the_interval_uses_the_quantile_of_its_degrees_of_freedom(n) -> None:
    values = [float(v) for v in range(n)]
    low, high = bounds(values, "t", 0.95, np.random.default_rng(0))
    assert high - low == pytest.approx(2 * T_975[n] * np.std(values, ddof=1) / math.sqrt(n), rel=1e-9)


def test_the_table_and_its_side_car_are_written(out, capsys) -> None:
    (out / "work" / "sub-09_T1w.failed.json").write_text(json.dumps({"subject": "09", "sentence": "no <image>"}))
    assert main(["bids", str(out), str(out), "group", "--interval", "bootstrap", "--seed", "3"]) == 0
    output = capsys.readouterr().out
    assert "3 subjects, 3 layers" in output and "Without sub-09_T1w, which failed: no <image>" in output
    with (out / "group_sigbits.tsv").open(newline="") as file:
        found = list(csv.DictReader(file, delimiter="\t"))
    assert [(r["layer"], r["measure"]) for r in found][:2] == [("conv1", "bits_mean"), ("conv1", "share_noise")]
    about = json.loads((out / "group_sigbits.json").read_text())
    assert about["Subjects"] == ["01", "02", "03"] and about["Missing"] == {"sub-09_T1w": "no <image>"}
    assert "bootstrap" in about["Interval"] and set(found[0]) <= set(about) | {"layer", "operator", "region"}


def test_what_was_run_of_each_image_is_told_where_all_agree(out) -> None:
    assert group(Folder(out, out)).run_words == ""
    facts = {"Model": "net", "Samples": 7, "Mode": "random", "Precision": None, "Route": "exact", "Estimator": "cnh"}
    for seed, path in enumerate(sorted(out.glob("sub-*/**/*_sigbits.tsv"))):
        path.with_suffix(".json").write_text(json.dumps({**facts, "Seed": seed, "Plane": "axial"}))
    found = group(Folder(out, out))
    assert found.facts == facts
    assert found.run_words == "Each image: n = 7 samples and the IEEE run, mode random, emulated (route exact); cnh."
    assert main(["bids", str(out), str(out), "group"]) == 0
    assert found.run_words in (out / "group.html").read_text()
    assert json.loads((out / "group_sigbits.json").read_text())["Samples"] == 7


class Page(HTMLParser):
    """Collects the links and the texts of a page, and what it would load."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        if tag == "a":
            self.links.append(attributes["href"])
        elif tag in ("script", "link", "img", "iframe"):
            self.loads.append(tag)

    def handle_data(self, data):
        self.texts.append(data)


def test_the_page_links_each_subject_with_a_report_and_loads_nothing(out) -> None:
    table(out, "02", [line("conv1", 12.0), line("conv1", 11.0, "left"), line("conv1", 12.5, "right")])
    (out / "sub-02.html").write_text("a report")
    (out / "work" / "sub-09_T1w.failed.json").write_text(json.dumps({"subject": "09", "sentence": "no <image>"}))
    assert main(["bids", str(out), str(out), "group", "--quiet"]) == 0
    text = (out / "group.html").read_text()
    page = Page()
    page.feed(text)
    assert page.links == ["sub-02.html"] and page.loads == []
    assert "default-src &#x27;none&#x27;" in text and "Bits <of> all" in page.texts and "<of>" not in text
    for piece in ("Regions of the segmentation", "left", "Images that failed", "sub-03", "13.00"):
        assert any(piece in part for part in page.texts), piece


def test_the_subject_farthest_from_the_mean_is_told(out) -> None:
    assert main(["bids", str(out), str(out), "group", "--quiet"]) == 0
    page = Page()
    page.feed((out / "group.html").read_text())
    at = page.texts.index("sub-03")
    assert page.texts[at + 1 : at + 5] == ["conv1", "17.00", "13.00", "+1.1"]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [({"level": 1.5}, "a level between 0 and 1"), ({"interval": "normal"}, "the interval t or bootstrap"),
     ({"participants": ["07"]}, "There is no table sub-07")],
)  # fmt: skip
def test_bad_input_is_one_sentence(out, options, sentence) -> None:
    with pytest.raises(InputError, match=sentence):
        group(Folder(out, out), **options)


def test_a_folder_without_derivatives_is_refused(tmp_path) -> None:
    with pytest.raises(InputError, match="holds no derivatives"):
        group(Folder(tmp_path, tmp_path))
    (tmp_path / "dataset_description.json").write_text(json.dumps({"Format": FORMAT}))
    with pytest.raises(InputError, match="has no table of any subject"):
        group(Folder(tmp_path, tmp_path))
