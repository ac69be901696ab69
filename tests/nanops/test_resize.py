"""Resizing with the weights of the valid neighbours against explicit loops, and against torch without NaN."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from nanops.errors import InputError
from nanops.functional.resize import nan_interpolate
from tests.nanops.images import (
    DTYPES,
    FORMATS,
    call_untouched,
    compiled,
    gradcheck_valid,
    gradients,
    image,
    images,
    same_bits,
)
from tests.reference import resize_twin as twin

LINEAR = {3: "linear", 4: "bilinear", 5: "trilinear"}
HOW = {
    "up": {"scale_factor": 2},
    "odd": {"scale_factor": 1.7},
    "down": {"scale_factor": 0.6},
    "corners": {"size": 7, "align_corners": True},
    "one": {"size": 1},
    "recomputed": {"scale_factor": 1.7, "recompute_scale_factor": True},
}


@settings(max_examples=60, deadline=None)
@given(
    x=images(),
    out=st.lists(st.integers(1, 6), min_size=3, max_size=3),
    corners=st.booleans(),
    threshold=st.sampled_from([0.2, 0.5, 0.7, 1.0]),
)
def test_the_weights_of_nan_are_left_out(x, out, corners, threshold):
    size = tuple(out[: x.dim() - 2])
    y = call_untouched(
        lambda t: nan_interpolate(t, size, mode=LINEAR[x.dim()], align_corners=corners, threshold=threshold), x
    )
    expected = twin.interpolate(x.numpy(), size, threshold, corners)
    np.testing.assert_allclose(y.numpy(), expected, rtol=1e-9, atol=1e-9, equal_nan=True)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("factor", [2.0, 1.7, 0.6])
def test_a_scale_factor_gives_torchs_coordinates_in_every_dtype(dtype, dims, factor):
    x = image(2, 3, *(5, 6, 4)[:dims], rate=0.3, dtype=dtype)
    y = nan_interpolate(x, scale_factor=factor, mode=LINEAR[x.dim()], threshold=0.8)
    expected = twin.interpolate(x.double().numpy(), y.shape[2:], 0.8, scale_factors=[factor] * dims)
    unit = 64 * torch.finfo(dtype).eps
    np.testing.assert_allclose(y.double().numpy(), expected, rtol=unit, atol=unit, equal_nan=True)


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_without_nan_it_is_torch_bit_for_bit(how, dtype, dims):
    for layout in FORMATS[dims + 2]:
        x = image(2, 5, *(5, 6, 4)[:dims], dtype=dtype, layout=layout)
        own = F.interpolate(x, mode=LINEAR[x.dim()], **HOW[how])
        y = nan_interpolate(x, mode=LINEAR[x.dim()], **HOW[how])
        assert same_bits(y, own) and y.stride() == own.stride()


@pytest.mark.parametrize("dtype", DTYPES)
def test_pixels_that_no_nan_weighs_on_keep_torchs_bits(dtype):
    for layout in FORMATS[4]:
        clean = image(3, 5, 6, 7, dtype=dtype, layout=layout)
        x = clean.clone(memory_format=torch.preserve_format)
        x[1, 2, 3, 3] = torch.nan
        own, y = F.interpolate(clean, scale_factor=1.7, mode="bilinear"), nan_interpolate(x, scale_factor=1.7)
        touched = F.interpolate(x.isnan().double(), scale_factor=1.7, mode="bilinear") > 0
        assert torch.equal(y[~touched], own[~touched]) and y[touched].isnan().any() and not y[touched].isnan().all()
        assert y.stride() == own.stride()


@pytest.mark.parametrize("mode", ["nearest", "nearest-exact"])
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_nearest_copies_nan(mode, dims):
    x = image(2, 3, *(5, 6, 4)[:dims], rate=0.3)
    out = (7, 3, 8)[:dims]
    y = nan_interpolate(x, out, mode=mode)
    assert same_bits(y, F.interpolate(x, out, mode=mode))
    if mode == "nearest":
        assert np.array_equal(y.numpy(), twin.nearest(x.numpy(), out).astype(np.float32), equal_nan=True)
    learning = nan_interpolate(x.clone().requires_grad_(), out, mode=mode)
    assert same_bits(learning.detach(), y)


THRESHOLDS = {  # weights of the NaN are .25 and .75 between it and its neighbours; 1 and 0 on corners
    "at-half": (0.5, [1.0, 1.0, torch.nan, torch.nan, 3.0, 3.0]),
    "at-quarter": (0.25, [1.0, torch.nan, torch.nan, torch.nan, torch.nan, 3.0]),
    "just-above-quarter": (0.2500001, [1.0, 1.0, torch.nan, torch.nan, 3.0, 3.0]),
    "at-one": (1.0, [1.0, 1.0, 1.0, 3.0, 3.0, 3.0]),
}


@pytest.mark.parametrize("case", THRESHOLDS)
def test_a_pixel_is_nan_from_the_threshold_on(case):
    threshold, expected = THRESHOLDS[case]
    x = torch.tensor([[[1.0, torch.nan, 3.0]]])
    y = nan_interpolate(x, scale_factor=2, mode="linear", threshold=threshold)
    assert same_bits(y, torch.tensor([[expected]]))


def test_threshold_one_needs_all_of_the_weight():
    """At a third of the way the weights of two NaNs add up to 1 only up to rounding."""
    x = torch.full((1, 1, 5, 5), torch.nan)
    for size in range(1, 40):
        assert nan_interpolate(x, size, threshold=1.0).isnan().all()
    x[..., 0, 0] = 1.0
    assert (nan_interpolate(x, 39, threshold=1.0)[0, 0, :4, :4] == 1).all()


def test_a_neighbour_of_weight_zero_counts_for_nothing():
    x = torch.tensor([[[1.0, torch.nan, 3.0]]])
    y = nan_interpolate(x, 5, mode="linear", align_corners=True, threshold=0.1)
    assert same_bits(y, torch.tensor([[[1.0, torch.nan, torch.nan, torch.nan, 3.0]]]))


def test_an_infinity_elsewhere_behaves_as_in_torch():
    for value in (torch.inf, -torch.inf):
        clean = image(1, 2, 8, 8)
        clean[0, 0, 6, 6], clean[0, 0, 6, 5] = value, 3e38
        x = clean.clone()
        x[0, 0, 0, 0] = torch.nan
        for how in ({"scale_factor": 2}, {"size": 15, "align_corners": True}):
            own, y = F.interpolate(clean, mode="bilinear", **how), nan_interpolate(x, **how)
            assert same_bits(y[..., 4:, 4:], own[..., 4:, 4:])


def test_an_infinity_beside_a_nan_stays_infinite():
    x = torch.tensor([[[torch.inf, torch.nan, 3.0]]])
    y = nan_interpolate(x, scale_factor=2, mode="linear", threshold=1.0)
    assert same_bits(y, torch.tensor([[[torch.inf, torch.inf, torch.inf, 3.0, 3.0, 3.0]]]))


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_weights_that_add_up_to_the_threshold_reach_it_in_every_kernel(dims):
    """Weights of fifths and sixths give sums of exactly a half, a tenth, ... that float64 misses."""
    for layout in FORMATS[dims + 2]:
        for dtype in DTYPES:
            x = image(1, 6, *(3, 4, 5)[:dims], rate=0.4, layout=layout, dtype=dtype)
            size = (5, 3, 6)[:dims]
            for threshold in (0.2, 0.5, 0.7):
                y = nan_interpolate(x, size, mode=LINEAR[x.dim()], threshold=threshold)
                expected = twin.interpolate(x.double().numpy(), size, threshold)
                assert np.array_equal(y.isnan().numpy(), np.isnan(expected))


def test_each_sample_is_resized_alone():
    x = image(3, 5, 6, 7, rate=0.3)
    x[2] = torch.nan
    together = nan_interpolate(x, scale_factor=1.7)
    for n in range(3):
        assert same_bits(nan_interpolate(x[n : n + 1], scale_factor=1.7)[0], together[n])


@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
def test_gradients_are_right_on_the_valid_values(mode):
    x = image(1, 2, 3, 4, rate=0.3, dtype=torch.float64)
    assert gradcheck_valid(lambda t: nan_interpolate(t, (5, 3), mode=mode, threshold=0.6), x)


@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
def test_no_nan_reaches_a_gradient(mode):
    x = image(2, 2, 3, 4, rate=0.3)
    (found,) = gradients(lambda t: nan_interpolate(t, (5, 3), mode=mode), x)
    assert found.isfinite().all() and (found[x.isnan()] == 0).all() and (found != 0).any()


@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
def test_one_graph_gives_the_same_numbers(mode):
    run = compiled(lambda t: nan_interpolate(t, (5, 3), mode=mode))
    for rate in (0.3, 0.0):
        x = image(2, 2, 3, 4, rate=rate)
        torch.testing.assert_close(run(x), nan_interpolate(x, (5, 3), mode=mode), equal_nan=True)


X = image(1, 1, 4, 4)
MODES = "nearest, nearest-exact, linear, bilinear, trilinear"
MESSAGES = {
    "bicubic": (X, {"size": 2, "mode": "bicubic"}, f"Expected mode to be one of {MODES}, got 'bicubic'"),
    "area": (X, {"size": 2, "mode": "area"}, f"Expected mode to be one of {MODES}, got 'area'."),
    "no-mode": (X, {"size": 2, "mode": None}, f"Expected mode to be one of {MODES}, got None."),
    "threshold-0": (X, {"size": 2, "threshold": 0.0}, "Expected a threshold in (0, 1], got 0.0."),
    "threshold-2": (X, {"size": 2, "threshold": 2}, "Expected a threshold in (0, 1], got 2."),
    "integers": (X.int(), {"size": 2}, "Expected x of a floating-point dtype, got torch.int32."),
    "axes": (
        X[0, 0],
        {"size": 2},
        "Expected x of shape (N, C, ...) with one to three spatial axes, got (4, 4).",
    ),
    "axes-of-mode": (
        X[0],
        {"size": 2},
        "Expected x with 2 spatial axes for mode 'bilinear', got shape (1, 4, 4).",
    ),
    "neither": (X, {}, "Expected either size or scale_factor, got size=None and scale_factor=None."),
    "both": (
        X,
        {"size": 2, "scale_factor": 2},
        "Expected either size or scale_factor, got size=2 and scale_factor=2.",
    ),
    "length": (X, {"size": (1, 2, 3)}, "Expected size to be one number or 2, got (1, 2, 3)."),
    "negative": (X, {"scale_factor": -1.0}, "Expected scale_factor to be more than 0, got -1.0."),
    "fraction": (X, {"size": 2.5}, "Expected size to be whole numbers, got 2.5."),
    "corners": (
        X,
        {"size": 2, "mode": "nearest", "align_corners": True},
        "Expected no align_corners for mode 'nearest', got True.",
    ),
    "recompute": (
        X,
        {"size": 2, "recompute_scale_factor": True},
        "Expected scale_factor to recompute, got size 2.",
    ),
}


@pytest.mark.parametrize("case", MESSAGES)
def test_an_error_names_what_was_expected_and_what_arrived(case):
    x, options, message = MESSAGES[case]
    with pytest.raises(InputError) as error:
        nan_interpolate(x, **options)
    assert str(error.value).startswith(message)
