"""Values that are not ordinary, and the published operator's traps."""

from dataclasses import replace
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nanops import functional as F
from tests.nanops.convolutions import OWN_WARNING, ROUTES, Case, cases, normal_numbers, on, with_nan
from tests.nanops.images import same_bits

pytestmark = OWN_WARNING

NAN, INF, LARGEST = float("nan"), float("inf"), torch.finfo(torch.float32).max
routes = pytest.mark.parametrize("route", ROUTES)


def plain(x, weight, **options):
    """A case with stride 1 and no padding unless said otherwise."""
    ones = (1,) * (x.ndim - 2)
    return Case(x, weight, None, **({"stride": ones, "padding": (0,) * len(ones), "dilation": ones} | options))


@routes
@settings(max_examples=25, deadline=None)
@given(cases(patterns=["iid", "pixels", "border"], fills=["mean"]), st.lists(st.integers(0, 10**6), max_size=3))
def test_infinities_are_valid_values(route, case, places):
    x = case.x.clone()
    for i, place in enumerate(places):
        x.view(-1)[place % x.numel()] = -INF if i == 1 else INF
    with on(route):
        case = replace(case, x=x, bias=None)
        y, skipped = case.run()
    expected, gone = case.answer()
    assert torch.equal(skipped, gone)
    special = ~expected.isfinite()
    assert torch.equal(y[special].double().nan_to_num(NAN, INF, -INF).isnan(), expected[special].isnan())
    assert same_bits(y[special].double(), expected[special])
    if case.x.isfinite().any():
        assert torch.allclose(y[~special].double(), expected[~special], rtol=1e-3, atol=1e-3)


@routes
def test_infinity_and_nan_in_one_window(route):
    x = torch.tensor([[[INF, NAN, 1.0, 2.0, 3.0, NAN, -INF, 1.0, INF]]])
    w = torch.ones(1, 1, 3)
    with on(route):
        y, skipped = F.nan_conv1d(x, w, threshold=0.5, return_skipped=True)
        high = F.nan_conv1d(x, w, fill="max_normal", generator=torch.Generator().manual_seed(1))
    # inf, (NaN, 1, 2) -> 4.5, 6, (2, 3, NaN) -> 7.5, -inf, -inf (two), inf - inf
    assert same_bits(y, torch.tensor([[[INF, 4.5, 6.0, 7.5, -INF, -INF, NAN]]])) and not skipped.any()
    assert high[0, 0, 0] == INF and high[0, 0, 4] == -INF and abs(high[0, 0, 1] - 5) < 0.02


@routes
def test_windows_of_minus_infinity_have_it_as_their_maximum(route):
    x = torch.tensor([[[-INF, -INF, NAN, 1.0]]])
    with on(route):
        y = F.nan_conv1d(x, torch.ones(1, 1, 3), fill="max_normal", generator=torch.Generator().manual_seed(1))
    assert y[0, 0, 0] == -INF and y[0, 0, 1] == -INF


@routes
@pytest.mark.parametrize("many", [False, True], ids=["few", "many"])
def test_a_sum_may_overflow_where_the_mean_does_not(route, many):
    x = torch.full((1, 4, 6, 6), LARGEST)
    x[0, 0, :: 1 if many else 5] = NAN
    w = torch.full((1, 4, 3, 3), 1 / 64)
    with on(route):
        for padding in (0, 1):
            case = plain(x, w, threshold=0.9, padding=(padding, padding))
            for counted in (True, False):
                y, skipped = replace(case, count_padding=counted).run()
                replace(case, count_padding=counted).holds(y, skipped)
                assert y.isfinite().all()


@routes
def test_denormal_values_keep_their_mean(route):
    x = torch.tensor([[[2.0**-149, 3 * 2.0**-149, NAN, 2.0**-149, 3 * 2.0**-149]]])
    with on(route):
        y = F.nan_conv1d(x, torch.full((1, 1, 3), 2.0**60), threshold=0.9)
    assert same_bits(y, torch.tensor([[[6.0, 6.0, 6.0]]]) * 2.0**-89)


@routes
def test_negative_zeros_are_valid_zeros(route):
    x = torch.tensor([[[-0.0, NAN, -0.0, 5.0]]])
    with on(route):
        y, skipped = F.nan_conv1d(x, torch.ones(1, 1, 3), return_skipped=True)
    assert y[0, 0, 0] == 0 and y[0, 0, 1] == 7.5 and not skipped.any()


@routes
def test_every_nan_is_a_nan(route):
    """Quiet or signalling, of either sign, with any payload."""
    bits = torch.tensor([0x7FC00000, 0x7F800001, -0x00400000, -0x007FFFFF, 0x7FFFFFFF, 0x3F800000], dtype=torch.int32)
    x = bits.view(torch.float32).view(1, 1, 6)
    with on(route):
        assert F.nan_conv1d(x, torch.ones(1, 1, 1)).isnan().tolist() == [[[True] * 5 + [False]]]


