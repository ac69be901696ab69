"""The short way of a NaN convolution gives the bits and the refusals of the long one, and is taken when it should."""

from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import forward_ad

from nanops import count_skipped
from nanops import functional as F
from nanops.errors import InputError
from nanops.functional import direct
from tests.nanops.convolutions import (
    CONV,
    INSTRUCTIONS,
    OWN_WARNING,
    cases,
    needs_kernels,
    normal_numbers,
    on,
    with_nan,
)
from tests.nanops.images import same_bits

pytestmark = [OWN_WARNING, needs_kernels]
LAST = {2: torch.channels_last, 3: torch.channels_last_3d}


@pytest.fixture
def taken(monkeypatch):
    """Count the calls that take the short way."""
    count, own = [], direct.convolve

    def counted(*args):
        y = own(*args)
        count.append(y is not None)
        return y

    monkeypatch.setattr(direct, "convolve", counted)
    return count


def both(x, *args, **options):
    """Return the results of the short and of the long way."""
    operator = CONV[x.ndim - 2]
    return operator(x, *args, **options), operator(x, *args, return_skipped=True, **options)[0]


@pytest.mark.parametrize("route", INSTRUCTIONS)
@settings(max_examples=60, deadline=None)
@given(case=cases(fills=["mean"]), last=st.booleans(), wide=st.booleans())
def test_every_convolution_has_the_bits_of_the_long_way(route, case, last, wide):
    x, w = case.x, case.weight
    if last and case.dims > 1:
        x = x.contiguous(memory_format=LAST[case.dims])
    if wide and case.dims > 1:
        w = w.contiguous(memory_format=LAST[case.dims])
    options = {"threshold": case.threshold, "count_padding": case.count_padding}
    with on(route):
        y, expected = both(x, w, case.bias, *case.steps(), **options)
    strides = [[s for s, n in zip(t.stride(), t.shape, strict=True) if n > 1] for t in (y, expected)]
    assert same_bits(y, expected) and strides[0] == strides[1]


