"""Average pools with NaN against explicit loops, and against torch without."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from nanops.errors import InputError
from nanops.functional import reduction
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

POLICIES = ["zero", "mean"]
each_policy = pytest.mark.parametrize("policy", POLICIES)


def adaptive(x, size, policy):
    return getattr(reduction, f"nan_adaptive_avg_pool{x.dim() - 2}d")(x, size, policy=policy)


def sliding(x, *window, policy, **options):
    return getattr(reduction, f"nan_avg_pool{x.dim() - 2}d")(x, *window, policy=policy, **options)


@settings(max_examples=40, deadline=None)
@given(x=images(), out=st.lists(st.integers(1, 5), min_size=3, max_size=3), policy=st.sampled_from(POLICIES))
def test_a_regions_mean_is_that_of_its_valid_values_or_of_nan_as_zero(x, out, policy):
    size = tuple(out[: x.dim() - 2])
    y = call_untouched(lambda t: adaptive(t, size, policy), x)
    expected = twin.adaptive_avg_pool(x.numpy(), size, policy)
    np.testing.assert_allclose(y.numpy(), expected, rtol=1e-12, atol=1e-12, equal_nan=True)


@settings(max_examples=40, deadline=None)
@given(
    x=images(),
    kernel=st.integers(1, 2),
    stride=st.integers(1, 3),
    padding=st.integers(0, 1),
    include=st.booleans(),
    policy=st.sampled_from(POLICIES),
)
def test_a_windows_mean_is_that_of_its_valid_values_or_of_nan_as_zero(x, kernel, stride, padding, include, policy):
    padding = min(padding, kernel // 2)
    include = include and (policy == "zero" or not padding)
    y = call_untouched(lambda t: sliding(t, kernel, stride, padding, count_include_pad=include, policy=policy), x)
    expected = twin.avg_pool(x.numpy(), kernel, stride, padding, include, policy)
    np.testing.assert_allclose(y.numpy(), expected, rtol=1e-12, atol=1e-12, equal_nan=True)


@each_policy
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_without_nan_it_is_torch_bit_for_bit(policy, dtype, dims):
    for layout in FORMATS[dims + 2]:
        x = image(2, 5, *(5, 6, 4)[:dims], dtype=dtype, layout=layout)
        cases = [(adaptive(x, 3, policy), getattr(F, f"adaptive_avg_pool{dims}d")(x, 3))]
        if dims < 3 or dtype.itemsize > 2:  # torch has no avg_pool3d of half precision on the CPU
            own = getattr(F, f"avg_pool{dims}d")
            cases.append((sliding(x, 2, policy=policy), own(x, 2)))
            cases.append((sliding(x, 3, 2, 1, True, False, policy=policy), own(x, 3, 2, 1, True, False)))
        for y, own in cases:
            assert same_bits(y, own) and y.stride() == own.stride()


@each_policy
def test_regions_without_nan_keep_torchs_bits(policy):
    clean = image(2, 3, 7, 7)
    x = clean.clone()
    x[0, 1, 0, 0] = torch.nan
    own, y = F.adaptive_avg_pool2d(clean, 3), adaptive(x, 3, policy)
    assert (y == own).sum() == y.numel() - 1 and y[0, 1, 0, 0] != own[0, 1, 0, 0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_rounded_once(dtype):
    x = (image(1, 2, 64, 64, rate=0.3, dtype=torch.float64) + 100).to(dtype)
    y = adaptive(x, 1, "mean")
    expected = torch.from_numpy(twin.adaptive_avg_pool(x.double().numpy(), (1, 1), "mean"))
    assert same_bits(y, expected.to(dtype))


def test_none_keeps_an_axis_and_a_sample_needs_no_batch():
    x = image(2, 3, 6, 5, rate=0.2)
    assert adaptive(x, (None, 2), "zero").shape == (2, 3, 6, 2)
    alone = reduction.nan_adaptive_avg_pool2d(x[1], (2, 2), policy="mean")
    assert same_bits(alone, adaptive(x, (2, 2), "mean")[1])
    assert same_bits(adaptive(x, (None, None), "mean"), x)


def test_an_infinity_is_a_value():
    x = torch.tensor([[[torch.inf, torch.nan, 1.0, 2.0]]])
    assert same_bits(adaptive(x, 2, "mean"), torch.tensor([[[torch.inf, 1.5]]]))
    assert same_bits(adaptive(x, 2, "zero"), torch.tensor([[[torch.inf, 1.5]]]))


def test_a_divisor_is_torchs_business():
    x = image(1, 2, 4, 4, rate=0.2)
    own = F.avg_pool2d(x.nan_to_num(0.0), 2, divisor_override=3)
    assert same_bits(reduction.nan_avg_pool2d(x, 2, divisor_override=3), own)


@each_policy
def test_each_sample_is_pooled_alone(policy):
    x = image(3, 5, 6, 7, rate=0.3)
    x[2] = torch.nan
    together = adaptive(x, 2, policy)
    for n in range(3):
        assert same_bits(adaptive(x[n : n + 1], 2, policy)[0], together[n])


@each_policy
def test_gradients_are_right_and_without_nan(policy):
    x = image(1, 2, 3, 4, rate=0.3, dtype=torch.float64)
    x[0, 1, :2] = torch.nan
    assert gradcheck_valid(lambda t: adaptive(t, 2, policy), x)
    (found,) = gradients(lambda t: adaptive(t, 2, policy), x)
    assert found.isfinite().all() and (found[x.isnan()] == 0).all() and (found != 0).any()


@each_policy
def test_one_graph_gives_the_same_numbers(policy):
    run = compiled(lambda t: adaptive(t, 2, policy))
    for rate in (0.3, 0.0):
        x = image(2, 2, 3, 4, rate=rate)
        torch.testing.assert_close(run(x), adaptive(x, 2, policy), equal_nan=True)


X = image(1, 1, 4, 4)
MESSAGES = {
    "policy": (
        lambda: reduction.nan_adaptive_avg_pool2d(X, 1, policy="means"),
        "Expected policy to be one of zero, mean, got 'means'; did you mean 'mean'?",
    ),
    "axes": (
        lambda: reduction.nan_adaptive_avg_pool3d(X[0], 1),
        "Expected x of shape (N, C, ...) or (C, ...) with 3 spatial axes, got (1, 4, 4).",
    ),
    "integers": (
        lambda: reduction.nan_avg_pool2d(X.int(), 2),
        "Expected x of a floating-point dtype, got torch.int32.",
    ),
    "output-size": (
        lambda: reduction.nan_adaptive_avg_pool2d(X, (1, 2, 3)),
        "Expected output_size to be one integer or 2, each at least 1, got (1, 2, 3).",
    ),
    "padding": (
        lambda: reduction.nan_avg_pool2d(X, 2, padding=2),
        "Expected padding of at most half of the kernel (2, 2), got (2, 2).",
    ),
    "counted-padding": (
        lambda: reduction.nan_avg_pool2d(X, 2, padding=1, policy="mean"),
        'Expected count_include_pad=False for padding with policy "mean", got padding (1, 1).',
    ),
    "divisor": (
        lambda: reduction.nan_avg_pool2d(X, 2, divisor_override=3, policy="mean"),
        'Expected no divisor_override with policy "mean", got 3.',
    ),
}


@pytest.mark.parametrize("case", MESSAGES)
def test_an_error_names_what_was_expected_and_what_arrived(case):
    call, message = MESSAGES[case]
    with pytest.raises(InputError) as error:
        call()
    assert str(error.value) == message
