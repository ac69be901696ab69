"""The picture: colours that anyone tells apart, the patient the right way round, all of it within the page."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from mcaprobe.palette import BITS, COLOURS, WORDS, colour_image
from mcaprobe.plots import LayerPicture, heatmap
from mcaprobe.selection import components, select_layers, short_names
from mcaprobe.statistics import Class
from tests.reference.vision import VISIONS, difference, lab


class Info(NamedTuple):
    name: str


def picture(name: str, size: int = 16, kinds: tuple[Class, ...] = (Class.NUMBER,)) -> LayerPicture:
    majority = torch.tensor(kinds, dtype=torch.uint8).repeat(size * size)[: size * size].view(size, size)
    bits = torch.linspace(0, 24, size * size).view(size, size)
    return LayerPicture(name, bits, majority, (1, 8, size, size))


@pytest.mark.parametrize("vision", VISIONS)
def test_classes_and_bits_are_told_apart_with_any_colour_vision(vision: str) -> None:
    ramp = [BITS(k / 24)[:3] for k in range(25)]
    for kind, colour in COLOURS.items():
        assert min(difference(to_rgb(colour), blue, vision) for blue in ramp) > 16, kind
    for a, b in itertools.combinations(COLOURS.values(), 2):
        assert difference(to_rgb(a), to_rgb(b), vision) > 16, (a, b)
    noise = min(difference(to_rgb(COLOURS[Class.NOISE]), blue, vision) for blue in ramp)
    assert noise > 60
    lightness = [lab(blue, vision)[0] for blue in ramp]
    assert lightness == sorted(lightness, reverse=True)


def test_every_class_but_number_has_a_colour_and_a_word() -> None:
    assert set(COLOURS) == set(WORDS) == set(Class) - {Class.NUMBER}


def test_a_map_is_coloured_by_class_first_and_bits_else() -> None:
    kinds = np.array([list(Class), [Class.NUMBER] * 8])
    bits = np.array([[12.0] + [float("nan")] * 7, [-3.0, 0, 6, 12, 18, 24, 40, float("nan")]])
    image = colour_image(bits, kinds, 24)
    for column, kind in enumerate(Class):
        if kind is not Class.NUMBER:
            assert tuple(image[0, column]) == to_rgb(COLOURS[kind])
    assert tuple(image[0, 0]) == BITS(0.5)[:3]
    assert [tuple(image[1, k]) for k in (0, 1, 5, 6)] == [BITS(0.0)[:3]] * 2 + [BITS(1.0)[:3]] * 2
    with pytest.raises(ValueError, match="one shape"):
        colour_image(bits, kinds[:1], 24)


@pytest.mark.parametrize(("plane", "letters"), [("axial", "LR"), ("coronal", "LR"), ("sagittal", "PA")])
def test_the_second_axis_points_up_and_the_first_to_the_right(plane: str, letters: str) -> None:
    anatomy = torch.zeros(12, 20)
    anatomy[11, 19] = 1.0  # right and anterior, right and superior, or anterior and superior
    layer = picture("conv", 16)
    layer.majority[15, 0] = Class.NOISE  # type: ignore[index,call-overload]
    figure = heatmap([layer], anatomy, "t", "f", plane=plane)
    shown = np.asarray(figure.axes[0].images[0].get_array())
    assert shown.shape == (20, 12) and shown[0, 11] == 1.0
    coloured = np.asarray(figure.axes[1].images[0].get_array())
    assert tuple(coloured[15, 15]) == to_rgb(COLOURS[Class.NOISE])
    left, right = (t for t in figure.axes[0].texts if len(t.get_text()) == 1)
    assert (left.get_text() + right.get_text()) == letters and left.get_position()[0] < right.get_position()[0]


def test_without_anatomy_a_map_is_drawn_as_an_array() -> None:
    layer = picture("conv", 16)
    layer.majority[3, 0] = Class.NAN  # type: ignore[index,call-overload]
    figure = heatmap([layer], None, "t", "f")
    assert tuple(np.asarray(figure.axes[0].images[0].get_array())[3, 0]) == to_rgb(COLOURS[Class.NAN])


def text_boxes(figure: Figure) -> list[tuple[str, Bbox]]:
    """Return each text that is drawn with its box in pixels."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    texts = [artist for artist in figure.findobj(Text) if isinstance(artist, Text)]
    boxes = [
        (t.get_text(), t.get_window_extent(canvas.get_renderer())) for t in texts if t.get_text() and t.get_visible()
    ]
    return [(text, box) for text, box in boxes if box.width > 0]


FOOTER = (
    "n = 10 samples and the IEEE run; mode random, seed 0; CNH, p = .95; 2 threads; some processor of some name. " * 4
)