@pytest.mark.parametrize("pattern", ["none", "cluster", "iid", "all"])
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_the_short_way_is_taken_for_tensors_without_gaps(taken, dims, pattern):
    layouts = (torch.contiguous_format, LAST.get(dims, torch.contiguous_format))
    for inputs, groups, layout, wlayout, bias in product((4, 24), (1, 2), layouts, layouts, (None, normal_numbers(70))):
        x = with_nan(normal_numbers(2, inputs, *(9,) * dims), pattern).contiguous(memory_format=layout)
        w = normal_numbers(70, inputs // groups, *(3,) * dims).contiguous(memory_format=wlayout)
        y, expected = both(x, w, bias, 1, 1, 1, groups)
        assert same_bits(y, expected) and y.stride() == expected.stride()
    assert taken and all(taken)


@pytest.mark.parametrize("route", INSTRUCTIONS)
def test_images_are_turned_whatever_their_size(route):
    """Tiles of 64 by 64, octets, and what is left over."""
    for channels, size, outputs in product((1, 7, 8, 65, 72), ((1, 1), (3, 5), (8, 8), (9, 15), (5, 29)), (1, 9, 64)):
        x, w = normal_numbers(2, channels, *size), normal_numbers(outputs, channels, 1, 1)
        x[0, 0, 0, 0] = torch.nan
        with on(route):
            y, expected = both(x, w)
        assert same_bits(y, expected)


def test_other_calls_take_the_long_way(taken):
    x, w = with_nan(normal_numbers(2, 4, 7, 7), "iid"), normal_numbers(6, 4, 3, 3)
    last = x.contiguous(memory_format=torch.channels_last)
    learning = w.clone().requires_grad_()
    F.nan_conv2d(x[..., ::2], w)
    F.nan_conv2d(last.double(), w.double())
    F.nan_conv2d(last, w, uniform=True)
    F.nan_conv2d(last, w, fill="max_normal", generator=torch.Generator())
    F.nan_conv2d(last, learning)
    F.nan_conv2d(last, w, None, [1, 1])
    F.nan_conv2d(last, normal_numbers(4, 1, 3, 3), groups=4)
    F.nan_conv2d(torch._neg_view(last), w)
    with count_skipped(torch.nn.Identity()):
        F.nan_conv2d(last, w)
    assert len(taken) == 9 and not any(taken)
    with torch.no_grad():
        F.nan_conv2d(last, learning)
    assert taken[-1]


def test_views_with_gaps_and_bits_that_negate_are_read_as_they_are(taken):
    x = with_nan(normal_numbers(2, 4, 7, 14), "pixels").contiguous(memory_format=torch.channels_last)[..., ::2]
    w = normal_numbers(6, 4, 3, 6)[..., ::2]
    for v in (x, torch._neg_view(x.contiguous(memory_format=torch.channels_last))):
        y, expected = both(v, w), F.nan_conv2d(v.clone(), w.clone())
        assert same_bits(y[0], expected) and same_bits(y[1], expected)
    negated = F.nan_conv2d(x.contiguous(memory_format=torch.channels_last), torch._neg_view(w.contiguous()))
    assert same_bits(negated, F.nan_conv2d(x.contiguous(memory_format=torch.channels_last), -w))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weight": normal_numbers(6, 3, 3, 3)}, "Expected x with 3 channels"),
        ({"weight": normal_numbers(6, 4, 3)}, "Expected a weight with 4 axes"),
        ({"weight": normal_numbers(6, 4, 3, 3).double()}, "Expected x, weight and bias of one floating dtype"),
        ({"bias": normal_numbers(5)}, r"Expected a bias of shape \(6,\)"),
        ({"stride": 0}, "Expected stride to be"),
        ({"stride": (1, 1, 1)}, "Expected stride to be"),
        ({"padding": "sames"}, "Expected padding to be 'same', 'valid' or integers"),
        ({"padding": -1}, "Expected padding to be"),
        ({"dilation": 9}, "Expected an image of at least"),
        ({"groups": 3}, "Expected groups that divide 4 inputs"),
        ({"groups": 2.0}, "Expected groups that divide 4 inputs"),
        ({"threshold": 0.0}, "Expected a threshold in"),
    ],
)
def test_wrong_arguments_get_the_sentence_of_the_long_way(change, message):
    x = with_nan(normal_numbers(2, 4, 7, 7), "iid").contiguous(memory_format=torch.channels_last)
    for skipped in (False, True):
        with pytest.raises(InputError, match=message):
            F.nan_conv2d(x, **{"weight": normal_numbers(6, 4, 3, 3)} | change, return_skipped=skipped)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # of torch, when it first makes a dual number
def test_derivatives_that_would_be_lost_are_refused():
    x, w = with_nan(normal_numbers(2, 4, 8, 8), "iid"), normal_numbers(6, 4, 3, 3)
    values, ties = F.multi_max_pool2d(x, 2)
    operators = {
        "convolution": lambda v: F.nan_conv2d(v, w), "transposed": lambda v: F.nan_conv_transpose2d(v, w[:4]),
        "pool": lambda v: F.aggressive_max_pool2d(v, 2)[0], "ties": lambda v: F.multi_max_pool2d(v, 2)[0],
    }  # fmt: skip
    for name, operator in operators.items():
        with forward_ad.dual_level(), pytest.raises(RuntimeError, match="in reverse mode"):
            operator(forward_ad.make_dual(x, torch.ones_like(x)))
        with pytest.raises(RuntimeError, match=r"got a transform of torch\.func"):
            torch.func.grad(lambda v, o=operator: o(v).nansum())(x)
        with forward_ad.dual_level():
            assert operator(x) is not None, name  # no tangent, nothing is lost
    with forward_ad.dual_level(), pytest.raises(RuntimeError, match="in reverse mode"):
        F.conservative_max_unpool2d(forward_ad.make_dual(values, torch.ones_like(values)), ties, 2)


@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_vmap_takes_one_sample_after_the_other():
    x, w = with_nan(normal_numbers(3, 2, 4, 8, 8), "iid"), normal_numbers(6, 4, 3, 3)
    y = torch.func.vmap(lambda v: F.nan_conv2d(v, w))(x)
    assert same_bits(y, torch.stack([F.nan_conv2d(v, w) for v in x]))
