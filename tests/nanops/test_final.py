"""What becomes of NaN before the argmax, and how many there were."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nanops.errors import InputError
from nanops.functional.final import finalize
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


def counts(x):
    return torch.tensor([sum(v != v for v in sample.flatten().tolist()) for sample in x])


@settings(max_examples=30, deadline=None)
@given(x=images(), background=st.integers(0, 3))
def test_every_policy_counts_the_nans_of_each_sample(x, background):
    for policy in ("zero", "keep", "background"):
        y, count = finalize(x, policy, background=background % x.shape[1])
        assert torch.equal(count, counts(x)) and count.dtype == torch.int64
        assert y.shape == x.shape and (policy == "keep" or not y.isnan().any())


@settings(max_examples=30, deadline=None)
@given(x=images(), background=st.integers(0, 3))
def test_background_wins_wherever_a_class_is_nan_and_nowhere_else(x, background):
    background %= x.shape[1]
    y, _ = call_untouched(lambda t: finalize(t, "background", background=background), x)
    touched = x.isnan().any(1)
    assert (y.argmax(1)[touched] == background).all()
    for k in range(x.shape[1]):
        assert (y[:, k][touched] == float(k == background)).all()
        assert torch.equal(y[:, k][~touched], x[:, k][~touched])


@pytest.mark.parametrize("dtype", DTYPES)
def test_only_nan_becomes_zero(dtype):
    for layout in FORMATS[4]:
        x = image(2, 3, 4, 4, rate=0.3, dtype=dtype, layout=layout)
        x[0, 0, 0, 0], x[0, 0, 0, 1] = torch.inf, -torch.inf
        y, _ = call_untouched(finalize, x)
        assert torch.equal(y, torch.where(x.isnan(), torch.zeros((), dtype=dtype), x)) and y.dtype == dtype
        assert y.stride() == x.stride()


def test_keep_returns_x_itself():
    x = image(2, 3, rate=0.5)
    assert finalize(x, "keep")[0] is x


@pytest.mark.parametrize("policy", ["zero", "background"])
def test_the_input_is_never_returned_where_it_could_be_replaced(policy):
    x = image(2, 3, 4)
    y, count = finalize(x, policy)
    assert same_bits(x, y) and y.data_ptr() != x.data_ptr() and not count.any()


def test_single_numbers_are_samples_too():
    y, count = finalize(torch.tensor([1.0, torch.nan]))
    assert y.tolist() == [1.0, 0.0] and count.tolist() == [0, 1]


@pytest.mark.parametrize("policy", ["zero", "background"])
def test_gradients_are_right_and_without_nan(policy):
    x = image(2, 3, 4, rate=0.2, dtype=torch.float64)
    assert gradcheck_valid(lambda t: finalize(t, policy)[0], x)
    (found,) = gradients(lambda t: finalize(t, policy)[0], x)
    assert found.isfinite().all() and (found[x.isnan()] == 0).all()


@pytest.mark.parametrize("policy", ["zero", "background", "keep"])
def test_one_graph_gives_the_same_numbers(policy):
    x = image(2, 3, 4, rate=0.2)
    for found, expected in zip(compiled(lambda t: finalize(t, policy))(x), finalize(x, policy), strict=True):
        assert same_bits(found, expected)


X = image(2, 3, 4)
MESSAGES = {
    "policy": (
        lambda: finalize(X, "zeros"),
        "Expected policy to be one of zero, background, keep, got 'zeros'; did you mean 'zero'?",
    ),
    "integers": (lambda: finalize(X.int()), "Expected x of a floating-point dtype, got torch.int32."),
    "axes": (lambda: finalize(X[0, 0], "background"), "Expected x of shape (N, K, ...), got (4,)."),
    "scalar": (lambda: finalize(X[0, 0, 0]), "Expected x of shape (N, ...), got ()."),
    "class": (
        lambda: finalize(X, "background", background=3),
        "Expected background to be one of 3 classes from 0, got 3.",
    ),
}


@pytest.mark.parametrize("case", MESSAGES)
def test_an_error_names_what_was_expected_and_what_arrived(case):
    call, message = MESSAGES[case]
    with pytest.raises(InputError) as error:
        call()
    assert str(error.value) == message
