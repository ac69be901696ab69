"""What does a network cost? Parameters and operations, dense or with masks, in two conventions, and a score of both.

Operations are multiplications and additions: two for each product. The paper of E2ENet counts a transposed convolution
as kernel size x outputs, though each output of stride = kernel takes part in one product a pair of channels; the true
count has each product once. Taps on the padding count in both, as they do in everybody's count of convolutions.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.overrides import TorchFunctionMode

from mcaprobe.errors import InputError
from nanops.errors import nearest

_COUNTED = frozenset({
    "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "linear", "convolution",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class LayerCost:
    """One call of a convolution, transposed convolution or linear layer.

    Args:
        layer: Path of the module.
        transposed: Whether it is a transposed convolution.
        bias: Whether it adds one.
        taps: Positions of the kernel, K.
        pairs: Pairs of an input and an output channel that a kernel connects.
        density: Share of them that is active, 1 - S.
        features: Output channels.
        inputs, outputs: Positions of input and output, over the batch.
    """

    layer: str
    transposed: bool
    bias: bool
    taps: int
    pairs: int
    density: float
    features: int
    inputs: int
    outputs: int

    @property
    def paper_products(self) -> float:
        """Products as equation 5 of E2ENet has them: K C_in (1 - S) C_out x output positions."""
        return self.taps * self.pairs * self.density * self.outputs

    @property
    def products(self) -> float:
        """Products, each once: a transposed convolution makes them at its input's positions."""
        return self.taps * self.pairs * self.density * (self.inputs if self.transposed else self.outputs)

    @property
    def sums(self) -> int:
        """Values of the output."""
        return self.features * self.outputs


Additions = Callable[[LayerCost], float]


def half_a_bias(cost: LayerCost) -> float:
    """Return 1/2 for each output of a layer with bias.

    Equation 5 says 1 for each output; the published counts do not: 1067.89 G of nnU-Net needs 1 for the outputs of
    half of its convolutions with bias. Half for all of them gives the same sum, and what our specification expects.
    """
    return cost.sums / 2 if cost.bias else 0.0


def paper_flops(costs: Sequence[LayerCost], additions: Additions = half_a_bias) -> float:
    """Return operations in the convention of E2ENet's paper.

    Args:
        additions: What each layer adds to two operations a product.
    """
    return sum(2 * cost.paper_products + additions(cost) for cost in costs)


def true_flops(costs: Sequence[LayerCost], additions: Additions | None = None) -> float:
    """Return operations with each product once, and nothing added unless asked for."""
    return sum(2 * cost.products + (additions(cost) if additions else 0.0) for cost in costs)


def costs(model: nn.Module, shape: Sequence[int], densities: Mapping[str, float] | None = None) -> list[LayerCost]:
    """Return what each layer costs in one forward of zeros of a shape, in the model's mode, without computing it.

    Args:
        model: Any module with one tensor as input; it runs on meta tensors in place of its own.
        shape: Of the input, with batch.
        densities: Share of active kernels by name of the weight, or by glob; the last match counts. None: all dense.

    Raises:
        InputError: a glob that matches no weight of such a layer; a convolution that no module of torch makes.
    """
    recorded: list[LayerCost] = []
    shares = _densities(model, densities or {})
    handles = []
    for path, module in model.named_modules():
        if isinstance(module, (_ConvNd, nn.Linear)):
            name = f"{path}.weight" if path else "weight"
            hook = _recorder(recorded, path, shares.get(name, 1.0))
            handles.append(module.register_forward_hook(hook))
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    meta = {name: torch.empty_like(value, device="meta") for name, value in tensors.items()}
    dtype = next((value.dtype for value in tensors.values() if value.is_floating_point()), torch.get_default_dtype())
    try:
        with torch.no_grad(), _Calls() as calls:
            torch.func.functional_call(model, meta, (torch.zeros(tuple(shape), dtype=dtype, device="meta"),))
    finally:
        for handle in handles:
            handle.remove()
    if calls.found != len(recorded):
        raise InputError(f"Expected convolutions and linear layers as modules of torch, got {calls.found} calls, "
                         f"{len(recorded)} of them by such modules.")  # fmt: skip
    return recorded


