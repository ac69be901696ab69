"""What does a person see and do in the report? Driven in a headless Chromium, without a single request."""

import csv
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

import mcaprobe
from tests.mcaprobe.report_pages import Page, moved

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
QUIET = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]  # fmt: skip
WIDE, NARROW = (1440, 900), (390, 844)
# Colours as the browser computed them; light-dark() is resolved there.
CONTRAST = """() => {
  const light = (rgb) => {
    const [r, g, b] = rgb.map((v) => v / 255).map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const parts = (text) => text.match(/[\\d.]+/g).map(Number);
  const ground = (node) => {
    for (let at = node; at; at = at.parentElement) {
      const colour = parts(getComputedStyle(at).backgroundColor);
      if (colour.length === 3 || colour[3] === 1) return colour.slice(0, 3);
    }
    return [255, 255, 255];
  };
  const found = [];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const node = walk.currentNode.parentElement;
    if (!walk.currentNode.textContent.trim() || !node.checkVisibility({ opacityProperty: true })) continue;
    if (node.closest("script, style, noscript, option, .side, .skip")) continue;
    const style = getComputedStyle(node);
    const colour = node.closest("svg") ? style.fill : style.color;
    const [a, b] = [light(parts(colour).slice(0, 3)), light(ground(node))].sort((x, y) => y - x);
    found.push([(a + 0.05) / (b + 0.05), walk.currentNode.textContent.trim().slice(0, 40)]);
  }
  return found;
}"""


@dataclass
class Tab:
    """A page in the browser, and what it asked for and complained of."""

    page: object
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    path = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if path is None:
        pytest.skip(f"none of the browsers {', '.join(BROWSERS)} is on PATH")
    api = pytest.importorskip("playwright.sync_api", reason="the package playwright is not installed")
    with api.sync_playwright() as driver:
        running = driver.chromium.launch(executable_path=path, args=QUIET)
        yield running
        running.close()


@pytest.fixture
def opened(browser):
    """Return a function that opens a file at a size and in a scheme; nothing may be requested or complained of."""
    tabs: list[Tab] = []
    contexts = []

    def open_page(path: Path, size: tuple[int, int] = WIDE, scheme: str = "light"):
        viewport = {"width": size[0], "height": size[1]}
        context = browser.new_context(viewport=viewport, color_scheme=scheme, accept_downloads=True)
        contexts.append(context)
        tab = Tab(context.new_page())
        tabs.append(tab)
        tab.page.on("request", lambda request: tab.requests.append(request.url))
        tab.page.on("console", lambda message: tab.complaints.append(message.text))
        tab.page.on("pageerror", lambda error: tab.complaints.append(str(error)))
        tab.page.on("dialog", lambda dialog: tab.complaints.append(dialog.message))
        tab.page.goto(path.as_uri())
        return tab.page

    yield open_page
    for tab in tabs:
        assert tab.complaints == []
        foreign = [url for url in tab.requests if not url.startswith(("file://", "data:", "blob:"))]
        assert foreign == [] and sum(url.startswith("file://") for url in tab.requests) == 1
    for context in contexts:
        context.close()


def column(page, head: str) -> list[str]:
    """Return the cells below a head of the table of layers."""
    heads = [text.strip() for text in page.locator("#layer-table thead th").all_inner_texts()]
    at = heads.index(head) + 1
    return page.locator(f"#layer-table tbody td:nth-child({at})").all_inner_texts()


def press_head(page, head: str) -> str | None:
    """Press a head by the keyboard; return how the column is sorted then."""
    page.locator("#layer-table").get_by_role("button", name=head, exact=True).focus()
    page.keyboard.press("Enter")
    return page.locator("#layer-table thead th:focus-within").get_attribute("aria-sort")


