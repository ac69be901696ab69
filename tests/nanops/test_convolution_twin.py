"""The slow NaN convolution itself: torch's without NaN, and examples worked by hand with NaN."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy import inf, nan

from tests.nanops.images import image
from tests.reference.convolution_twin import nan_conv, nan_conv_transpose

# stride, padding, dilation, groups, output padding of each axis, kernel
SHAPES = {
    "plain": ((1, 1, 1), (0, 0, 0), (1, 1, 1), 1, (0, 0, 0), (3, 2, 1)),
    "strided": ((2, 3, 2), (1, 0, 2), (1, 1, 1), 1, (1, 0, 1), (3, 3, 2)),
    "dilated": ((1, 2, 1), (2, 1, 1), (2, 1, 2), 2, (0, 1, 0), (2, 3, 2)),
    "depthwise": ((1, 1, 2), (1, 1, 1), (1, 2, 1), 4, (0, 0, 0), (3, 2, 2)),
    "gaps": ((3, 3, 3), (0, 1, 0), (1, 1, 1), 2, (2, 0, 1), (1, 2, 1)),
}
RULES = [("mean", True), ("mean", False), ("max_normal", True), ("max_normal", False)]


@pytest.mark.parametrize("fill, count_padding", RULES)
@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("shape", SHAPES)
def test_without_nan_it_is_torchs_convolution(shape, dims, fill, count_padding):
    stride, padding, dilation, groups, _, kernel = (p[:dims] if isinstance(p, tuple) else p for p in SHAPES[shape])
    x = image(2, 4, *(5, 4, 4)[:dims], dtype=torch.float64)
    w, b = image(4, 4 // groups, *kernel, seed=1, dtype=torch.float64), image(4, seed=2, dtype=torch.float64)
    own = getattr(F, f"conv{dims}d")(x, w, b, stride, padding, dilation, groups)
    y, skipped = nan_conv(
        x.numpy(), w.numpy(), b.numpy(), stride, padding, padding, dilation, groups, 1e-9, fill, count_padding
    )
    np.testing.assert_allclose(y, own.numpy(), rtol=1e-12, atol=1e-12)
    assert skipped.shape == (2, groups, *own.shape[2:]) and not skipped.any()


@pytest.mark.parametrize("count_padding", [True, False])
@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("shape", SHAPES)
def test_without_nan_it_is_torchs_transposed_convolution(shape, dims, count_padding):
    stride, padding, dilation, groups, more, kernel = (p[:dims] if isinstance(p, tuple) else p for p in SHAPES[shape])
    x = image(2, 4, *(3, 4, 3)[:dims], dtype=torch.float64)
    w, b = image(4, 2, *kernel, seed=1, dtype=torch.float64), image(2 * groups, seed=2, dtype=torch.float64)
    own = getattr(F, f"conv_transpose{dims}d")(x, w, b, stride, padding, more, groups, dilation)
    y, skipped = nan_conv_transpose(
        x.numpy(), w.numpy(), b.numpy(), stride, padding, more, dilation, groups, 1e-9, "mean", count_padding
    )
    np.testing.assert_allclose(y, own.numpy(), rtol=1e-12, atol=1e-12)
    assert skipped.shape == (2, groups, *own.shape[2:]) and not skipped.any()


def row(values, weight, bias=0.0, padding=0, threshold=0.5, fill="mean", count_padding=True, **options):
    """Return the convolution of one channel of one sample, and which windows were skipped."""
    y, skipped = nan_conv(
        np.array([[values]]), np.array([[weight]]), np.array([bias]), (1,), (padding,), (padding,), (1,), 1,
        threshold, fill, count_padding, **options,
    )  # fmt: skip
    assert np.array_equal(skipped[0, 0], np.isnan(y[0, 0]))
    return y[0, 0].tolist()


def equal(a, b):
    return np.array_equal(a, b, equal_nan=True)


def test_a_pointwise_convolution_of_one_channel_is_nan_exactly_where_its_input_is():
    """Appendix A."""
    for threshold in (0.1, 0.5, 1.0):
        assert equal(row([1.0, nan, 3.0, nan], [2.0], 1.0, threshold=threshold), [3.0, nan, 7.0, nan])


def test_a_nan_becomes_the_mean_of_its_windows_valid_values():
    # (1, nan, 5): mean 3, 1 + 30 + 500; (nan, 5, 9): mean 7, 7 + 50 + 900
    assert equal(row([1.0, nan, 5.0, 9.0], [1.0, 10.0, 100.0], 0.5), [531.5, 957.5])


def test_a_window_is_skipped_from_the_threshold_on():
    values, weight = [1.0, nan, nan, 4.0, 5.0, 6.0], [1.0, 1.0, 1.0, 1.0]
    assert equal(row(values, weight, threshold=0.5), [nan, nan, 20.0])  # 2/4, 2/4, 1/4
    assert equal(row(values, weight, threshold=0.51), [10.0, 18.0, 20.0])
    assert equal(row(values, weight, threshold=0.25), [nan, nan, nan])


def test_seven_tenths_reach_a_threshold_of_seven_tenths():
    """float32 misses .7 and .9."""
    for nans in (7, 9):
        assert equal(row([nan] * nans + [1.0] * (10 - nans), [1.0] * 10, threshold=nans / 10), [nan])


def test_padding_is_valid_and_counted_unless_it_is_not():
    values, weight = [nan, 6.0], [1.0, 10.0, 100.0]
    # (0, nan, 6): mean 3; (nan, 6, 0): mean 3
    assert equal(row(values, weight, padding=1), [630.0, 63.0])
    # only (nan, 6) counts: r = 1/2
    assert equal(row(values, weight, padding=1, count_padding=False), [nan, nan])
    assert equal(row(values, weight, padding=1, count_padding=False, threshold=0.6), [660.0, 66.0])
    # a border window whose real values are all NaN is computed, with 0 in their place
    assert equal(row([nan, nan, nan], weight, 0.5, padding=1, threshold=1.0), [0.5, nan, 0.5])
    # a window of padding only is computed as padding
    assert equal(row([1.0], [1.0], 0.5, padding=2, count_padding=False), [0.5, 0.5, 1.5, 0.5, 0.5])


def test_the_largest_valid_value_and_a_draw_take_the_place_of_nan():
    draws = []

    def normals(position, element):
        draws.append((position, element))
        return 3.0

    y = row([-5.0, nan, -2.0], [1.0, 10.0, 100.0], padding=1, fill="max_normal", normals=normals, sigma=0.5)
    # (0, -5, nan): 0 + 1.5; (-5, nan, -2): -2 + 1.5; (nan, -2, 0): 0 + 1.5
    assert equal(y, [100.0, -210.0, -18.5])
    assert draws == [((0, 0, 0), (0, 2)), ((0, 0, 1), (0, 1)), ((0, 0, 2), (0, 0))]


def test_groups_and_samples_decide_alone():
    x = np.array([[[nan, 2.0], [3.0, 4.0]], [[1.0, 2.0], [nan, nan]]])
    y, skipped = nan_conv(x, np.ones((4, 1, 1)), None, (1,), (0,), (0,), (1,), 2, 1.0, "mean", True)
    assert equal(y[0], [[nan, 2.0], [nan, 2.0], [3.0, 4.0], [3.0, 4.0]])
    assert skipped.tolist() == [[[True, False], [False, False]], [[False, False], [True, True]]]


def test_an_infinity_is_a_valid_value():
    assert equal(row([inf, nan, 1.0], [1.0, 1.0, 1.0]), [inf])


def transposed(values, weight, count_padding, stride=2, padding=0, threshold=0.5):
    y, skipped = nan_conv_transpose(
        np.array([[values]]), np.array([[weight]]), np.array([0.5]), (stride,), (padding,), (0,), (1,), 1,
        threshold, "mean", count_padding,
    )  # fmt: skip
    assert np.array_equal(skipped[0, 0], np.isnan(y[0, 0]))
    return y[0, 0].tolist()


def test_the_window_of_a_transposed_convolution_is_what_contributes():
    weight = [1.0, 10.0, 100.0]
    # outputs 0 to 6 of inputs (2, nan, 4) take (2, -), (2), (nan, 2), (nan), (4, nan), (4), (-, 4)
    assert equal(transposed([2.0, nan, 4.0], weight, True), [2.5, 20.5, nan, nan, nan, 40.5, 400.5])
    assert equal(transposed([2.0, nan, 4.0], weight, True, threshold=0.6), [2.5, 20.5, 202.5, nan, 404.5, 40.5, 400.5])
    # at the border (nan, -) is half NaN, or all of it
    assert equal(transposed([nan, 4.0], weight, True, threshold=0.6), [0.5, nan, 404.5, 40.5, 400.5])
    assert equal(transposed([nan, 4.0], weight, False, threshold=0.6), [nan, nan, 404.5, 40.5, 400.5])


def test_a_transposed_output_that_nothing_contributes_to_is_the_bias():
    assert equal(transposed([nan, 4.0], [1.0], True, stride=3), [nan, 0.5, 0.5, 4.5])
