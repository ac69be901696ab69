"""What was skipped is counted by call, layer and slice, as windows and as multiply-accumulates."""

import csv
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import nanops
from nanops import InputError
from nanops.functional.convolution import nan_conv2d
from tests.nanops.nets import Functional, Modules, image, seeded, untied


class Two(nn.Module):
    """A 1x1 convolution of one channel, and a 3x3 one of two channels."""

    def __init__(self):
        super().__init__()
        self.point = nn.Conv2d(1, 2, 1)
        self.wide = nn.Sequential(nn.Conv2d(2, 3, 3))

    def forward(self, x):
        return self.wide(self.point(x))


def holes():
    """Return two images of 4x4: the first has NaN in its upper half, the second none."""
    x = torch.rand(2, 1, 4, 4)
    x[0, :, :2] = torch.nan
    return x


def count(model, *inputs, **options):
    with torch.inference_mode(), nanops.count_skipped(model, **options) as skipped:
        for x in inputs:
            model(x)
    return skipped


def test_counts_agree_with_counts_by_hand():
    skipped = count(nanops.convert(Two(), None), holes())
    point, wide = skipped.layers["point"], skipped.layers["wide.0"]
    # 1x1: 16 windows of 1 x 2 products, 8 of them NaN. 3x3 at threshold 1/2: of 4 windows the upper two have 12 of 18.
    assert (point.windows, point.skipped, point.macs, point.spared) == (32, 8, 64, 16)
    assert (wide.windows, wide.skipped, wide.macs, wide.spared) == (8, 2, 8 * 54, 108)
    assert skipped.mean_over_layers == skipped.window_share == (8 / 32 + 2 / 8) / 2
    assert skipped.windows_share == 10 / 40
    assert skipped.mac_weighted == (16 + 108) / (64 + 432)
    assert point.executed == point.macs - point.spared or point.routes == {"torch"}
    assert skipped.executed_share == (point.executed + wide.executed) / (64 + 432)


def test_mean_over_layers_and_mac_weighted_are_different_numbers():
    skipped = count(nanops.convert(seeded(Modules())), image())
    assert skipped.mean_over_layers == pytest.approx(sum(t.window_share for t in skipped.layers.values()) / 3)
    assert skipped.mac_weighted != skipped.mean_over_layers != skipped.windows_share
    assert 0 < skipped.mac_weighted < 1


def test_every_slice_has_its_own_sums_over_forwards():
    skipped = count(nanops.convert(Two(), None), holes(), holes()[:1])
    assert [(s.skipped, s.windows) for s in skipped.slices] == [(10, 20), (0, 20), (10, 20)]
    assert [c.forward for c in skipped.calls] == [0, 0, 1, 1]
    assert [c.layer for c in skipped.calls] == ["point", "wide.0"] * 2


def test_empty_slices_count_for_nothing_where_asked():
    x = torch.cat([holes(), torch.zeros(1, 1, 4, 4)])
    model = nanops.convert(Two(), None)
    assert count(model, x).total.windows == 60 and len(count(model, x).slices) == 3
    skipped = count(model, x, ignore_empty=True)
    assert skipped.total.windows == 40 and [s.skipped for s in skipped.slices] == [10, 0]


@pytest.mark.parametrize("style", [Modules, Functional])
def test_functional_calls_belong_to_the_module_whose_forward_runs(style):
    skipped = count(nanops.convert(seeded(style())), image())
    assert list(skipped.layers) == (["conv1", "middle", "conv2"] if style is Modules else [""])
    assert skipped.total.windows == count(nanops.convert(seeded(Modules())), image()).total.windows


def test_a_stock_model_skips_nothing():
    model = Two()
    skipped = count(model, untied(size=4))
    assert [(n, t.windows, t.skipped, t.macs, t.executed) for n, t in skipped.layers.items()] == [
        ("point", 32, 0, 64, 64), ("wide.0", 8, 0, 432, 432)]  # fmt: skip
    assert skipped.executed_share == 1 and skipped.mean_over_layers == 0 and skipped.total.routes == {"stock"}