def parameters(model: nn.Module, masks: Mapping[str, Tensor] | None = None) -> tuple[int, int]:
    """Return the number of parameters, and of those that are active: all that lie in no masked kernel.

    Args:
        masks: By name of the parameter, one bit a kernel (`Masks.masks`).

    Raises:
        InputError: a mask of no parameter, or of another shape.
    """
    named = dict(model.named_parameters())
    dense = sum(parameter.numel() for parameter in named.values())
    off = 0
    for name, mask in (masks or {}).items():
        if name not in named:
            raise InputError(f"Expected masks of the model's parameters, got {name!r}{nearest(name, named)}")
        if mask.shape != named[name].shape[:2]:
            raise InputError(f"Expected a mask of shape {tuple(named[name].shape[:2])} for {name!r}, got "
                             f"{tuple(mask.shape)}.")  # fmt: skip
        off += int((~mask).sum()) * prod(named[name].shape[2:])
    return dense, dense - off


def trade_off(
    dice: Sequence[float], parameters: Sequence[float], flops: Sequence[float], accuracy: float = 1.0, cost: float = 0.5
) -> list[float]:
    """Return the PT score of each network: accuracy mDice / max + cost (Pmin / P + Fmin / F) (E2ENet, A.7.4).

    Args:
        dice, parameters, flops: One a network, of all networks that are compared.
        accuracy, cost: The paper's weights alpha.
    """
    if not len(dice) == len(parameters) == len(flops) > 0 or min(*dice, *parameters, *flops) <= 0:
        raise InputError(f"Expected one positive dice, number of parameters and flops for each network, got "
                         f"{list(dice)}, {list(parameters)} and {list(flops)}.")  # fmt: skip
    best, least, fewest = max(dice), min(parameters), min(flops)
    rows = zip(dice, parameters, flops, strict=True)
    return [accuracy * d / best + cost * (least / p + fewest / f) for d, p, f in rows]


def _densities(model: nn.Module, densities: Mapping[str, float]) -> dict[str, float]:
    layers = [(path, m) for path, m in model.named_modules() if isinstance(m, (_ConvNd, nn.Linear))]
    names = [f"{path}.weight" if path else "weight" for path, _ in layers]
    found: dict[str, float] = {}
    for glob, density in densities.items():
        matched = [name for name in names if fnmatchcase(name, glob)]
        if not matched:
            raise InputError(f"Expected a glob that matches a weight, got {glob!r}{nearest(glob, names)}")
        if not 0 < density <= 1:
            raise InputError(f"Expected a density in (0, 1] for {glob!r}, got {density}.")
        found.update(dict.fromkeys(matched, density))
    return found


def _recorder(recorded: list[LayerCost], path: str, density: float) -> Callable[..., None]:
    def record(module: Any, args: tuple[Any, ...], output: Tensor) -> None:
        weight, dims = module.weight, module.weight.dim() - 2
        transposed = isinstance(module, _ConvTransposeNd)
        places = lambda x: x.numel() // x.shape[-1] if dims == 0 else x.numel() // x.shape[-dims - 1]  # noqa: E731
        features = output.shape[-1] if dims == 0 else output.shape[-dims - 1]
        pairs = weight.shape[0] * weight.shape[1]
        taps, bias = prod(weight.shape[2:]), module.bias is not None
        sizes = places(args[0]), places(output)
        recorded.append(LayerCost(path, transposed, bias, taps, pairs, density, features, *sizes))

    return record


class _Calls(TorchFunctionMode):
    """Counts the convolutions and linear maps that are called, by whatever way."""

    def __init__(self) -> None:
        super().__init__()
        self.found = 0

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.found += getattr(function, "__name__", "") in _COUNTED
        return function(*args, **(kwargs or {}))
