"""Which columns make which chart, are the numbers of the chart those of the file, and what is a mistake?"""

import re
from pathlib import Path

import pytest

from mcaprobe.errors import InputError
from mcaprobe.html_report.charts import axis_for
from mcaprobe.html_report.row_charts import section_of
from mcaprobe.html_report.schemas import AGREEMENT, PLAIN, SCHEMAS, SKIPPING, WALL_CLOCK, read_rows
from tests.mcaprobe.report_pages import ROWS, Page

SKIP, TIME, AGREE = (ROWS[name] for name in ("skip.csv", "time.csv", "agree.csv"))
DOCUMENT = Path(__file__).parents[2] / "mcaprobe" / "report_schema.md"


def written(folder: Path, text: str | bytes) -> Path:
    path = folder / "rows.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def drawn(folder: Path, text: str) -> Page:
    """Return what a file looks like in the page."""
    path = folder / "section.html"
    path.write_text(section_of(read_rows(written(folder, text))), encoding="utf-8")
    return Page.read(path)


@pytest.mark.parametrize(("name", "kind"), [("skip.csv", SKIPPING), ("time.csv", WALL_CLOCK), ("agree.csv", AGREEMENT),
                                            ("other.csv", PLAIN)])  # fmt: skip
def test_the_columns_decide_what_a_file_is(tmp_path, name, kind):
    assert read_rows(written(tmp_path, ROWS[name])).kind == kind


@pytest.mark.parametrize("kind", SCHEMAS)
def test_a_file_that_lacks_a_column_is_a_table_and_one_with_more_is_not(tmp_path, kind):
    columns = [column for column in SCHEMAS[kind] if column.required]
    cells = ["x" if column.kind == "text" else "1" for column in columns]
    for extra in ([], ["more"]):
        text = ",".join([*(c.name for c in columns), *extra]) + "\n" + ",".join([*cells, *extra]) + "\n"
        assert read_rows(written(tmp_path, text)).kind == kind
    for left_out in range(len(columns)):
        names, values = ([part for i, part in enumerate(row) if i != left_out]
                         for row in ([c.name for c in columns], cells))  # fmt: skip
        assert read_rows(written(tmp_path, ",".join(names) + "\n" + ",".join(values) + "\n")).kind == PLAIN


@pytest.mark.parametrize(("text", "words"), [
    ("", "line 1: expected a header"),
    (SKIP.splitlines()[0] + "\n", "line 2: expected a line of values below the header, got none"),
    ("a,,c\n1,2,3\n", "line 1, column 2: expected a name, got an empty cell"),
    ("a,b,a\n1,2,3\n", "line 1, column a: the name is there twice"),
    ("a,b\n1,2\n1,2,3\n", "line 3: expected 2 columns, got 3"),
    ("a,b\n1,2\n\n1\n", "line 4: expected 2 columns, got 1"),
    ('a,b\n1,2\n1,"2\n', "line 3: unexpected end of data"),
    (b"a,b\n1,\xff\n", "Expected a CSV file in UTF-8, got {path}: byte 6"),
    (SKIP.replace("0.25", "1.25"), "line 4, column skipped_share: expected a number from 0 to 1, got '1.25'"),
    (SKIP.replace("0.25", ""), "line 4, column skipped_share: expected a number from 0 to 1, got ''"),
    (SKIP.replace("0.94", "high"), "line 4, column score: expected a number, got 'high'"),
    (SKIP.replace("0.94", "inf"), "line 4, column score: expected a number, got 'inf'"),
    (SKIP.replace("stock,,0,0.93", ",,0,0.93"), "line 3, column method: expected a text, got ''"),
    (TIME.replace("nan,1,2", "nan,1.5,2"), "line 3, column threads: expected a whole number of at least 1, got '1.5'"),
    (TIME.replace("nan,1,2", "nan,0,2"), "line 3, column threads: expected a whole number of at least 1, got '0'"),
    (TIME.replace("nan,1,2", "nan,1,0"), "line 3, column seconds: expected a number above 0, got '0'"),
    (TIME.replace("nan,1,2", "nan,1,nan"), "line 3, column seconds: expected a number above 0, got 'nan'"),
    (AGREE.replace("-0.2", "-1.2"), "line 3, column mcc: expected a number from -1 to 1, got '-1.2'"),
    (AGREE.replace("0.5,0.6", "1.5,0.6"), "line 2, column dice: expected a number from 0 to 1, got '1.5'"),
    (AGREE.replace("unpool,a", ",a"), "line 2, column layer: expected a text, got ''"),
])  # fmt: skip
def test_a_mistake_is_told_with_file_line_and_column(tmp_path, text, words):
    path = written(tmp_path, text)
    with pytest.raises(InputError) as caught:
        read_rows(path)
    assert words.format(path=path) in str(caught.value) and str(path) in str(caught.value)
    assert str(caught.value).endswith(".") and "\n" not in str(caught.value)


def test_a_file_of_another_program_may_have_a_mark_at_its_beginning_and_other_line_ends(tmp_path):
    rows = read_rows(written(tmp_path, b"\xef\xbb\xbf" + TIME.replace("\n", "\r\n").encode()))
    assert rows.kind == WALL_CLOCK and rows.lines[0]["way"] == "stock"


