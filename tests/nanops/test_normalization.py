"""Norms of the valid values against explicit loops, and against torch where there is no NaN."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings

from nanops.errors import InputError
from nanops.functional.normalization import nan_batch_norm, nan_group_norm, nan_instance_norm, nan_layer_norm
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
from tests.reference import normalization_twin as twin

EPS = 1e-4
W, B = torch.tensor([0.5, -1.5, 2.0, 1.25]), torch.tensor([0.25, 3.0, -1.0, 0.0])
MEAN, VAR = torch.tensor([0.5, 1.0, 1.5, -1.0]), torch.tensor([1.0, 4.0, 2.0, 0.5])


def wide_affine(x):
    """Return a layer norm's weight and bias for the last two axes of x."""
    return tuple(image(*x.shape[-2:], seed=s, dtype=x.dtype) for s in (7, 8))


# name -> (ours, torch's, twin): functions of x (N, 4, ...), weight, bias
NORMS = {
    "batch": (
        lambda x, w, b: nan_batch_norm(x, None, None, w, b, True, eps=EPS),
        lambda x, w, b: F.batch_norm(x, None, None, w, b, True, eps=EPS),
        lambda x, w, b: twin.batch_norm(x, w, b, EPS),
    ),
    "instance": (
        lambda x, w, b: nan_instance_norm(x, weight=w, bias=b, eps=EPS),
        lambda x, w, b: F.instance_norm(x, weight=w, bias=b, eps=EPS),
        lambda x, w, b: twin.instance_norm(x, w, b, EPS),
    ),
    "group": (
        lambda x, w, b: nan_group_norm(x, 2, w, b, EPS),
        lambda x, w, b: F.group_norm(x, 2, w, b, EPS),
        lambda x, w, b: twin.group_norm(x, 2, w, b, EPS),
    ),
    "layer": (
        lambda x, w, b: nan_layer_norm(x, x.shape[-2:], w, b, EPS),
        lambda x, w, b: F.layer_norm(x, x.shape[-2:], w, b, EPS),
        lambda x, w, b: twin.layer_norm(x, 2, w, b, EPS),
    ),
}
each_norm = pytest.mark.parametrize("name", NORMS)


def parameters(name, x, dtype=None):
    found = wide_affine(x) if name == "layer" else (W, B)
    return tuple(p.to(dtype or x.dtype) for p in found)


def on(name, x, kind=0):
    """Return ours (0) or torch's (1) result."""
    return NORMS[name][kind](x, *parameters(name, x))


@each_norm
@settings(max_examples=25, deadline=None)
@given(x=images(channels=4))
def test_statistics_are_those_of_the_valid_values(name, x):
    w, b = parameters(name, x)
    y = call_untouched(lambda t: NORMS[name][0](t, w, b), x)
    expected = NORMS[name][2](x.numpy(), w.numpy(), b.numpy())
    np.testing.assert_allclose(y.numpy(), expected, rtol=1e-9, atol=1e-9, equal_nan=True)


@each_norm
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_without_nan_it_is_torch_bit_for_bit(name, dtype, dims):
    for layout in FORMATS[dims + 2]:
        x = image(3, 4, *(5, 4, 3)[:dims], dtype=dtype, layout=layout)
        y, own = on(name, x), on(name, x, 1)
        assert same_bits(y, own) and y.stride() == own.stride()


@each_norm
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_group_without_nan_keeps_torchs_bits_beside_one_with_nan(name, dtype):
    for layout in FORMATS[4]:
        clean = image(3, 4, 5, 4, dtype=dtype, layout=layout)
        x = clean.clone(memory_format=torch.preserve_format)
        x[0, 0, 1, 2] = torch.nan
        own = on(name, clean, 1)
        y = on(name, x)
        untouched = {"batch": (slice(None), slice(1, None)), "group": (0, slice(2, None))}.get(
            name, (0, slice(1, None))
        )
        assert same_bits(y[untouched], own[untouched])
        assert name == "batch" or same_bits(y[1:], own[1:])
        assert y.stride() == own.stride() and y.dtype == dtype


