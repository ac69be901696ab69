"""How does a layer's tensor lose entries along an axis, and the optimizer's state the same ones?"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from mcaprobe.errors import InputError


def check_optimizer(model: nn.Module, optimizer: Optimizer) -> None:
    """Raise where an optimizer's state cannot be cut.

    Raises:
        InputError: a tensor of its state is neither one number nor of its parameter's shape.
    """
    for name, parameter in model.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            if isinstance(value, Tensor) and value.ndim > 0 and value.shape != parameter.shape:
                raise InputError(
                    f"Expected an optimizer's state of its parameter's shape, got {key} of {tuple(value.shape)} for "
                    f"{name} of {tuple(parameter.shape)}."
                )


def cut(layer: nn.Module, name: str, dim: int, stays: Sequence[int], optimizer: Optimizer | None) -> None:
    """Keep some entries of a layer's parameter or buffer along an axis; of its gradient and optimizer's state as well.

    The parameter is a new one, for autograd keeps the old one's shape as long as a loss of it lives.
    """
    old = getattr(layer, name)
    index = torch.tensor(stays, dtype=torch.long, device=old.device)
    if not isinstance(old, nn.Parameter):
        setattr(layer, name, old.index_select(dim, index))
        return
    new = nn.Parameter(old.detach().index_select(dim, index), old.requires_grad)
    if old.grad is not None:
        new.grad = old.grad.index_select(dim, index)
    setattr(layer, name, new)
    if optimizer is not None:
        _hand_over(optimizer, old, new, dim, index)


def _hand_over(optimizer: Optimizer, old: nn.Parameter, new: nn.Parameter, dim: int, index: Tensor) -> None:
    for group in optimizer.param_groups:
        group["params"] = [new if parameter is old else parameter for parameter in group["params"]]
    if old not in optimizer.state:
        return
    # A number without axes (Adam's step) stays, and so does momentum that is not there yet.
    optimizer.state[new] = {
        key: value.index_select(dim, index) if isinstance(value, Tensor) and value.ndim > 0 else value
        for key, value in optimizer.state.pop(old).items()
    }
