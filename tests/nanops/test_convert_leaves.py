"""Layers that are run without a look at their functions give what they give with one."""

import pytest
import torch
from torch import nn
from torch.overrides import TorchFunctionMode

import nanops
from nanops.conversion import leaves
from nanops.errors import InputError
from tests.nanops.convolutions import OWN_WARNING, normal_numbers, with_nan
from tests.nanops.images import same_bits

pytestmark = OWN_WARNING

LEAVES = {
    "conv1": (nn.Conv1d(4, 6, 3, 2, 1, groups=2), 1), "conv2": (nn.Conv2d(4, 6, 3, padding="same", dilation=2), 2),
    "conv3": (nn.Conv3d(4, 3, 2, bias=False), 3), "norm1": (nn.BatchNorm1d(4), 1), "norm2": (nn.BatchNorm2d(4), 2),
    "norm3": (nn.BatchNorm3d(4, affine=False), 3), "prelu": (nn.PReLU(4), 2), "leaky": (nn.LeakyReLU(0.3), 2),
    **{kind.__name__: (kind(), 2) for kind in (
        nn.ReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish, nn.ReLU6, nn.Sigmoid, nn.Tanh, nn.Softplus,
        nn.Hardswish, nn.Hardsigmoid, nn.Identity,
    )},
}  # fmt: skip


@pytest.fixture
def ran(monkeypatch):
    """Collect what the short way returned, None where it was not taken."""
    found, own = [], leaves.run
    monkeypatch.setattr(leaves, "run", lambda *args: found.append(own(*args)) or found[-1])
    return found


def converted(*layers, **options):
    return nanops.convert(nn.Sequential(*layers).eval(), "conservative", final="keep", **options)


@pytest.mark.parametrize("pattern", ["none", "iid", "pixels"])
@pytest.mark.parametrize("name", LEAVES)
def test_a_leaf_gives_the_bits_of_the_long_way(ran, name, pattern):
    layer, dims = LEAVES[name]
    model, x = converted(layer), with_nan(normal_numbers(2, 4, *(8,) * dims), pattern, rate=0.3)
    with torch.no_grad():
        short = model(x)
    assert len(ran) == 1 and ran[0] is not None
    long = model(x)  # gradients: the functions are looked at
    assert ran[1] is None and same_bits(short, long.detach())


def test_every_kind_of_leaf_is_among_the_cases():
    kinds = {type(layer) for layer, _ in LEAVES.values()}
    assert kinds == leaves._LOCAL | leaves._NORMS | set(leaves._CONV)


class Own(nn.Conv2d):
    """Another forward: torch's twice."""

    def forward(self, x):
        return super().forward(x) + super().forward(x)


def test_other_layers_take_the_long_way(ran):
    x = with_nan(normal_numbers(2, 4, 8, 8), "pixels", rate=0.3)
    padded = nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular")
    counting = nn.BatchNorm2d(4, track_running_stats=False)
    with torch.no_grad():
        for layer, training in ((padded, False), (counting, False), (nn.BatchNorm2d(4), True)):
            model = converted(layer)
            model[0].training = training
            model(x)
            assert ran.pop() is None
        twice = converted(Own(4, 4, 3))(x)
        assert not ran and twice.isnan().any() and not twice.isnan().all()


def test_a_layer_that_is_not_converted_takes_the_long_way(ran):
    model = nanops.convert(nn.Sequential(nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3)), layers="1")
    with torch.no_grad():
        model(with_nan(normal_numbers(2, 4, 8, 8), "pixels", rate=0.3))
    assert len(ran) == 1 and ran[0] is not None


class Watching(TorchFunctionMode):
    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_function__(self, function, types, args=(), kwargs=None):
        self.seen.append(getattr(function, "__name__", ""))
        return function(*args, **(kwargs or {}))


def test_a_function_mode_of_somebody_else_sees_the_calls(ran):
    model, x = converted(nn.ReLU(), nn.Conv2d(4, 4, 3)), with_nan(normal_numbers(2, 4, 8, 8), "pixels", rate=0.3)
    with torch.no_grad():
        alone = model(x)
        assert len(ran) == 2 and None not in ran
        with Watching() as watching:
            beside = model(x)
    assert ran[2:] == [None, None] and "relu" in watching.seen and same_bits(alone, beside)


def test_parametrized_layers_and_hooks_are_seen(ran):
    conv = nn.utils.parametrizations.weight_norm(nn.Conv2d(4, 4, 3))
    x, seen = with_nan(normal_numbers(2, 4, 8, 8), "pixels", rate=0.3), []
    model = converted(conv)
    model[0].register_forward_hook(lambda module, args, output: seen.append(output))
    with torch.no_grad():
        y = model(x)
    assert not ran and same_bits(seen[0], y) and y.isnan().any()
    plain = converted(nn.Conv2d(4, 4, 3))
    plain[0].register_forward_hook(lambda module, args, output: seen.append(output))
    with torch.no_grad():
        y = plain(x)
    assert len(ran) == 1 and same_bits(seen[1], y)


def test_a_wrong_image_names_the_layer():
    with torch.no_grad(), pytest.raises(InputError, match=r"In layer '0': Expected x with 4 channels"):
        converted(nn.Conv2d(4, 4, 3))(normal_numbers(2, 3, 8, 8))
