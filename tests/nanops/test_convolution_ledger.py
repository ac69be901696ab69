"""What a call reports: windows, skipped ones, multiply-accumulates; counted here from the twin's masks and by loops."""

from dataclasses import replace
from itertools import product

import pytest
import torch
from hypothesis import given, settings

from nanops import functional as F
from nanops.ledger import listen, listening
from tests.nanops.convolutions import CONV, INSTRUCTIONS, OWN_WARNING, ROUTES, cases, needs_kernels, normal_numbers, on
from tests.nanops.images import compiled

pytestmark = OWN_WARNING
NAN = float("nan")


def taps_of(case, place):
    """Taps of the window at a place of the result, by trying each."""
    kernel = [range(k) for k in case.weight.shape[2:]]
    if not case.transposed:
        return len(list(product(*kernel)))
    axes = list(zip(place, case.padding, case.dilation, case.stride, strict=True))
    return sum(
        all((o + p - k * d) % s == 0 for k, (o, p, d, s) in zip(tap, axes, strict=True)) for tap in product(*kernel)
    )


def expected(case, skipped):
    """Windows, and the multiply-accumulates of all of them and of the skipped ones of each sample."""
    channels = case.x.shape[1] // case.groups
    outputs = case.weight.shape[1] if case.transposed else case.weight.shape[0] // case.groups
    windows = dense = 0
    spared = [0] * len(case.x)
    for place in product(*(range(n) for n in skipped.shape[2:])):
        taps = taps_of(case, place)
        macs = taps * channels * outputs
        windows += case.groups * (taps > 0)
        dense += case.groups * macs
        for n in range(len(case.x)):
            spared[n] += macs * int(skipped[(n, slice(None), *place)].sum())
    return windows, dense, torch.tensor(spared)


@pytest.mark.parametrize("transposed", [False, True], ids=["conv", "transposed"])
@pytest.mark.parametrize("route", ROUTES)
@settings(max_examples=12, deadline=None)
@given(case=cases(fills=["mean"]), other=cases(transposed=True, fills=["mean"]))
def test_a_call_reports_what_the_loops_count(route, transposed, case, other):
    case = other if transposed else case
    with on(route), listen() as calls:
        case.run()
    (call,) = calls
    _, skipped = case.answer()
    windows, dense, spared = expected(case, skipped)
    assert call.operator == f"nan_conv{'_transpose' if transposed else ''}{case.dims}d"
    assert call.route == ("stock" if not case.x.isnan().any() else "torch" if route == "torch" else "compiled")
    assert call.windows == windows and torch.equal(call.skipped, skipped.flatten(1).sum(1))
    assert round(call.macs * windows) == dense and torch.equal(call.spared, spared)
    assert torch.equal(call.executed, dense - spared if call.route == "compiled" else torch.full_like(spared, dense))
    assert not call.uniform.any()
    assert {t.dtype for t in (call.skipped, call.uniform, call.executed, call.spared)} == {torch.int64}


def test_nobody_listening_means_no_report():
    assert not listening()
    with listen() as outer:
        with listen() as inner:
            F.nan_conv1d(torch.ones(1, 1, 3), torch.ones(1, 1, 2))
        F.nan_conv1d(torch.ones(1, 1, 3), torch.ones(1, 1, 2))
    assert len(inner) == 1 and len(outer) == 2 and not listening()


def test_gradients_and_graphs_report_once_too():
    x, w = torch.tensor([[[NAN, NAN, 1.0, 2.0, 3.0]]]), torch.ones(1, 1, 2, requires_grad=True)
    with listen() as calls:
        F.nan_conv1d(x, w).nansum().backward()
        compiled(lambda x, w: F.nan_conv1d(x, w))(x, w)
    assert [(c.operator, c.windows, c.skipped.tolist()) for c in calls] == [("nan_conv1d", 4, [2])] * 2


def background(*shape, seed=0):
    """An image of one vector, but for a square in its middle that is noise and a line of NaN."""
    x = normal_numbers(1, shape[1], *(1,) * (len(shape) - 2), seed=seed).expand(shape).clone()
    x[..., 4:8, 4:8] = normal_numbers(*shape[:2], 4, 4, seed=seed + 1)
    return x


