"""Which parameters of a model are masked, and what does a mask do to them? One bit for each (in, out) kernel."""

from collections.abc import Callable, Iterable, Iterator
from fnmatch import fnmatchcase

import torch
from torch import Generator, Tensor, nn
from torch.optim import Optimizer

from mcaprobe.errors import InputError
from nanops.errors import nearest

Choice = str | Iterable[str] | Callable[[str, nn.Parameter], bool]


def chosen(model: nn.Module, parameters: Choice) -> dict[str, nn.Parameter]:
    """Return the parameters that globs over their names match, or that a predicate of name and parameter takes.

    Raises:
        InputError: a glob that matches none; a parameter without the two axes that a kernel lies between.
    """
    named = dict(model.named_parameters())
    if callable(parameters):
        found = {name: parameter for name, parameter in named.items() if parameters(name, parameter)}
        if not found:
            raise InputError("Expected a predicate that takes a parameter of the model, got one that takes none.")
    else:
        globs = [parameters] if isinstance(parameters, str) else list(parameters)
        for glob in globs:
            if not any(fnmatchcase(name, glob) for name in named):
                raise InputError(f"Expected a glob that matches a parameter, got {glob!r}{nearest(glob, named)}")
        found = {name: p for name, p in named.items() if any(fnmatchcase(name, glob) for glob in globs)}
    for name, parameter in found.items():
        if parameter.dim() < 2:
            raise InputError(f"Expected weights with an input and an output axis, got {name!r} of shape "
                             f"{tuple(parameter.shape)}.")  # fmt: skip
    return found


def random_mask(name: str, shape: tuple[int, ...], sparsity: float, generator: Generator) -> Tensor:
    """Return exactly round((1 - S) N) True among the N bits of shape[:2], at random places.

    Raises:
        InputError: that number is 0.
    """
    count = shape[0] * shape[1]
    active = round((1 - sparsity) * count)
    if active < 1:
        raise InputError(f"Expected a sparsity that leaves a kernel of {name!r}, got {sparsity} of {count} kernels.")
    mask = torch.zeros(count, dtype=torch.bool)
    mask[torch.randperm(count, generator=generator, device=generator.device)[:active].cpu()] = True
    return mask.view(shape[:2])


def over(mask: Tensor, weight: Tensor) -> Tensor:
    """Return a mask on the weight's device that broadcasts over its kernels."""
    return mask.view(*mask.shape, *[1] * (weight.dim() - 2)).to(weight.device)


def buffers(optimizer: Optimizer, parameter: nn.Parameter) -> Iterator[Tensor]:
    """Yield what an optimizer remembers of each element of a parameter: momentum, Adam's moments."""
    for value in optimizer.state.get(parameter, {}).values():
        if isinstance(value, Tensor) and value.shape == parameter.shape:
            yield value


def clear(mask: Tensor, optimizer: Optimizer, parameter: nn.Parameter) -> None:
    """Set the inactive kernels of a parameter, and of what the optimizer remembers of them, to +0."""
    with torch.no_grad():
        off = ~over(mask, parameter)
        # Filled, not multiplied: 0 times an infinite or undefined gradient would stay undefined.
        for tensor in (parameter, *buffers(optimizer, parameter)):
            tensor.masked_fill_(off, 0)


def norms(name: str, weight: Tensor) -> Tensor:
    """Return the L1 norm of each kernel, float64, on the CPU, of the shape of the mask.

    Raises:
        InputError: one is not finite; it has no rank.
    """
    found = weight.detach().cpu().double().abs().reshape(*weight.shape[:2], -1).sum(2)
    broken = int((~found.isfinite()).sum())
    if broken:
        raise InputError(f"Expected finite weights in {name!r}, got {broken} kernels with NaN or infinity.")
    return found


def exchanged(mask: Tensor, strengths: Tensor, count: int, generator: Generator) -> Tensor:
    """Return a mask without the `count` weakest active kernels, and with as many of those that were inactive.

    Of kernels of equal norm the one that comes first in the weight's memory goes first. The new ones are drawn
    uniformly, and not among those that have just gone (Algorithm 1, lines 20 to 22).
    """
    flat, ranks = mask.flatten().clone(), strengths.flatten()
    active, inactive = flat.nonzero().flatten(), (~flat).nonzero().flatten()
    weakest = active[ranks[active].argsort(stable=True)[:count]]
    drawn = torch.randperm(len(inactive), generator=generator, device=generator.device)[:count].cpu()
    flat[weakest] = False
    flat[inactive[drawn]] = True
    return flat.view(mask.shape)