def test_the_table_is_sorted_by_its_heads_with_empty_cells_last(opened, whole_report):
    page = opened(whole_report)
    for direction in ("descending", "ascending"):
        assert press_head(page, "bits") == direction
        cells = column(page, "bits")
        filled = [float(cell) for cell in cells if cell]
        assert filled == sorted(filled, reverse=direction == "descending") and len(filled) == 5
        assert cells[-2:] == ["", ""] and len(cells) == 7  # decisions, of the pooling and the labels, have no bits
    assert page.locator("#layer-table th[aria-sort]").count() == 1
    assert press_head(page, "layer") == "ascending"
    assert column(page, "layer") == sorted(column(page, "layer"))
    assert press_head(page, "#") == "ascending" and column(page, "#") == [str(n) for n in range(1, 8)]


def test_a_table_of_measurements_is_sorted_too(opened, whole_report):
    page = opened(whole_report)
    article = page.locator("article", has_text="Agreement of NaN and unstable elements: agree.csv")
    article.locator("summary").click()
    for sort, expected in (("descending", ["0.7", "0.5", ""]), ("ascending", ["0.5", "0.7", ""])):
        article.get_by_role("button", name="dice", exact=True).click()
        assert article.locator("th[aria-sort]").get_attribute("aria-sort") == sort
        assert article.locator("tbody td:nth-child(3)").all_inner_texts() == expected


def test_region_run_and_filter_choose_the_rows(opened, for_report, whole_report):
    page = opened(whole_report)
    for number, run in enumerate(for_report["runs"]):
        page.select_option("#table-run", str(number))
        for region in ("brain", "background", "all"):
            page.select_option("#table-region", region)
            rows = [row for row in mcaprobe.load(run).rows if row.region == region]
            assert column(page, "layer") == [row.layer for row in rows]
            assert column(page, "region") == [region] * len(rows)
            assert column(page, "bits") == ["" if r.bits_mean is None else f"{r.bits_mean:.2f}" for r in rows]
            assert column(page, "elements") == [f"{row.elements:,}" for row in rows]
    page.select_option("#table-region", "every")
    assert len(column(page, "layer")) == len(mcaprobe.load(for_report["runs"][2]).rows)
    page.select_option("#table-region", "brain")
    page.fill("#table-filter", "POOL max")
    assert column(page, "layer") == ["pool", "pool.indices", "unpool"]
    assert "3 of 7 layers, 3 rows" in page.inner_text("#table-count")


def test_the_table_is_downloaded_with_every_digit(opened, for_report, whole_report, tmp_path):
    page = opened(whole_report)
    page.select_option("#table-run", "1")
    with page.expect_download() as download:
        page.click("#table-csv")
    download.value.save_as(tmp_path / "t.csv")
    assert download.value.suggested_filename == "slice9_table.csv"
    with (tmp_path / "t.csv").open(newline="") as one, (for_report["runs"][1] / "table.csv").open(newline="") as two:
        found, expected = list(csv.DictReader(one)), list(csv.DictReader(two))
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        assert a.keys() == b.keys()
        for name in a:
            assert a[name] == b[name] or float(a[name]) == float(b[name]), name


def test_the_slider_shows_the_slice_that_it_names(opened, whole_report):
    page = opened(whole_report)
    group = Page.read(whole_report).data["groups"][0]
    page.select_option("#map-layer", label="unpool")
    layer = next(each for each in group["layers"] if each["name"] == "unpool")
    page.focus("#map-slice")
    page.keyboard.press("Home")
    for k, frame in enumerate(group["frames"]):
        assert page.inner_text("#map-where") == frame["label"]
        assert page.get_attribute("#map-slice", "aria-valuetext") == frame["label"]
        assert page.get_attribute("#map", "src") == f"data:image/png;base64,{layer['cuts'][layer['frames'][k]]['map']}"
        assert page.get_attribute("#anatomy", "src").endswith(group["anatomy"][k])
        assert frame["label"] in page.inner_text("#anatomy-caption")
        page.keyboard.press("ArrowRight")
    page.select_option("#map-layer", label="pool")
    assert "pool (MaxPool2d, 1 × 4 × 12 × 12)" in page.inner_text("#map-caption")
    boxes = [page.locator(f"#{name}").bounding_box() for name in ("map", "anatomy")]
    assert [round(box["width"]) for box in boxes] == [round(boxes[1]["width"])] * 2
    assert page.evaluate("document.getElementById('map').naturalWidth") == 12