def flat_windows(x, kernel, groups=1):
    """Windows without padding that are the first pixel's vector everywhere, (N, groups, *out), by loops."""
    n, c, h, w = x.shape
    out = torch.zeros(n, groups, h - kernel + 1, w - kernel + 1, dtype=torch.bool)
    for i, g, y, z in product(*map(range, out.shape)):
        part = x[i, g * c // groups : (g + 1) * c // groups]
        out[i, g, y, z] = bool((part[:, y : y + kernel, z : z + kernel] == part[:, :1, :1]).all())
    return out


@needs_kernels
@pytest.mark.parametrize("route", INSTRUCTIONS)
@pytest.mark.parametrize("groups", [1, 2])
def test_uniform_windows_change_no_bit_and_are_reported(route, groups):
    x, w, b = background(2, 4, 14, 13), normal_numbers(6, 4 // groups, 3, 3), normal_numbers(6)
    x[0, 1, 10] = NAN
    for padding, fill in product((0, 1), ("mean", "max_normal")):
        results = []
        with on(route), listen() as calls:
            for uniform in (False, True):
                g = torch.Generator().manual_seed(1)
                y, skipped = F.nan_conv2d(x, w, b, padding=padding, groups=groups, uniform=uniform, threshold=0.3,
                                          fill=fill, generator=g, return_skipped=True)  # fmt: skip
                results.append(y)
        assert torch.equal(results[0].nan_to_num(9), results[1].nan_to_num(9))
        flat = flat_windows(x, 3, groups).flatten(1).sum(1)
        macs = 9 * (4 // groups) * (6 // groups)
        gone = skipped.flatten(1).sum(1)
        assert torch.equal(calls[1].uniform, flat) and not calls[0].uniform.any() and flat.min() > 20
        assert torch.equal(calls[1].executed, (calls[1].windows - gone - flat) * macs) and calls[1].route == "compiled"


@needs_kernels
@pytest.mark.parametrize("route", INSTRUCTIONS)
def test_uniform_windows_without_nan(route):
    x, w, b = background(2, 3, 14, 13), normal_numbers(6, 3, 3, 3), normal_numbers(6)
    with on(route), listen() as calls:
        y = F.nan_conv2d(x, w, b, uniform=True)
        noise = F.nan_conv2d(normal_numbers(2, 3, 9, 9), w, b, uniform=True)
    assert [c.route for c in calls] == ["compiled", "stock"]
    assert calls[0].uniform.min() > 20 and not calls[1].uniform.any()
    assert torch.allclose(y, torch.nn.functional.conv2d(x, w, b), rtol=1e-5, atol=1e-5)
    assert torch.equal(noise, torch.nn.functional.conv2d(normal_numbers(2, 3, 9, 9), w, b))


@needs_kernels
@pytest.mark.parametrize("route", INSTRUCTIONS)
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_the_background_behind_a_padded_convolution_is_known_too(route, dims):
    """Its outermost pixels differ from it, and from each other."""
    conv, size = getattr(torch.nn.functional, f"conv{dims}d"), 32
    x = conv(torch.ones(1, 2, *(size,) * dims), normal_numbers(3, 2, *(3,) * dims), padding=1)
    x = torch.where(torch.isclose(x, x[(..., *(16,) * dims)].view(1, 3, *(1,) * dims)), 0.25, x)  # the same bits
    with on(route), listen() as calls:
        CONV[dims](x, normal_numbers(4, 3, *(3,) * dims, seed=1), padding=1, uniform=True)
    assert calls[0].uniform.item() == (size - 4) ** dims


@needs_kernels
@pytest.mark.parametrize("route", INSTRUCTIONS)
def test_negative_zero_is_no_background_of_zeros(route):
    """Bit for bit: 0 and -0 differ."""
    x = torch.zeros(1, 1, 8, 8)
    x[0, 0, 3, 3], x[0, 0, 7, 4] = -0.0, NAN
    with on(route), listen() as calls:
        F.nan_conv2d(x, torch.ones(1, 1, 1, 1), uniform=True)
        F.nan_conv2d(x, torch.ones(1, 1, 3, 3), uniform=True, threshold=1.0)
    assert [c.uniform.item() for c in calls] == [62, 36 - 9 - 3]


@needs_kernels
@pytest.mark.parametrize("route", INSTRUCTIONS)
def test_a_background_with_nan_is_filled_like_any_window(route):
    x = background(1, 3, 14, 13)
    x[:, 0] = torch.where(x[:, 0] == x[0, 0, 0, 0], NAN, x[:, 0])
    w = normal_numbers(4, 3, 3, 3)
    with on(route), listen() as calls:
        y, plain = (F.nan_conv2d(x, w, uniform=u) for u in (True, False))
        skipped = F.nan_conv2d(x, w, uniform=True, threshold=0.3)
    assert torch.equal(y, plain) and calls[0].uniform.item() > 20
    assert calls[2].uniform.item() == 0 and calls[2].skipped.item() > 20 and skipped.isnan().any()


@pytest.mark.parametrize("route", ROUTES)
def test_without_equal_pixels_near_the_corners_uniform_is_off(route):
    x = normal_numbers(1, 3, 9, 9)
    x[0, 0, 0, 0] = NAN
    w = normal_numbers(4, 3, 3, 3)
    with on(route), listen() as calls:
        on_, off = (F.nan_conv2d(x, w, uniform=u, threshold=0.9) for u in (True, False))
    assert torch.equal(on_, off) and not calls[0].uniform.any()


@pytest.mark.parametrize("route", ROUTES)
@settings(max_examples=8, deadline=None)
@given(case=cases(patterns=["unpool", "cluster", "border"], fills=["mean"]))
def test_uniform_holds_for_every_geometry(route, case):
    with on(route):
        case.holds(*case.run(uniform=True), uniform=True)


@pytest.mark.parametrize("route", ROUTES)
@settings(max_examples=8, deadline=None)
@given(case=cases(transposed=True, patterns=["unpool", "cluster", "border"], fills=["mean"]))
def test_uniform_holds_for_every_transposed_geometry(route, case):
    with on(route):
        flat = replace(case, x=torch.where(case.x.isnan(), NAN, 1.0))
        case.holds(*case.run(uniform=True), uniform=True)
        flat.holds(*flat.run(uniform=True), uniform=True)