@each_norm
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_rounded_once(name, dtype):
    """Sums of 4096 values near 100 would overflow or stall in half precision."""
    x = (image(1, 4, 32, 32, rate=0.3, dtype=torch.float64) + 100).to(dtype)
    w, b = parameters(name, x)
    y = NORMS[name][0](x, w, b)
    expected = torch.from_numpy(NORMS[name][2](x.double().numpy(), w.double().numpy(), b.double().numpy()))
    unit = torch.finfo(dtype).eps
    torch.testing.assert_close(y.double(), expected, rtol=unit, atol=1e-4, equal_nan=True)


@pytest.mark.parametrize("name", ["instance", "group", "layer"])
def test_each_sample_is_normalised_alone(name):
    x = image(3, 4, 5, 6, rate=0.3)
    x[1] = torch.nan
    x[2] *= 1e6
    together = on(name, x)
    for n in range(3):
        torch.testing.assert_close(on(name, x[n : n + 1])[0], together[n], rtol=1e-6, atol=1e-6, equal_nan=True)
        assert torch.equal(x[n].isnan(), together[n].isnan())


@each_norm
def test_a_group_without_a_valid_value_stays_nan_and_one_with_a_single_value_becomes_the_bias(name):
    x = torch.full((2, 4, 3, 3), torch.nan)
    x[0, 0, 1, 1] = 5.0
    y = on(name, x)
    assert torch.equal(y.isnan(), x.isnan())
    assert y[0, 0, 1, 1] == (parameters(name, x)[1][1, 1] if name == "layer" else B[0])


def test_an_infinity_turns_its_group_into_nan_as_in_torch():
    x = image(2, 4, 3, 3)
    x[0, 0, 0, 0], x[0, 0, 1, 1], x[1, 2, 0, 0] = torch.inf, torch.nan, torch.inf
    y = nan_instance_norm(x)
    assert y[0, 0].isnan().all() and y[1, 2].isnan().all() and y[0, 1:].isfinite().all()


@each_norm
def test_gradients_are_right_on_the_valid_values(name):
    x = image(2, 4, 3, 2, rate=0.3, dtype=torch.float64)
    x[1, 3] = torch.nan
    assert gradcheck_valid(lambda t: on(name, t), x)


@each_norm
def test_no_nan_reaches_a_gradient(name):
    x = image(2, 4, 3, 3, rate=0.3)
    x[1] = torch.nan
    found = gradients(NORMS[name][0], x, *parameters(name, x))
    assert all(g.isfinite().all() for g in found)
    assert (found[0][x.isnan()] == 0).all() and (found[0][0] != 0).any()


def test_batch_norm_in_eval_mode_is_torchs_and_learns_without_nan():
    x = image(2, 4, 3, 3, rate=0.3)

    def run(t, w, b):
        return nan_batch_norm(t, MEAN, VAR, w, b, eps=EPS)

    own = F.batch_norm(x, MEAN, VAR, W, B, eps=EPS)
    assert same_bits(call_untouched(lambda t: run(t, W, B), x), own)
    assert same_bits(run(x.clone().requires_grad_(), W, B).detach(), own)
    found = gradients(run, x, W, B)
    assert all(g.isfinite().all() for g in found) and (found[0][x.isnan()] == 0).all()
    assert same_bits(nan_instance_norm(x, MEAN, VAR, W, B, False, eps=EPS), F.instance_norm(
        x, MEAN, VAR, W, B, False, eps=EPS))  # fmt: skip


@pytest.mark.parametrize("per_instance", [False, True], ids=["batch", "instance"])
def test_running_statistics_follow_the_valid_values(per_instance):
    x = image(3, 4, 3, 3, rate=0.4, dtype=torch.float64)
    x[:, 1] = torch.nan  # no statistics at all
    x[0, 2], x[0, 2, 0, 0] = torch.nan, 1.0  # one value
    mean, var = MEAN.double(), VAR.double()
    expected = twin.running(mean.numpy(), var.numpy(), x.numpy(), per_instance, 0.25)
    norm = nan_instance_norm if per_instance else nan_batch_norm
    norm(x, mean, var, None, None, True, 0.25)
    for found, wanted in zip((mean, var), expected, strict=True):
        np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-12)
    assert mean[1] == MEAN[1] and var[1] == VAR[1]