def test_every_column_is_in_the_document_and_every_documented_one_is_read():
    text = DOCUMENT.read_text()
    documented = set(re.findall(r"`(\w+)`", " ".join(re.findall(r"^\| `.*?\|", text, re.M))))
    assert documented == {column.name for schema in SCHEMAS.values() for column in schema}


def test_accuracy_over_skipped_work_is_the_mean_over_subjects_at_each_threshold(tmp_path):
    page = drawn(tmp_path, SKIP)
    marks = [" ".join(text.split()) for text in page.texts if ", threshold" in text]
    assert marks == ["stock, threshold none: 0 % skipped, 0.94", "nan, threshold 1: 30 % skipped, 0.93",
                     "nan, threshold 0.5: 50 % skipped, 0.8"]  # fmt: skip
    at = [a for tag, a in page.tags if tag == "svg" and a.get("class") == "at" and a["x"].endswith("%")]
    # Faint marks of the subjects come before the means.
    assert [a["x"] for a in at] == ["0%", "0%", "0%", "25%", "35%", "50%", "50%", "30%", "50%"]
    axis = axis_for([0.95, 0.93, 0.94, 0.92, 0.9, 0.7], "Dice")
    assert (axis.low, axis.high) == (0.7, 0.95)
    heights = [(1 - (y - 0.7) / 0.25) * 240 for y in (0.93, 0.8)]
    assert [float(a["y"]) for a in at[-2:]] == pytest.approx(heights, abs=0.05)
    assert "Means over 2 subjects" in page.text
    assert [a["class"] for tag, a in page.tags if tag == "line" and "dashed" in a["class"]] == ["line s0 dashed"]


def test_each_score_has_a_chart_of_its_own(tmp_path):
    page = drawn(tmp_path, SKIP + "nan,1,0.25,31.5,PSNR,a\n")
    assert sum(tag == "figure" for tag, _ in page.tags) == 2 and "PSNR" in page.text


@pytest.mark.parametrize(("text", "expected"), [
    (TIME, ["8 s", "2 s, 4 ×", "5 s", "2.5 s, 2 ×"]),
    (TIME.replace("stock", "first"), ["8 s", "2 s, 4 ×", "5 s", "2.5 s, 2 ×"]),
    ("way,threads,seconds\nnan,1,2\nstock,1,8\n", ["2 s, 4 ×", "8 s"]),
    ("way,threads,seconds,speed_up,low,high\nstock,1,8,1,1,1\nnan,1,2,3.9,3.5,4.1\n",
     ["8 s", "2 s, 3.9 × (3.5 to 4.1)"]),
])  # fmt: skip
def test_wall_clock_is_held_against_stock_or_the_first_line_of_the_same_threads(tmp_path, text, expected):
    page = drawn(tmp_path, text)
    assert [t for t in page.texts if re.fullmatch(r"[\d.]+ s(, .*×.*)?", t)] == expected
    longest = max(float(line.split(",")[2]) for line in text.splitlines()[1:])
    widths = [float(a["width"].rstrip("%")) for tag, a in page.tags if tag == "rect"]
    assert widths == pytest.approx([100 * float(line.split(",")[2]) / longest for line in text.splitlines()[1:]])


def test_bounds_of_seconds_are_drawn_as_whiskers(tmp_path):
    page = drawn(tmp_path, "way,threads,seconds,low,high\nstock,1,8,7,10\n")
    whiskers = [(a["x1"], a["x2"]) for tag, a in page.tags if tag == "line" and a["class"] == "whisker"]
    assert whiskers == [("70%", "100%"), ("70%", "70%"), ("100%", "100%")]


def test_agreement_is_the_mean_over_subjects_with_chance_beside_it(tmp_path):
    page = drawn(tmp_path, AGREE)
    assert "0.600, precision 0.60, recall 0.80, MCC 0.10" in page.texts and "no Dice" in page.texts
    assert [a["width"] for tag, a in page.tags if tag == "rect"] == ["60%", "0%"]
    assert [a["x1"] for tag, a in page.tags if tag == "line" and a["class"] == "tick-mark"] == ["20%"]
    assert "mean over 2 subjects" in page.text


def test_every_cell_of_a_file_is_in_its_table(tmp_path):
    for text in ROWS.values():
        page = drawn(tmp_path, text)
        cells = [cell for line in text.splitlines()[1:] for cell in line.split(",") if cell]
        assert not [cell for cell in cells if cell not in page.texts]
        assert sum(tag == "td" for tag, _ in page.tags) == sum(line.count(",") + 1 for line in text.splitlines()[1:])


@pytest.mark.parametrize(("values", "ends"), [((0.0, 9.0), (0, 10)), ((0.91, 0.94), (0.91, 0.94)), ((3.0, 3.0), (1, 5)),
                                              ((-3.0, 12.0), (-5, 15)), ((0.0, 0.0), (-0.6, 0.6))])  # fmt: skip
def test_an_axis_holds_its_values_between_round_ticks(values, ends):
    axis = axis_for(values, "x")
    assert axis.low <= min(values) and axis.high >= max(values)
    assert (axis.ticks[0], axis.ticks[-1]) == pytest.approx((axis.low, axis.high)) and 3 <= len(axis.ticks) <= 8
    assert (axis.low, axis.high) == pytest.approx(ends)
