"""Which parts of a network are a convolution, a norm and an activation, one after the other?

A unit is a module that owns the convolution and holds these three layers and no other, and whose output is, bit for bit
on a random input, that of the three in this order; or three neighbours in an nn.Sequential.
"""

from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import TypeGuard, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from analyses.models.fasterfusion_nans import Convolution

Network = TypeVar("Network", bound=nn.Module)
NORMS = (_BatchNorm, _InstanceNorm, nn.GroupNorm)
ACTIVATIONS = (nn.LeakyReLU, nn.ReLU, nn.PReLU, nn.ELU, nn.GELU, nn.SiLU)


@dataclass(frozen=True, slots=True, eq=False)
class Unit:
    """A convolution, a norm and an activation.

    Args:
        path: Of the module that they are, or of their first in an nn.Sequential.
        module: That module, or that convolution.
        conv: The convolution.
        conv_path: Its path.
        followers: Paths of norm and activation in an nn.Sequential, of each if it is used in several; empty where the
            unit is a module.
    """

    path: str
    module: nn.Module
    conv: Convolution
    conv_path: str
    followers: tuple[str, ...] = ()


def units_of(network: nn.Module) -> list[Unit]:
    """Return all units of a network, in the order of its modules; one that is used twice comes once."""
    found: dict[nn.Module, Unit] = {}
    for unit in _inside(network, ""):
        first = found.setdefault(unit.module, unit)
        if first is not unit:  # the same convolution elsewhere, perhaps with layers of its own behind it
            found[unit.module] = replace(first, followers=(*first.followers, *unit.followers))
    return list(found.values())


def convolutions_of(network: nn.Module) -> dict[str, Convolution]:
    """Return the convolutions of a network in two and three dimensions by path, without transposed ones."""
    return {path: m for path, m in network.named_modules() if _is_convolution(m)}


def replaced(network: Network, blocks: Mapping[Unit, nn.Module]) -> Network:
    """Return a copy of a network with a block in the place of each of these units."""
    # A deep copy takes what it finds in its memo as the copy, wherever the unit is used.
    copy: Network = deepcopy(network, {id(unit.module): block for unit, block in blocks.items()})  # type: ignore[arg-type]
    for unit in blocks:
        for path in unit.followers:
            parent, _, name = path.rpartition(".")
            setattr(copy.get_submodule(parent), name, nn.Identity())
    return copy


def _inside(module: nn.Module, path: str) -> Iterator[Unit]:
    unit = _as_module(module, path)
    if unit is not None:
        yield unit
        return
    # Unlike named_children, a layer that is used twice comes twice.
    children = [(name, child) for name, child in module._modules.items() if child is not None]
    runs = _runs(children) if type(module).forward is nn.Sequential.forward else {}
    for i, (name, child) in enumerate(children):
        own = f"{path}.{name}" if path else name
        if i in runs:
            start = own.removesuffix(name)
            yield Unit(own, runs[i], runs[i], own, (start + children[i + 1][0], start + children[i + 2][0]))
        else:
            yield from _inside(child, own)


def _runs(children: list[tuple[str, nn.Module]]) -> dict[int, Convolution]:
    """Return the convolutions that a norm and an activation follow, by position."""
    layers = [layer for _, layer in children]
    found: dict[int, Convolution] = {}
    for i, (conv, norm, act) in enumerate(zip(layers, layers[1:], layers[2:], strict=False)):
        if _is_convolution(conv) and isinstance(norm, NORMS) and isinstance(act, ACTIVATIONS):
            found[i] = conv
    return found


def _as_module(module: nn.Module, path: str) -> Unit | None:
    if isinstance(module, nn.Sequential):
        return None
    layers = [m for m in module.modules() if not list(m.children())]
    if len(layers) != 3 or layers[0] not in list(module.children()):
        return None
    conv, norm, act = layers
    if not _is_convolution(conv) or not isinstance(norm, NORMS) or not isinstance(act, ACTIVATIONS):
        return None
    if not _computes(module, conv, norm, act):
        return None
    name = next(name for name, child in module.named_children() if child is conv)
    return Unit(path, module, conv, f"{path}.{name}" if path else name)


def _computes(module: nn.Module, conv: Convolution, norm: nn.Module, act: nn.Module) -> bool:
    """Return whether a module does what three layers do one after the other."""
    memo: dict[int, object] = {}
    copy = deepcopy(module, memo).eval()
    layers = [memo[id(layer)] for layer in (conv, norm, act)]
    size = tuple(
        2 * s + d * (k - 1) + 1 for s, d, k in zip(conv.stride, conv.dilation, conv.kernel_size, strict=True)
    )  # two outputs an axis or more, as instance norm wants
    x = torch.randn((1, conv.in_channels, *size), generator=torch.Generator().manual_seed(0)).to(conv.weight)
    with torch.no_grad():
        expected = x
        for layer in layers:
            expected = layer(expected)  # type: ignore[operator]
        try:
            found = copy(x)
        except (TypeError, ValueError, RuntimeError):  # it wants another input than its convolution
            return False
    return isinstance(found, Tensor) and torch.equal(found, expected)


def _is_convolution(module: nn.Module) -> TypeGuard[Convolution]:
    return isinstance(module, (nn.Conv2d, nn.Conv3d))