@pytest.mark.parametrize("count", [1, 7, 20])
@pytest.mark.parametrize("kinds", [(Class.NUMBER,), tuple(Class)], ids=["bits", "classes"])
@pytest.mark.parametrize("shape", [(256, 256), (233, 150)])
def test_nothing_leaves_the_page_or_overlaps(count: int, kinds: tuple[Class, ...], shape: tuple[int, int]) -> None:
    names = [f"network.stages.{k}.blocks.17.attention_projection:max_unpool2d:2" for k in range(count)]
    figure = heatmap([picture(n, 16, kinds) for n in names], np.ones(shape), "A title of some length " * 6, FOOTER)
    assert figure.get_size_inches()[0] == 7.0
    boxes = text_boxes(figure)
    page = figure.bbox
    outside = [text for text, b in boxes if b.x0 < -1 or b.x1 > page.x1 + 1 or b.y0 < -1 or b.y1 > page.y1 + 1]
    assert outside == []
    inner = [(text, b.shrunk(0.97, 0.6)) for text, b in boxes]  # lines of text share the space between them
    assert [(s, t) for (s, a), (t, b) in itertools.combinations(inner, 2) if a.overlaps(b)] == []
    sizes = {tuple(np.round(axes.get_position().size, 6)) for axes in figure.axes if axes.images}
    assert len(sizes) == 1  # every panel has the size of the others


def test_the_legend_has_the_classes_that_occur() -> None:
    figure = heatmap([picture("a", 16, (Class.NUMBER, Class.NOISE, Class.ZERO)), picture("b", 8)], None, "t", "f")
    legend = next(axes.get_legend() for axes in figure.axes if axes.get_legend() is not None)
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == [WORDS[Class.NOISE], WORDS[Class.ZERO]]


def test_order_picks_and_orders_layers(tmp_path: Path) -> None:
    layers = [picture(name) for name in ("a", "b", "c")]
    figure = heatmap(layers, None, "t", "f", order=["c", "a"])
    captions = [axes.texts[0].get_text() for axes in figure.axes if axes.images]
    assert captions == ["1  c", "2  a"]
    figure.savefig(tmp_path / "h.png", dpi=100)
    assert (tmp_path / "h.png").stat().st_size > 5000
    with pytest.raises(ValueError, match="'d', which is none"):
        heatmap(layers, None, "t", "f", order=["d"])
    with pytest.raises(ValueError, match="one layer or more"):
        heatmap([], None, "t", "f")
    with pytest.raises(ValueError, match="axial, coronal or sagittal"):
        heatmap(layers, None, "t", "f", plane="oblique")


def unet() -> list[Info]:
    names = []
    for block in ("inp", "encode1", "encode2", "bottleneck"):
        names += [f"{block}.{part}" for part in ("prelu", "conv0", "bn1", "prelu:2", "conv1", "bn2")]
        names += [f"{block}.maxpool"] if block != "bottleneck" else []
    for block in ("decode2", "decode1"):
        names += [f"{block}.unpool", f"{block}:maximum", f"{block}.conv0", f"{block}.bn4"]
    return [Info(name) for name in [*names, ":cat", "output.conv0", "output.bn1", "classifier.conv"]]


def test_a_selection_has_the_end_of_each_block_the_unpoolings_and_the_output() -> None:
    assert [info.name for info in select_layers(unet(), 20)] == [
        "inp.maxpool", "encode1.maxpool", "encode2.maxpool", "bottleneck.bn2", "decode2.unpool", "decode2.bn4",
        "decode1.unpool", "decode1.bn4", ":cat", "output.bn1", "classifier.conv",
    ]  # fmt: skip


def test_few_layers_are_all_drawn() -> None:
    few = [Info(name) for name in ("conv", "pool", "fc")]
    assert select_layers(few, 20) == few


def test_a_model_inside_a_wrapper_is_opened_to_its_blocks() -> None:
    wrapped = [Info(f"model.net.{info.name.lstrip(':')}") for info in unet()]
    assert len(select_layers(wrapped, 20)) == 11


@pytest.mark.parametrize("limit", [1, 2, 3, 5, 20])
def test_a_long_flat_model_is_thinned_to_the_limit_and_keeps_its_end(limit: int) -> None:
    flat = [Info(f"{k}.conv" if k != 40 else "40.unpool") for k in range(100)]
    chosen = [info.name for info in select_layers(flat, limit)]
    assert len(chosen) <= limit and chosen[-1] == "99.conv" and len(set(chosen)) == len(chosen)
    assert limit == 1 or "40.unpool" in chosen
    assert limit < 20 or len(chosen) == 20
    assert chosen == sorted(chosen, key=lambda name: int(name.split(".")[0]))
    with pytest.raises(ValueError, match="limit of 1"):
        select_layers(flat, 0)


def test_names_are_short_and_keep_their_ends() -> None:
    assert components("a.b:max_unpool2d:2") == ["a", "b", "max_unpool2d"]
    assert components("prelu:2") == ["prelu"] and components(":cat") == ["cat"]
    assert components("a:max_pool2d:2.indices") == ["a", "max_pool2d"]
    assert short_names(["net.a.conv", "net.b.conv"]) == ["a.conv", "b.conv"]
    assert short_names([":cat", "conv"]) == ["cat", "conv"]
    assert short_names(["conv"]) == ["conv"]
    assert short_names(["stages.3.blocks.17.attention.conv:2"], 20) == ["…17.attention.conv:2"]
    assert short_names(["a_component_that_is_longer_than_any_panel"], 12) == ["a_c…ny_panel"]
    assert all(len(n) <= w for w in range(5, 40) for n in short_names(["stages.3.blocks.17.attention.conv:2"], w))
