"""Without NaN a NaN convolution is torch's own, bit for bit; with NaN it has torch's shape, dtype and memory format."""

from itertools import product

import pytest
import torch
import torch.nn.functional as T
from hypothesis import given, settings

from nanops import functional as F
from nanops.errors import InputError
from nanops.functional import convolution_core
from tests.nanops.convolutions import CONV, DTYPES, OWN_WARNING, ROUTES, TRANSPOSE, cases, normal_numbers, on
from tests.nanops.images import FORMATS, same_bits

pytestmark = OWN_WARNING
NAN = float("nan")


@settings(max_examples=60, deadline=None)
@given(case=cases(patterns=["none"]))
def test_without_nan_the_result_is_torchs(case):
    y, skipped = case.run()
    assert torch.equal(y, case.stock()) and y.stride() == case.stock().stride() and not skipped.any()


@settings(max_examples=40, deadline=None)
@given(case=cases(transposed=True, patterns=["none"]))
def test_without_nan_the_transposed_result_is_torchs(case):
    y, skipped = case.run()
    assert torch.equal(y, case.stock()) and y.stride() == case.stock().stride() and not skipped.any()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_formats_dtypes_and_groups_without_nan(dims, dtype):
    for layout, wlayout, groups in product(FORMATS[dims + 2], FORMATS[dims + 2], (1, 2, 4)):
        x = normal_numbers(2, 4, *(6,) * dims).to(dtype).contiguous(memory_format=layout)
        w = normal_numbers(8, 4 // groups, *(3,) * dims).to(dtype).contiguous(memory_format=wlayout)
        conv = getattr(T, f"conv{dims}d")
        for padding in (0, 1, "same", "valid"):
            y, expected = CONV[dims](x, w, None, 1, padding, 1, groups), conv(x, w, None, 1, padding, 1, groups)
            assert torch.equal(y, expected) and y.stride() == expected.stride() and y.dtype == dtype
        w = normal_numbers(4, 2, *(3,) * dims).to(dtype).contiguous(memory_format=wlayout)
        y = TRANSPOSE[dims](x, w, None, 2, 1, 1, groups)
        expected = getattr(T, f"conv_transpose{dims}d")(x, w, None, 2, 1, 1, groups)
        assert torch.equal(y, expected) and y.stride() == expected.stride()


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("dims", [2, 3])
def test_with_nan_the_memory_format_is_that_of_torchs_own_result(dims, dtype, route):
    for layout, wlayout, channels, gap in product(FORMATS[dims + 2], FORMATS[dims + 2], (1, 4), (1, 2)):
        x = normal_numbers(2, channels, *(6,) * dims).to(dtype).contiguous(memory_format=layout)[..., ::gap]
        w = normal_numbers(4, channels, *(3,) * dims).to(dtype).contiguous(memory_format=wlayout)
        expected = getattr(T, f"conv{dims}d")(x, w)
        x[0, 0, 0, 0] = NAN
        with on(route):
            y = CONV[dims](x, w, threshold=1.0)
        assert y.stride() == expected.stride(), (layout, wlayout, channels, gap)


def test_a_single_sample_needs_no_batch_axis():
    for dims in (1, 2, 3):
        x, w = normal_numbers(3, *(5,) * dims), normal_numbers(2, 3, *(3,) * dims)
        assert torch.equal(CONV[dims](x, w), getattr(T, f"conv{dims}d")(x, w))
        x[0] = NAN
        y, skipped = CONV[dims](x, w, threshold=0.9, return_skipped=True)
        many, where = CONV[dims](x[None], w, threshold=0.9, return_skipped=True)
        assert same_bits(y, many[0]) and torch.equal(skipped, where[0]) and y.isfinite().all()
        t = normal_numbers(3, 2, *(3,) * dims)
        assert same_bits(TRANSPOSE[dims](x, t, stride=2), TRANSPOSE[dims](x[None], t, stride=2)[0])


@pytest.mark.parametrize("route", ROUTES)
def test_an_empty_batch_gives_an_empty_result(route):
    x, w = torch.empty(0, 3, 5, 5), normal_numbers(2, 3, 3, 3)
    with on(route):
        y, skipped = F.nan_conv2d(x, w, padding=1, uniform=True, return_skipped=True)
        assert y.shape == (0, 2, 5, 5) and skipped.shape == (0, 1, 5, 5)
        y, skipped = F.nan_conv_transpose2d(x, w.transpose(0, 1), stride=2, return_skipped=True)
        assert y.shape == (0, 2, 11, 11) and skipped.shape == (0, 1, 11, 11)


@pytest.mark.parametrize("route", ROUTES)
def test_strides_of_input_and_weight_change_no_bit(route):
    g = torch.Generator().manual_seed(3)
    x = normal_numbers(2, 3, 7, 6)
    x[torch.rand(x.shape, generator=g) < 0.4] = NAN
    w, b = normal_numbers(4, 3, 3, 2), normal_numbers(4)
    with on(route):
        y = F.nan_conv2d(x, w, b)
        gaps, steps = torch.zeros(2, 3, 7, 12)[..., ::2].copy_(x), torch.zeros(8, 3, 3, 2)[::2].copy_(w)
        turned = x.permute(3, 2, 0, 1).contiguous().permute(2, 3, 1, 0)
        last = w.permute(3, 1, 2, 0).contiguous().permute(3, 1, 2, 0)
        assert not gaps.is_contiguous() and not turned.is_contiguous() and not last.is_contiguous()
        for image, weight in ((gaps, w), (turned, w), (x, steps), (x, last), (turned, last)):
            again = F.nan_conv2d(image, weight, b)
            assert torch.allclose(again, y, rtol=1e-5, atol=1e-5, equal_nan=True)
            assert route == "torch" or same_bits(again, y)
        one = x[:1, :1].expand(2, 3, 7, 6)
        assert same_bits(F.nan_conv2d(one, w, b), F.nan_conv2d(one.clone(), w, b)) or route == "torch"
        narrow = w[:, :, :1].expand(4, 3, 3, 2)
        assert same_bits(F.nan_conv2d(x, narrow, b), F.nan_conv2d(x, narrow.clone(), b)) or route == "torch"


def test_the_random_state_is_left_alone():
    before = torch.get_rng_state()
    x, g = torch.full((1, 2, 4, 4), NAN), torch.Generator().manual_seed(1)
    x[:, 0] = 1.0
    F.nan_conv2d(x, torch.ones(1, 2, 3, 3), fill="max_normal", threshold=0.9, generator=g)
    assert torch.equal(before, torch.get_rng_state())


def test_autocast_is_torchs():
    x, w, b = normal_numbers(1, 3, 5, 5), normal_numbers(2, 3, 3, 3), normal_numbers(2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(F.nan_conv2d(x, w, b), T.conv2d(x, w, b))
        assert torch.equal(F.nan_conv2d(x.bfloat16(), w, b), T.conv2d(x.bfloat16(), w, b))
        x[0, :, 2] = NAN
        y = F.nan_conv2d(x, w, b)
    assert same_bits(y, F.nan_conv2d(x.bfloat16(), w.bfloat16(), b.bfloat16()))


def test_without_kernels_that_is_said_once():
    x, w = torch.tensor([[[NAN, 1.0, 2.0]]]), torch.ones(1, 1, 2)
    convolution_core._announce.cache_clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(convolution_core.kernels, "library", lambda: None)
        with pytest.warns(UserWarning, match="NaN convolutions run in torch operations, which are exact but slow"):
            F.nan_conv1d(x, w)
        F.nan_conv1d(x, w)


X, W = torch.zeros(1, 4, 5, 5), torch.zeros(2, 4, 3, 3)
ERRORS = {
    "threshold": (lambda: F.nan_conv2d(X, W, threshold=0), "Expected a threshold in (0, 1], got 0."),
    "threshold above": (lambda: F.nan_conv2d(X, W, threshold=1.5), "Expected a threshold in (0, 1], got 1.5."),
    "threshold nan": (lambda: F.nan_conv2d(X, W, threshold=NAN), "Expected a threshold in (0, 1], got nan."),
    "fill": (lambda: F.nan_conv2d(X, W, fill="maen"), "Expected fill to be one of mean, max_normal, got 'maen'; "
             "did you mean 'mean'?"),
    "sigma": (lambda: F.nan_conv2d(X, W, sigma=-1.0), "Expected a sigma of 0 or more, got -1.0."),
    "generator": (lambda: F.nan_conv2d(X, W, fill="max_normal"),
                  "Expected a torch.Generator for fill='max_normal', got None."),
    "axes": (lambda: F.nan_conv2d(X[0, 0], W), "Expected x of shape (N, C, H, W) or (C, H, W), got (5, 5)."),
    "axes 1": (lambda: F.nan_conv1d(X, W[..., 0]), "Expected x of shape (N, C, L) or (C, L), got (1, 4, 5, 5)."),
    "axes 3": (lambda: F.nan_conv3d(X[0], W), "Expected x of shape (N, C, D, H, W) or (C, D, H, W), got (4, 5, 5)."),
    "weight": (lambda: F.nan_conv2d(X, W[0]), "Expected a weight with 4 axes, none of them empty, got (4, 3, 3)."),
    "dtype": (lambda: F.nan_conv2d(X, W.double()),
              "Expected x, weight and bias of one floating dtype, got torch.float32, torch.float64."),
    "integers": (lambda: F.nan_conv2d(X.long(), W.long()),
                 "Expected x, weight and bias of one floating dtype, got torch.int64, torch.int64."),
    "device": (lambda: F.nan_conv2d(X, W.to("meta")),
               "Expected x, weight and bias on one device, got x on cpu, weight on meta."),
    "groups": (lambda: F.nan_conv2d(X, W, groups=3), "Expected groups that divide 4 inputs and 2 outputs, got 3."),
    "channels": (lambda: F.nan_conv2d(X, W, groups=2),
                 "Expected x with 8 channels for a weight of shape (2, 4, 3, 3) and 2 groups, got 4."),
    "bias": (lambda: F.nan_conv2d(X, W, torch.zeros(3)), "Expected a bias of shape (2,), got (3,)."),
    "padding": (lambda: F.nan_conv2d(X, W, padding="some"),
                "Expected padding to be 'same', 'valid' or integers, got 'some'."),
    "negative": (lambda: F.nan_conv2d(X, W, padding=-1),
                 "Expected padding to be one integer or 2, each at least 0, got -1."),
    "same": (lambda: F.nan_conv2d(X, W, stride=2, padding="same"),
             "Expected stride 1 with padding='same', got (2, 2)."),
    "stride": (lambda: F.nan_conv2d(X, W, stride=0), "Expected stride to be one integer or 2, each at least 1, got 0."),
    "dilation": (lambda: F.nan_conv2d(X, W, dilation=(1, 2, 3)),
                 "Expected dilation to be one integer or 2, each at least 1, got (1, 2, 3)."),
    "window": (lambda: F.nan_conv2d(X, W, dilation=3),
               "Expected an image of at least (7, 7) after padding, got (5, 5)."),
    "output padding": (lambda: F.nan_conv_transpose2d(X, W.transpose(0, 1), stride=2, output_padding=2),
                       "Expected output_padding below stride (2, 2) or dilation (1, 1), got (2, 2)."),
    "nothing left": (lambda: F.nan_conv_transpose2d(X, W.transpose(0, 1), padding=4),
                     "Expected a result of at least one position an axis, got (-1, -1) of an image of (5, 5)."),
    "transposed channels": (lambda: F.nan_conv_transpose2d(X, W),
                            "Expected x with 2 channels for a weight of shape (2, 4, 3, 3) and 1 groups, got 4."),
}  # fmt: skip


@pytest.mark.parametrize("name", ERRORS)
def test_an_error_says_what_was_expected_and_what_arrived(name):
    wrong, sentence = ERRORS[name]
    with pytest.raises(InputError) as error:
        wrong()
    assert str(error.value) == sentence
