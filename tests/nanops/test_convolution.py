"""The NaN convolution against explicit loops: masks are the same, values within the rounding of their sums."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings

from tests.nanops.convolutions import OWN_WARNING, ROUTES, cases, on
from tests.nanops.images import same_bits

pytestmark = OWN_WARNING


@pytest.mark.parametrize("route", ROUTES)
@settings(max_examples=50, deadline=None)
@given(case=cases())
def test_every_convolution_is_that_of_the_loops(route, case):
    before = case.x.clone()
    with on(route):
        case.holds(*case.run())
    assert same_bits(case.x, before)


@pytest.mark.parametrize("route", ROUTES)
@settings(max_examples=50, deadline=None)
@given(case=cases(transposed=True, fills=["mean"]))
def test_every_transposed_convolution_is_that_of_the_loops(route, case):
    before = case.x.clone()
    with on(route):
        case.holds(*case.run())
    assert same_bits(case.x, before)


@pytest.mark.parametrize("route", ROUTES)
@settings(max_examples=20, deadline=None)
@given(case=cases(transposed=True, fills=["max_normal"]))
def test_without_spread_transposed_convolutions_fill_with_the_maximum(route, case):
    with on(route):
        case = replace(case, sigma=0.0)
        case.holds(*case.run())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
@settings(max_examples=20, deadline=None)
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