@pytest.mark.parametrize("norm", [nan_batch_norm, nan_instance_norm])
def test_running_statistics_without_nan_are_torchs(norm):
    own = F.batch_norm if norm is nan_batch_norm else F.instance_norm
    x, ours, theirs = image(3, 4, 3, 3), [MEAN.clone(), VAR.clone()], [MEAN.clone(), VAR.clone()]
    norm(x, *ours, None, None, True)
    own(x, *theirs, None, None, True)
    assert all(same_bits(a, b) for a, b in zip(ours, theirs, strict=True))


@each_norm
def test_one_graph_gives_the_same_numbers(name):
    x = image(2, 4, 3, 3, rate=0.3)
    w, b = parameters(name, x)
    run = compiled(lambda t: NORMS[name][0](t, w, b))
    for case in (x, image(2, 4, 3, 3)):
        torch.testing.assert_close(run(case), on(name, case), equal_nan=True)


def test_one_graph_learns_without_nan():
    x = image(2, 4, 3, 3, rate=0.3)
    run = compiled(lambda t, w, b: nan_group_norm(t, 2, w, b))
    expected = gradients(lambda t, w, b: nan_group_norm(t, 2, w, b), x, W, B)
    for found, wanted in zip(gradients(run, x, W, B), expected, strict=True):
        torch.testing.assert_close(found, wanted)


def test_batch_norm_in_eval_mode_is_one_graph():
    run = compiled(lambda t: nan_batch_norm(t, MEAN, VAR, W, B))
    x = image(2, 4, 3, 3, rate=0.3)
    torch.testing.assert_close(run(x), nan_batch_norm(x, MEAN, VAR, W, B), equal_nan=True)


def test_shapes_are_known_without_values():
    x = torch.empty(2, 4, 3, 3, device="meta")
    assert nan_group_norm(x, 2).shape == nan_instance_norm(x).shape == x.shape


X = image(2, 4, 3, 3)
MESSAGES = {
    "integers": (lambda: nan_group_norm(X.long(), 2), "Expected x of a floating-point dtype, got torch.int64."),
    "batch-axes": (lambda: nan_batch_norm(X[0, 0, 0], MEAN, VAR), "Expected x of shape (N, C, ...), got (3,)."),
    "vector": (lambda: nan_batch_norm(X, MEAN[:2], VAR), "Expected running_mean of shape (4,), got (2,)."),
    "no-statistics": (
        lambda: nan_batch_norm(X, None, None),
        "Expected running_mean and running_var where training=False, got None.",
    ),
    "one-value": (
        lambda: nan_batch_norm(X[:1, :, 0, 0], None, None, training=True),
        "Expected more than one value a channel to train with, got x of shape (1, 4).",
    ),
    "eps": (lambda: nan_layer_norm(X, 3, eps=0.0), "Expected eps to be more than 0, got 0.0."),
    "instance-axes": (
        lambda: nan_instance_norm(X[0, 0]),
        "Expected x of shape (N, C, ...) with one to three spatial axes, got (3, 3).",
    ),
    "no-instance-statistics": (
        lambda: nan_instance_norm(X, use_input_stats=False),
        "Expected running_mean and running_var where use_input_stats=False, got None.",
    ),
    "one-position": (
        lambda: nan_instance_norm(X[..., :1, :1]),
        "Expected more than one position an instance, got x of shape (2, 4, 1, 1).",
    ),
    "groups": (lambda: nan_group_norm(X, 3), "Expected num_groups to divide the 4 channels of x, got 3."),
    "normalized-shape": (
        lambda: nan_layer_norm(X, [4, 3]),
        "Expected x to end in the axes (4, 3), got shape (2, 4, 3, 3).",
    ),
    "layer-weight": (lambda: nan_layer_norm(X, [3, 3], W), "Expected weight of shape (3, 3), got (4,)."),
}


@pytest.mark.parametrize("case", MESSAGES)
def test_an_error_names_what_was_expected_and_what_arrived(case):
    call, message = MESSAGES[case]
    with pytest.raises(InputError) as error:
        call()
    assert str(error.value) == message