@routes
def test_the_mean_is_that_of_the_sample_itself(route):
    """The published code averages over the batch too: 9.0 alone, 61.9 beside a bright neighbour."""
    x = torch.ones(1, 1, 3, 3)
    x[0, 0, 1, 1] = NAN
    both = torch.cat([x, x.nan_to_num(100.0) * 100])
    with on(route):
        assert F.nan_conv2d(x, torch.ones(1, 1, 3, 3)).item() == 9.0
        assert F.nan_conv2d(both, torch.ones(1, 1, 3, 3))[0].item() == 9.0


@routes
@pytest.mark.parametrize("threshold", [0.7, 0.9])
def test_a_share_equal_to_the_threshold_skips(route, threshold):
    """In float32 7 / 10 is less than .7, and 9 / 10 less than .9: the comparison is in float64."""
    for nans in range(11):
        x = torch.ones(1, 10, 4)
        x[0, :nans] = NAN
        with on(route):
            y, skipped = F.nan_conv1d(x, torch.ones(1, 10, 1), threshold=threshold, return_skipped=True)
        assert skipped.all() == skipped.any() == (nans / 10 >= threshold) and torch.equal(y.isnan(), skipped)


@routes
def test_at_threshold_one_a_border_window_is_filled_with_the_padding(route):
    x = torch.full((1, 1, 4, 4), NAN)
    b = torch.tensor([3.0])
    with on(route):
        y, skipped = F.nan_conv2d(x, torch.ones(1, 1, 3, 3), b, padding=1, threshold=1.0, return_skipped=True)
        real, gone = F.nan_conv2d(
            x, torch.ones(1, 1, 3, 3), b, padding=1, threshold=1.0, count_padding=False, return_skipped=True
        )
    inner = torch.zeros(1, 1, 4, 4, dtype=torch.bool)
    inner[..., 1:3, 1:3] = True
    assert torch.equal(skipped, inner) and (y[~inner] == 3.0).all() and y[inner].isnan().all()
    assert gone.all() and real.isnan().all()


@routes
def test_a_window_of_padding_only_is_computed(route):
    x, b = torch.full((1, 2, 3, 3), NAN), torch.tensor([3.0])
    for fill, counted in product(("mean", "max_normal"), (True, False)):
        with on(route):
            y, skipped = F.nan_conv2d(x, torch.ones(1, 2, 2, 2), b, padding=2, count_padding=counted, fill=fill,
                                      return_skipped=True, generator=torch.Generator().manual_seed(1))  # fmt: skip
        assert (y[..., 0, :] == 3.0).all() and (y[..., -1] == 3.0).all()
        assert not skipped[..., 0, :].any() and skipped[..., 2, 2].all()


@routes
@pytest.mark.parametrize("threshold", [0.01, 0.5, 1.0])
def test_a_pointwise_convolution_of_one_channel_is_nan_exactly_where_its_input_is(route, threshold):
    """Appendix A."""
    x = with_nan(normal_numbers(2, 1, 8, 8), "iid")
    with on(route):
        y = F.nan_conv2d(x, normal_numbers(3, 1, 1, 1), threshold=threshold)
    assert torch.equal(y.isnan(), x.isnan().expand_as(y))


@routes
def test_a_group_is_skipped_alone(route):
    x = normal_numbers(1, 4, 5, 5)
    x[:, :2] = NAN
    w = normal_numbers(6, 2, 3, 3)
    with on(route):
        y, skipped = F.nan_conv2d(x, w, groups=2, return_skipped=True)
    assert skipped.shape == (1, 2, 3, 3) and skipped[:, 0].all() and not skipped[:, 1].any()
    assert y[:, :3].isnan().all()
    assert torch.allclose(y[:, 3:], torch.nn.functional.conv2d(x[:, 2:], w[3:]), atol=1e-5)


@routes
def test_an_output_that_nothing_reaches_is_the_bias(route):
    x, b = torch.full((1, 2, 3, 3), NAN), torch.tensor([1.5, -2.0])
    with on(route):
        y, skipped = F.nan_conv_transpose2d(x, torch.ones(2, 2, 1, 1), b, stride=2, return_skipped=True)
        bare = F.nan_conv_transpose2d(x, torch.ones(2, 2, 1, 1), stride=2)
    reached = torch.zeros(5, 5, dtype=torch.bool)
    reached[::2, ::2] = True
    assert torch.equal(skipped[0, 0], reached) and torch.equal(y[0, 0].isnan(), reached)
    assert (y[0, 0][~reached] == 1.5).all() and (y[0, 1][~reached] == -2.0).all() and (bare[0, 0][~reached] == 0).all()


@routes
def test_a_transposed_window_holds_what_contributes_to_the_output(route):
    x = torch.tensor([[[1.0, NAN, 4.0]]])
    w = torch.tensor([[[1.0, 10.0, 100.0]]])
    with on(route):
        y = F.nan_conv_transpose1d(x, w, stride=2, threshold=0.9)
        real = F.nan_conv_transpose1d(x, w, stride=2, threshold=0.9, count_padding=False)
    # Taps 0 and 2 reach even outputs, tap 1 the odd ones: (1, 0), 1, (NaN, 1), NaN, (4, NaN), 4, (0, 4).
    assert same_bits(y, torch.tensor([[[1.0, 10.0, 101.0, NAN, 404.0, 40.0, 400.0]]])) and same_bits(real, y)
