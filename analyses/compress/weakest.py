"""How does a network lose its weakest channels for good? Structured magnitude pruning that takes them out."""

from torch import Tensor, nn
from torch.optim import Optimizer

from analyses.compress.magnitude import channel_axis
from analyses.compress.prune import decide, prune
from analyses.compress.structure import Structure, follow
from mcaprobe.errors import InputError


def prune_weakest(core: nn.Module, example: Tensor, share: float, optimizer: Optimizer | None = None) -> None:
    """Remove the channels of smallest L1 norm from a network in place (Li et al. 2017): round(share N) of N.

    Channels that can only go together (the same ones of a convolution and of what is added, or unpooled with its
    indices) have the sum of their norms.

    Raises:
        InputError: a share outside [0, 1), or a network that cannot be followed.
    """
    if not 0 <= share < 1:
        raise InputError(f"Expected a share in [0, 1), got {share}.")
    training = core.training
    structure = follow(core.train(), example)
    core.train(training)
    removed = decide(structure, weakest(core, structure, share), rule="all")
    if removed:
        prune(core, removed, example, optimizer, structure)


def weakest(core: nn.Module, structure: Structure, share: float) -> dict[str, list[int]]:
    """Return the channels of each convolution whose classes are weakest among those that it puts out."""
    find = structure.channels.find
    strength: dict[int, float] = {}
    for layer, channels in structure.outputs.items():
        module = core.get_submodule(layer)
        norms = module.weight.detach().abs().transpose(0, channel_axis(module)).flatten(1).sum(1)  # type: ignore
        for channel, norm in zip(channels, norms.tolist(), strict=True):
            strength[find(channel)] = strength.get(find(channel), 0.0) + norm
    votes = {}
    for layer, channels in structure.outputs.items():
        free = [i for i, c in enumerate(channels) if structure.channels.lock_of(find(c)) is None]
        ranked = sorted(free, key=lambda i: strength[find(channels[i])])
        votes[layer] = ranked[: round(share * len(channels))] if len(free) == len(channels) else []
    return votes
