"""Blocks and networks as they are after training: running statistics, gammas of both signs, biases."""

import numpy as np
import torch
from torch import Tensor, nn

from analyses.models.fasterfusion import Channels, TrainingBlock


def trained(network: nn.Module, seed: int = 0) -> nn.Module:
    """Return the network in eval mode with random statistics, gammas, betas and biases."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, (nn.BatchNorm2d, nn.BatchNorm3d)):
                module.running_mean.normal_(0, 1, generator=generator)  # type: ignore[union-attr]
                module.running_var.uniform_(0.1, 3, generator=generator)  # type: ignore[union-attr]
                module.weight.normal_(0, 1, generator=generator)
                module.bias.normal_(0, 1, generator=generator)
            elif getattr(module, "bias", None) is not None:
                module.bias.normal_(0, 0.5, generator=generator)  # type: ignore[union-attr]
    return network.eval()


def block(dims: int, inputs: int, outputs: int, ratio: int = 4, stride: int | tuple[int, ...] = 1,
          dtype: torch.dtype = torch.float64, seed: int = 0) -> TrainingBlock:  # fmt: skip
    torch.manual_seed(seed)
    made = trained(TrainingBlock(dims, Channels.split(inputs, outputs, ratio), stride), seed).to(dtype)
    assert isinstance(made, TrainingBlock)
    return made


def arrays(network: nn.Module) -> dict[str, np.ndarray]:
    """Return the tensors by name, float64."""
    return {name: value.double().numpy() for name, value in network.state_dict().items()}


def apart(found: Tensor, expected: Tensor) -> float:
    """Return the largest difference over the largest value, in float64, of where both have a number."""
    a, b = found.detach().double(), expected.detach().double()
    assert torch.equal(a.isnan(), b.isnan())
    return float((a - b).nan_to_num().abs().max() / b.nan_to_num().abs().max().clamp(min=1e-300))
