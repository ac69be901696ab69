"""Is the network FastSurferVINN, in values, names, shapes and size?"""

import pytest
import torch
from torch import Tensor

from analyses.models.fastsurfer import FastSurferVINN, Zoom2d
from tests.reference.vinn import vinn


def lively(network: FastSurferVINN, seed: int = 0) -> FastSurferVINN:
    """Give every normalisation statistics and parameters that a wrong one would not share."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in network.state_dict().items():
        if name.endswith(("running_mean", "bias")):
            tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.3)
        elif name.endswith("running_var") or tensor.ndim == 1:
            tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
    for name, tensor in network.state_dict().items():
        if name.endswith("prelu.weight"):
            tensor.mul_(0.3)
    return network.eval()


def test_the_network_computes_what_the_twin_computes() -> None:
    network = lively(FastSurferVINN(slices=3, filters=5, interpolation_filters=4, classes=6)).double()
    x = torch.rand(2, 3, 32, 48, dtype=torch.float64)
    weights = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    with torch.no_grad():
        found = network(x)
    for one, logits in zip(x, found, strict=True):
        torch.testing.assert_close(logits, torch.from_numpy(vinn(one.numpy(), weights)), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("sizes", "parameters"),
    [((7, 71, 32, 79), 1_854_632), ((7, 71, 32, 51), 1_852_616), ((7, 24, 12, 4), 215_177)],
    ids=["paper axial", "paper sagittal", "demo"],
)
def test_the_number_of_parameters(sizes: tuple[int, int, int, int], parameters: int) -> None:
    assert sum(p.numel() for p in FastSurferVINN(*sizes).parameters()) == parameters


def test_the_number_of_parameters_follows_from_the_description() -> None:
    conv = lambda i, o: 9 * i * o + o + 2 * o  # noqa: E731  a 3x3 convolution and its normalisation
    f, g = 71, 32
    inputs = 2 * 7 + conv(7, g) + 3 * conv(g, g) + 1
    encode1 = 2 * g + conv(g, f) + 3 * conv(f, f) + 1
    dense = 8 * (4 * conv(f, f) + 1)
    outputs = conv(f + g, f) + 3 * conv(f, f) + 1
    assert inputs + encode1 + dense + outputs + f * 79 + 79 == 1_854_632


NAMES = {
    "inp_block.bn0.weight": (7,),
    "inp_block.conv0.weight": (32, 7, 3, 3),
    "inp_block.gn4.running_var": (32,),
    "encode1.bn0.bias": (32,),
    "encode1.conv0.weight": (71, 32, 3, 3),
    "encode1.bn1.weight": (71,),
    "encode4.conv3.bias": (71,),
    "bottleneck.bn4.num_batches_tracked": (),
    "decode4.conv0.weight": (71, 71, 3, 3),
    "decode1.prelu.weight": (1,),
    "outp_block.conv0.weight": (71, 103, 3, 3),
    "outp_block.gn1.weight": (71,),
    "classifier.conv.weight": (79, 71, 1, 1),
}


def test_state_dict_has_the_published_names_and_shapes() -> None:
    state = FastSurferVINN().state_dict()
    assert {name: tuple(state[name].shape) for name in NAMES} == NAMES
    blocks = [
        "inp_block",
        *(f"encode{i}" for i in range(1, 5)),
        "bottleneck",
        *(f"decode{i}" for i in range(1, 5)),
    ]
    assert {name.split(".")[0] for name in state} == {*blocks, "outp_block", "classifier"}
    # 4 convolutions and 4 normalisations with weight and bias (and 3 statistics each), 1 PReLU; 2 blocks have a bn0.
    assert len(state) == 11 * (8 + 4 * 5 + 1) + 2 * 5 + 2


def test_pooling_indices_steer_the_unpooling() -> None:
    network = lively(FastSurferVINN(3, 4, 4, 2))
    seen: list[tuple[Tensor, ...]] = []
    network.decode2.unpool.register_forward_hook(lambda _, inputs, __: seen.append(inputs))
    network.encode2.maxpool.register_forward_hook(lambda _, __, output: seen.append(output))
    with torch.no_grad():
        network(torch.rand(1, 3, 32, 32))
    assert torch.equal(seen[0][1], seen[1][1])


def test_zoom_is_the_identity_at_scale_one() -> None:
    x = torch.rand(1, 2, 16, 16)
    assert Zoom2d()(x, 1.0, (16, 16)) is x


def test_scale_factor_brings_another_voxel_size_to_the_inner_plane_and_back() -> None:
    network = lively(FastSurferVINN(3, 4, 4, 2, inner_size=(32, 32)))
    inner: list[Tensor] = []
    network.encode1.register_forward_pre_hook(lambda _, inputs: inner.append(inputs[0]))
    with torch.no_grad():
        logits = network(torch.rand(1, 3, 40, 36), scale_factor=0.8)
    assert inner[0].shape[-2:] == (32, 32)
    assert logits.shape == (1, 2, 40, 36)
    assert not inner[0][..., 29:].any()  # 36 * 0.8 = 28.8 columns: what the plane lacks is zero


def test_zoom_there_and_back_keeps_a_smooth_image() -> None:
    line = torch.linspace(-1, 1, 40)
    x = (line[:, None] * line).cos()[None, None]
    back = Zoom2d()(Zoom2d()(x, 0.8, (48, 48)), 1 / 0.8, (40, 40))
    torch.testing.assert_close(back[..., 2:-2, 2:-2], x[..., 2:-2, 2:-2], atol=2e-3, rtol=0)


@pytest.mark.parametrize(
    ("shape", "scale", "sentence"),
    [
        ((1, 6, 32, 32), None, r"Expected x of shape \(N, 7, H, W\), got \(1, 6, 32, 32\)"),
        ((7, 32, 32), None, "Expected x of shape"),
        ((1, 7, 40, 32), None, r"multiples of 16, got \(40, 32\)"),
        ((1, 7, 32, 32), 0.0, "Expected a positive scale_factor, got 0.0"),
    ],
    ids=["slices", "no batch", "size", "scale"],
)
def test_a_wrong_input_is_named(shape: tuple[int, ...], scale: float | None, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        FastSurferVINN(filters=4, interpolation_filters=4, classes=2)(torch.zeros(shape), scale)