def test_the_overlay_shows_where_nan_and_unstable_elements_agree(opened, for_report, whole_report):
    page = opened(whole_report)
    page.select_option("#map-layer", label="unpool")
    page.locator("#map-slice").fill("0")
    page.select_option("#map-overlay", index=1)
    mask = mcaprobe.load_masks(for_report["masks"][0])["unpool"]
    share = mask.reduced("share").numpy()
    for least in (0, 50):
        page.locator("#map-least").fill(str(least))
        marked = (share > 0) & (share >= least / 100)
        lost = moved(marked)
        counts = [(marked & lost).sum(), (lost & ~marked).sum(), (marked & ~lost).sum()]
        dice = 2 * counts[0] / (2 * counts[0] + counts[1] + counts[2])
        a, b, c = (f"{np.floor(1000 * n / 576 + 0.5) / 10:.1f} %" for n in counts)  # halves go up, as in the script
        words = f"{a} unstable and NaN, {b} only NaN, {c} only unstable; Dice {dice:.3f}."
        page.wait_for_function("words => document.getElementById('map-readout').textContent.includes(words)", arg=words)
        shown = page.evaluate("""() => {
          const canvas = document.getElementById("overlay"), image = canvas.getContext("2d");
          return [...image.getImageData(0, 0, canvas.width, canvas.height).data];
        }""")
        drawn = np.array(shown).reshape(24, 24, 4)
        colours = {"f0e442": marked & lost, "56b4e9": lost & ~marked, "d55e00": marked & ~lost}
        for colour, where in colours.items():
            rgba = [*bytes.fromhex(colour), 255]
            assert np.array_equal((drawn == rgba).all(-1), np.rot90(where)), colour
        assert ((drawn[..., 3] > 0) == np.rot90(marked | lost)).all()
    page.select_option("#map-layer", label="conv2")
    missing = "Not there for conv2 on slice 7, z = 14 mm: NaN, from nan."
    page.wait_for_function("words => document.getElementById('map-readout').textContent.endsWith(words)", arg=missing)
    page.locator("#map-opacity").fill("40")
    assert float(page.evaluate("document.getElementById('overlay').style.opacity")) == pytest.approx(0.4)
    page.select_option("#map-overlay", value="")
    assert page.locator("#overlay").is_hidden()


def test_the_heatmap_is_read_by_keys_and_opens_the_map(opened, for_report, whole_report):
    page = opened(whole_report)
    page.focus("#heat")
    page.keyboard.press("ArrowDown")
    for key in ("ArrowDown", "ArrowDown", "ArrowRight"):
        page.keyboard.press(key)
    row = mcaprobe.load(for_report["runs"][1])["pool"].row("brain")
    assert f"pool, slice 9, z = 18 mm: {row.bits_mean:.2f} bits; " in page.inner_text("#heat-readout")
    assert f"{100 * row.share_number:.1f} % number" in page.inner_text("#heat-readout")
    page.select_option("#heat-region", "background")
    page.focus("#heat")
    page.keyboard.press("ArrowDown")
    cells = [line.inner_text() for line in page.locator(".heat-line").all()]
    assert len(cells) == 6 and page.inner_text("#heat-readout").startswith("conv1, slice 7")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    assert page.evaluate("document.getElementById('map-layer').selectedOptions[0].text") == "norm"
    assert page.inner_text("#map-where") == "slice 9, z = 18 mm"


