"""Real networks: FastSurferVINN, narrow, and a ReLayNet with its published parameters."""

import pytest
import torch

import nanops
from analyses.models.fastsurfer import FastSurferVINN
from analyses.models.relaynet import ReLayNet
from nanops.functional.convolution import nan_conv2d
from nanops.functional.pooling import multi_max_pool2d
from nanops.functional.resize import nan_interpolate
from nanops.functional.unpooling import conservative_max_unpool2d
from tests.nanops.images import same_bits
from tests.nanops.nets import seeded
from tests.shared_data import shared


def slices(n=2, channels=7, size=64):
    """Return slices of an ellipse of noise on a background of zeros."""
    g = torch.Generator().manual_seed(1)
    at = torch.linspace(-1, 1, size)
    inside = at[:, None] ** 2 / 0.3 + at**2 / 0.15 < 1
    return torch.where(inside, torch.rand(n, channels, size, size, generator=g), 0.0)


@pytest.fixture(scope="module")
def vinn():
    return seeded(FastSurferVINN(7, 8, 6, 5))


def vinn_by_hand(model, x, threshold, factor=1.0):
    """Return the logits of FastSurferVINN in the NaN operators."""

    def zoom(x, factor):
        return x if factor == 1 else nan_interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False,
                                                     threshold=threshold)  # fmt: skip

    def block(b, x, first, joins):
        x = b.bn0(x) if hasattr(b, "bn0") else x
        for i in range(4):
            y = x if i == 0 and not first else b.prelu(x)
            conv = getattr(b, f"conv{i}")
            y = getattr(b, f"{b.norm}{i + 1}")(nan_conv2d(y, conv.weight, conv.bias, padding=1, threshold=threshold))
            x = torch.maximum(y, x) if i in joins else y
        return x

    skip = block(model.inp_block, x, False, (1, 2))
    skips, ties, y = [], [], zoom(skip, factor)
    for i in range(1, 5):
        y = block(getattr(model, f"encode{i}"), y, i > 1, (1, 2) if i == 1 else (0, 1, 2))
        skips.append(y)
        y, tie = multi_max_pool2d(y, 2)
        ties.append(tie)
    y = block(model.bottleneck, y, True, (0, 1, 2))
    for i in (4, 3, 2, 1):
        y = torch.maximum(conservative_max_unpool2d(y, ties[i - 1], 2), skips[i - 1])
        y = block(getattr(model, f"decode{i}"), y, True, (0, 1, 2))
    y = block(model.outp_block, torch.cat([zoom(y, 1 / factor), skip], 1), True, (1, 2))
    conv = model.classifier.conv
    return nan_conv2d(y, conv.weight, conv.bias, threshold=threshold)


@pytest.mark.parametrize("threshold", [0.5, 1.0])
def test_fastsurfer_equals_its_layers_written_in_nan_operators(vinn, threshold):
    with torch.inference_mode():
        expected = vinn_by_hand(vinn, slices(), threshold)
        converted = nanops.convert(vinn, threshold=threshold, final="keep")
        assert same_bits(converted(slices()), expected)
        assert same_bits(nanops.convert(vinn, threshold=threshold)(slices()), expected.nan_to_num(nan=0.0))
    assert threshold == 1 or 0 < expected.isnan().sum() < expected.numel()


@pytest.mark.parametrize("pooling", ["conservative", "aggressive", "hybrid", None])
def test_fastsurfer_on_noise_is_stock(vinn, pooling):
    x = torch.rand(1, 7, 32, 32, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        assert same_bits(nanops.convert(vinn, pooling)(x), vinn(x))


def test_fastsurfer_resizes_by_the_valid_weights(vinn):
    model = FastSurferVINN(7, 8, 6, 5, inner_size=(64, 64)).eval()
    model.load_state_dict(vinn.state_dict())
    with torch.inference_mode():
        y = nanops.convert(model, threshold=0.4, final="keep")(slices(size=80), scale_factor=0.8)
        assert same_bits(y, vinn_by_hand(model, slices(size=80), 0.4, 0.8)) and 0 < y.isnan().sum() < y.numel()


def test_fastsurfer_skips_in_the_decoder_and_nowhere_before_the_first_pool(vinn):
    converted = nanops.convert(vinn)
    with torch.inference_mode(), nanops.count_skipped(converted) as skipped:
        converted(slices())
    layers = skipped.layers
    assert len(layers) == 4 * 11 + 1
    assert all(t.skipped == 0 for name, t in layers.items() if name.startswith(("inp_block", "encode1")))
    assert all(t.skipped > 0 for name, t in layers.items() if name.startswith("decode1"))


def relaynet_by_hand(model, x, threshold):
    """Return the logits of ReLayNet in the NaN operators."""

    def block(b, x):
        y = nan_conv2d(x, b.conv.weight, b.conv.bias, padding=(1, 3), threshold=threshold)
        return b.prelu(b.batchnorm(y))

    skips, ties, y = [], [], x
    for b in (model.encode1, model.encode2, model.encode3):
        skips.append(block(b, y))
        y, tie = multi_max_pool2d(skips[-1], 2)
        ties.append(tie)
    y = block(model.bottleneck, y)
    for b in (model.decode1, model.decode2, model.decode3):
        y = block(b, torch.cat([skips.pop(), conservative_max_unpool2d(y, ties.pop(), 2)], 1))
    conv = model.classifier.conv
    return nan_conv2d(y, conv.weight, conv.bias, threshold=threshold)


def test_relaynet_equals_its_layers_written_in_nan_operators():
    path = shared("models/relaynet/relaynet_good_state_dict.pt")
    model = ReLayNet().eval()
    missing = model.load_state_dict(torch.load(path, weights_only=True), strict=False)
    assert not missing.unexpected_keys and all(k.endswith("num_batches_tracked") for k in missing.missing_keys)
    x = slices(1, 1, 48)
    with torch.inference_mode(), nanops.count_skipped(converted := nanops.convert(model, threshold=0.3)) as skipped:
        y = converted(x)
        assert same_bits(y, relaynet_by_hand(model, x, 0.3).nan_to_num(nan=0.0))
    assert skipped.layers["decode3.conv"].skipped > 0
