"""The gap of a window is the least tolerance at which nanops calls it ambiguous."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from analyses.validation.gaps import KINDS, Pooling, poolings, windows
from analyses.validation.sweep import AMOUNTS, ambiguous, amounts, areas, best, rows
from mcaprobe.errors import InputError
from nanops import PAPER, Tolerance
from nanops.functional import aggressive_max_pool2d
from tests.reference import gaps_twin

GEOMETRIES = [(2, 2, 0), (3, 2, 1), (2, 1, 0), (3, 3, 0)]


def image(seed, shape=(1, 2, 9, 8)):
    """Return an image with exact ties, ties within some ulps, and none."""
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(shape, generator=g)
    x[..., :4, :] = 0.25
    x[..., 2:4, :] += torch.randint(0, 40, (*shape[:2], 2, shape[3]), generator=g) * 2.0**-25
    x[..., :2, 4:] = 0
    return x


def pooling(x, kernel, stride, padding):
    return Pooling("pool", windows("pool", nn.MaxPool2d(kernel, stride, padding), x))


@pytest.mark.parametrize("max_ties", [1, 2, 3])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("geometry", GEOMETRIES)
@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_a_gap_is_that_of_the_twin(geometry, kind, max_ties, seed):
    x = image(seed)
    found = pooling(x, *geometry).gaps(kind, max_ties)
    twin = [[gaps_twin.gaps(channel, *geometry, kind, max_ties) for channel in sample] for sample in x.tolist()]
    expected = torch.tensor(twin, dtype=torch.float64)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("max_ties", [1, 2])
@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("tolerance", [*amounts()], ids=lambda t: f"{t.kind}-{t.value:g}")
def test_a_window_is_ambiguous_where_nanops_makes_it_nan(tolerance, geometry, max_ties):
    x = image(3)
    expected = aggressive_max_pool2d(x, *geometry, max_ties=max_ties, tolerance=tolerance)[0].isnan()
    found = ambiguous(pooling(x, *geometry).gaps(tolerance.kind, max_ties), tolerance)
    # nanops compares differences that are rounded to float32, the gap is exact: none of these lies that near.
    assert torch.equal(found, expected)


def test_the_papers_tolerance_is_a_point_of_the_sweep():
    assert any(t.kind == PAPER.kind and abs(t.value - PAPER.value) < 1e-15 for t in amounts())


def test_padding_is_no_value():
    x = torch.tensor([[[[1.0, 1.0]]]])
    gaps = pooling(x, 2, 2, 1).gaps("absolute", 1)
    assert gaps.shape == (1, 1, 1, 2) and torch.isinf(gaps).all()


class Net(nn.Module):
    def __init__(self, pool):
        super().__init__()
        self.first, self.second = pool, nn.MaxPool2d(2)

    def forward(self, x):
        return self.second(self.first(x))


def test_poolings_come_in_the_order_of_calls_and_leave_no_hook():
    net, x = Net(nn.MaxPool2d(2)), image(1, (1, 2, 16, 16))
    first, second = poolings(net, x)
    assert (first.layer, second.layer) == ("first", "second")
    assert first.values.shape == (1, 2, 8, 8, 4) and torch.equal(second.values[..., 0], net(x))
    assert not net.first._forward_hooks


@pytest.mark.parametrize(
    "net, sentence",
    [
        (nn.Conv2d(1, 1, 3), "modules MaxPool2d, got a Conv2d"),
        (Net(nn.MaxPool2d(2, ceil_mode=True)), "without dilation and ceil_mode, got first"),
        (Net(nn.MaxPool2d(2, dilation=2)), "without dilation and ceil_mode, got first"),
        (Net(nn.MaxPool2d(2)).double(), "float32 activations at first"),
    ],
)
def test_other_poolings_are_refused(net, sentence):
    x = image(1, (1, 1, 16, 16))
    with pytest.raises(InputError, match=sentence):
        list(poolings(net, x.double() if "float32" in sentence else x))


def test_the_areas_are_those_of_every_pair_of_windows():
    """Area under the ROC curve: the share of pairs in which the window that changes has the smaller gap."""
    x = image(5)
    p = pooling(x, 2, 2, 0)
    changed = torch.rand(p.values.shape[:-1], generator=torch.Generator().manual_seed(1)) < 0.4
    row = next(r for r in areas({}, p, changed) if (r["kind"], r["max_ties"]) == ("ulps", 1))
    gaps = p.gaps("ulps", 1)
    a, b = gaps[changed][:, None], gaps[~changed][None]
    expected = ((a < b).double() + 0.5 * (a == b).double()).mean()
    assert row["auroc"] == pytest.approx(float(expected), abs=1e-6)
    assert (row["windows"], row["changed"]) == (changed.numel(), int(changed.sum()))


def test_without_a_change_there_is_no_area():
    p = pooling(image(5), 2, 2, 0)
    assert all(r["auroc"] is None for r in areas({}, p, torch.zeros(p.values.shape[:-1], dtype=torch.bool)))


def test_the_best_setting_is_the_smallest_of_equal_ones():
    p = pooling(image(5), 2, 2, 0)
    changed = p.gaps("ulps", 1) <= 4
    found = best(list(rows({"subject": "a"}, p, changed)), "ulps")
    assert found is not None
    tolerance, max_ties, mcc = found
    assert (tolerance.kind, max_ties) == ("ulps", 1) and mcc == 1
    smaller = [v for v in AMOUNTS["ulps"] if v < tolerance.value]
    below = ambiguous(p.gaps("ulps", 1), Tolerance("ulps", smaller[-1]))
    assert tolerance.value <= 4 and not torch.equal(below, changed)


def test_where_nothing_changes_nothing_is_chosen():
    p = pooling(image(5), 2, 2, 0)
    assert best(list(rows({"subject": "a"}, p, torch.zeros(p.values.shape[:-1], dtype=torch.bool)))) is None