def test_a_map_is_read_by_pointing_at_it(opened, for_report, whole_report):
    page = opened(whole_report)
    page.select_option("#map-layer", label="conv2")
    page.locator("#map-slice").fill("2")
    page.select_option("#map-overlay", value="")
    box = page.locator("#map").bounding_box()
    page.locator("#map").hover(position={"x": box["width"] * 12.5 / 24, "y": box["height"] * 10.5 / 24})
    page.wait_for_function("document.getElementById('map-readout').textContent.includes('column 12')")
    bits = np.rot90(mcaprobe.load(for_report["runs"][2])["conv2"].bits.numpy())[10, 12]
    found = re.search(r"column 12, row 10 of 24 × 24: ([\d.]+) bits", page.inner_text("#map-readout"))
    assert found is not None and float(found[1]) == pytest.approx(bits, abs=0.11)


def test_the_methods_are_copied(opened, whole_report):
    page = opened(whole_report)
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.click("#copy")
    page.wait_for_function("document.getElementById('copied').textContent !== ''")
    text = page.evaluate("navigator.clipboard.readText()")
    assert text.startswith("The numerical stability of the model") and "doi:10.1145/3432184" in text


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
def test_every_text_can_be_read_and_nothing_leaves_the_page(opened, whole_report, tmp_path, scheme, size):
    page = opened(whole_report, size, scheme)
    for toggled in (False, True):
        if toggled:
            page.click("#theme")
        dark = (scheme == "dark") != toggled
        assert page.get_attribute("#theme", "aria-pressed") == str(dark).lower()
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (max(map(int, re.findall(r"\d+", ground)[:3])) < 60) == dark
        page.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
        contrasts = page.evaluate(CONTRAST)
        assert len(contrasts) > 300
        assert [found for found in contrasts if found[0] < 4.5] == []
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    picture = tmp_path / "page.png"
    page.screenshot(path=picture, full_page=True)
    assert picture.stat().st_size > 50_000


def test_every_control_has_a_name_and_shows_where_the_focus_is(opened, whole_report):
    page = opened(whole_report)
    nameless = page.evaluate("""() => [...document.querySelectorAll("button, select, input, a[href], [tabindex]")]
      .filter((node) => !(node.labels?.length || node.textContent.trim() || node.ariaLabel))
      .map((node) => node.outerHTML)""")
    assert nameless == []
    seen = set()
    for _ in range(25):
        page.keyboard.press("Tab")
        name, outline = page.evaluate("""() => {
          const node = document.activeElement, style = getComputedStyle(node);
          const width = style.outlineStyle === "none" ? 0 : parseFloat(style.outlineWidth);
          return [node.id || node.textContent.trim(), width];
        }""")
        assert outline >= 1, name
        seen.add(name)
    assert {"theme", "heat-region", "heat-layers", "heat", "map-layer", "map-slice", "map-overlay"} <= seen
    assert page.evaluate("document.querySelectorAll('h1').length") == 1


def test_names_are_harmless_in_a_browser(opened, tmp_path):
    import torch

    model = torch.nn.Sequential()
    model.add_module("<img src=x onerror=alert(1)>", torch.nn.Conv2d(1, 2, 3, padding=1))
    np.save(tmp_path / "<b>.npy", np.random.default_rng(0).normal(size=(1, 1, 8, 8)).astype(np.float32))
    mcaprobe.run(model.eval(), tmp_path / "<b>.npy", out=tmp_path / "run", samples=3, threads=1, block=3)
    mcaprobe.report(tmp_path / "run", tmp_path / "r.html")
    page = opened(tmp_path / "r.html")
    assert column(page, "layer") == ["<img src=x onerror=alert(1)>", ":output.labels"]
    page.focus("#heat")
    page.keyboard.press("ArrowDown")
    assert "<img src=x onerror=alert(1)>" in page.inner_text("#heat-readout")
    assert page.evaluate("document.querySelectorAll('img[onerror], b').length") == 0