@pytest.mark.parametrize("layer", [
    nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2), nn.Conv1d(4, 4, 5, padding="same", groups=4), nn.Conv3d(4, 2, 2),
    nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1, groups=2),
    nn.ConvTranspose1d(4, 2, 4, dilation=2),
], ids=str)  # fmt: skip
def test_stock_layers_count_as_converted_ones_without_nan(layer):
    x = torch.rand(2, 4, *(6,) * len(layer.kernel_size))
    model = nn.Sequential(layer)
    stock, selected, converted = (
        count(m, x).layers["0"] for m in (model, nanops.convert(nn.Sequential(layer, nn.Identity()), layers="1"),
                                          nanops.convert(model)))  # fmt: skip
    for other in (stock, selected):
        assert (other.windows, other.macs, other.executed) == (converted.windows, converted.macs, converted.executed)
        assert other.calls == 1 and other.skipped == 0


def test_layers_that_are_not_selected_count_as_executed():
    model = seeded(Modules())
    skipped = count(nanops.convert(model, layers=["pool", "unpool", "conv1", "conv2"]), image())
    assert list(skipped.layers) == ["conv1", "middle", "conv2"] and skipped.layers["conv2"].skipped > 0
    middle = skipped.layers["middle"]
    assert middle.skipped == 0 and middle.executed == middle.macs and middle.routes == {"stock"}


def test_a_dead_model_has_no_share():
    skipped = count(nn.ReLU(), image())
    assert skipped.calls == [] and math.isnan(skipped.mean_over_layers) and math.isnan(skipped.mac_weighted)
    assert skipped.slices == [] and skipped.layers == {}


def test_blocks_are_nested():
    model = nanops.convert(Two(), None)
    with nanops.count_skipped(model) as outer:
        model(holes())
        with nanops.count_skipped(model) as inner:
            model(holes())
    assert inner.total.skipped * 2 == outer.total.skipped == 20
    assert list(inner.layers) == list(outer.layers) == ["point", "wide.0"]


def test_no_hook_is_left_even_after_an_exception():
    model = nanops.convert(Two(), None)
    with pytest.raises(InputError), nanops.count_skipped(model) as skipped:
        model(holes())
        model(torch.rand(2, 5, 4, 4))
    assert skipped.total.windows == 40
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert not nanops.ledger.listening()


def test_counting_goes_on_after_a_forward_that_failed():
    model = nanops.convert(Two(), None)
    with nanops.count_skipped(model) as skipped:
        with pytest.raises(InputError):
            model.wide(torch.rand(2, 5, 4, 4))
        model(holes())
    assert [c.layer for c in skipped.calls] == ["point", "wide.0"]


def test_counting_changes_no_result():
    model = nanops.convert(seeded(Modules()))
    with nanops.count_skipped(model):
        counted = model(image())
    assert torch.equal(counted, model(image()))


def test_operators_in_a_forward_of_ones_own_are_counted():
    class Own(nn.Module):
        def forward(self, x):
            return F.relu(nan_conv2d(x, torch.ones(1, 1, 1, 1)))

    skipped = count(nn.Sequential(Own()), holes())
    assert skipped.layers["0"].skipped == 8 and skipped.layers["0"].windows == 32


def test_the_table_ends_with_the_total_and_is_written(tmp_path):
    skipped = count(nanops.convert(Two(), None), holes())
    rows = skipped.table()
    assert [r["layer"] for r in rows] == ["point", "wide.0", "total"] and rows[-1]["skipped"] == 10
    skipped.to_csv(tmp_path / "skipped.csv")
    with (tmp_path / "skipped.csv").open() as file:
        assert [r["skipped"] for r in csv.DictReader(file)] == ["8", "2", "10"]


def test_a_model_is_expected():
    with pytest.raises(InputError, match=r"Expected a torch\.nn\.Module"), nanops.count_skipped("model"):
        pass
