"""The NaN convolution against explicit loops: masks are the same, values within the rounding of their sums."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings

from tests.nanops.convolutions import INSTRUCTIONS, OWN_WARNING, ROUTES, Case, cases, normal_numbers, on, with_nan
from tests.nanops.images import same_bits

pytestmark = OWN_WARNING


@pytest.mark.parametrize("route", ROUTES)
@settings(max_examples=35, deadline=None)
@given(case=cases())
def test_every_convolution_is_that_of_the_loops(route, case):
    before = case.x.clone()
    with on(route):
        case.holds(*case.run())
    assert same_bits(case.x, before)


@pytest.mark.parametrize("route", INSTRUCTIONS)
@pytest.mark.parametrize("count_padding", [True, False])
@pytest.mark.parametrize("pattern", ["pixels", "row", "border", "cluster"])
def test_windows_of_which_taps_are_left_out_are_those_of_the_loops(pattern, count_padding, route):
    """With so many inputs: taps outside the image and, for fill "mean", taps of NaN only."""
    for groups, dilation, fill in ((1, 1, "mean"), (2, 2, "mean"), (1, 1, "max_normal")):
        x = with_nan(normal_numbers(1, groups * 16, 4, 5) + 3, pattern, rate=0.4)
        case = Case(x, normal_numbers(groups * 3, 16, 3, 3, seed=1), normal_numbers(groups * 3, seed=2), (1, 1), (2, 1),
                    (dilation, dilation), groups, 0.9, fill, count_padding)  # fmt: skip
        with on(route):
            case.holds(*case.run())


@pytest.mark.parametrize("route", ROUTES)
@settings(max_examples=35, deadline=None)
@given(case=cases(transposed=True, fills=["mean"]))
def test_every_transposed_convolution_is_that_of_the_loops(route, case):
    before = case.x.clone()
    with on(route):
        case.holds(*case.run())
    assert same_bits(case.x, before)


@pytest.mark.parametrize("route", ROUTES)
@settings(max_examples=15, deadline=None)
@given(case=cases(transposed=True, fills=["max_normal"]))
def test_without_spread_transposed_convolutions_fill_with_the_maximum(route, case):
    with on(route):
        case = replace(case, sigma=0.0)
        case.holds(*case.run())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
@settings(max_examples=15, deadline=None)
@given(case=cases())
def test_every_dtype_is_computed_in_float32_or_wider(dtype, case):
    case = case.to(dtype)
    case.holds(*case.run())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
@settings(max_examples=15, deadline=None)
@given(case=cases(transposed=True, fills=["mean"]))
def test_every_dtype_is_computed_in_float32_or_wider_when_transposed(dtype, case):
    case = case.to(dtype)
    case.holds(*case.run())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@settings(max_examples=15, deadline=None)
@given(case=cases())
def test_narrow_dtypes_in_torch_operations(dtype, case):
    with on("torch"):
        case = case.to(dtype)
        case.holds(*case.run())
