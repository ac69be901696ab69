"""How do output channels of convolutions leave a network, with everything that belongs to them?

The weights and the bias go (axis 0 of a convolution, 1 of a transposed one), the normalisation's gamma, beta and
running statistics, every consumer's input axis, and the optimizer's state of exactly these entries. The network then
computes what it did before with these channels forced to 0 wherever a layer reads them.
"""

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from difflib import get_close_matches

from torch import nn
from torch.optim import Optimizer

from analyses.compress.cutting import check_optimizer, cut
from analyses.compress.layers import Axis
from analyses.compress.structure import Structure, follow
from analyses.compress.tracing import Example
from mcaprobe.errors import InputError

Chosen = Mapping[str, Collection[int]]
RULES: dict[str, Callable[[int, int], bool]] = {
    "all": lambda ayes, votes: ayes == votes,
    "majority": lambda ayes, votes: 2 * ayes > votes,
    "any": lambda ayes, votes: ayes > 0,
}


def decide(structure: Structure, votes: Chosen, kept: Chosen | None = None, rule: str = "all") -> dict[str, list[int]]:
    """Return the channels to remove, by convolution: whole classes (see `follow`), never a locked one.

    Each convolution that puts out a channel of a class has one vote for every such channel. A class goes

    * "all": where all its votes say so (the default: what is dead or redundant in one summand may not be in the other),
    * "majority": where more than half of them do,
    * "any": where one does;

    in no case where one of its channels is in `kept`, and never all channels that a layer puts out: of those, the class
    of the first one stays.

    Args:
        votes: Indices of output channels, by convolution; those of locked channels do not count.
        kept: Indices of channels that stay, by convolution.

    Raises:
        InputError: no such convolution, index or rule.
    """
    if rule not in RULES:
        raise InputError(f"Expected a rule out of {', '.join(RULES)}, got {rule!r}.")
    _check(structure, votes)
    _check(structure, kept or {})
    find = structure.channels.find
    members: Counter[int] = Counter()
    ayes: Counter[int] = Counter()
    for layer, channels in structure.outputs.items():
        for i, channel in enumerate(channels):
            members[find(channel)] += 1
            ayes[find(channel)] += i in votes.get(layer, ())
    stay = {find(structure.outputs[layer][i]) for layer, indices in (kept or {}).items() for i in indices}
    gone = {
        root
        for root, votes_of_class in members.items()
        if RULES[rule](ayes[root], votes_of_class)
        if root not in stay and structure.channels.lock_of(root) is None
    }
    for channels in structure.outputs.values():
        if all(find(channel) in gone for channel in channels):
            gone.discard(find(channels[0]))
    chosen = {
        layer: [i for i, channel in enumerate(channels) if find(channel) in gone]
        for layer, channels in structure.outputs.items()
    }
    return {layer: indices for layer, indices in chosen.items() if indices}


def prune(
    model: nn.Module,
    removed: Chosen,
    example: Example,
    optimizer: Optimizer | None = None,
    structure: Structure | None = None,
) -> None:
    """Remove output channels of convolutions from a network, in place.

    Parameters that change are new `Parameter` objects: those of the optimizer's groups are replaced and its state is
    cut; any other list of them is out of date, as is the structure.

    Args:
        removed: Indices of output channels, by convolution; channels of one class only together (`decide` sees to it).
        example: An input of the network, or its inputs, for tracing.
        optimizer: Whose state goes along, or None.
        structure: Of the network as it is, where it is known; None: it is traced.

    Raises:
        InputError: no such convolution or channel, a channel that never goes or not without another one, all of a
            layer's channels, an optimizer whose state cannot be cut, or a network that cannot be followed.
    """
    structure = structure or follow(model, example)
    _check(structure, removed)
    find = structure.channels.find
    gone = {find(structure.outputs[layer][i]) for layer, indices in removed.items() for i in indices}
    _check_whole(structure, removed, gone)
    for axis in structure.axes:
        if all(find(channel) in gone for channel in axis.channels):
            raise InputError(f"Expected a channel of '{axis.layer}' to stay, all {len(axis.channels)} would go.")
    if optimizer is not None:
        check_optimizer(model, optimizer)  # before anything is cut
    for axis in structure.axes:
        stays = [i for i, channel in enumerate(axis.channels) if find(channel) not in gone]
        if len(stays) < len(axis.channels):
            _cut_axis(model.get_submodule(axis.layer), axis, stays, optimizer)


def _cut_axis(layer: nn.Module, axis: Axis, stays: list[int], optimizer: Optimizer | None) -> None:
    for count in axis.counts:
        setattr(layer, count, len(stays))
    for name, dim in axis.tensors:
        cut(layer, name, dim, stays, optimizer)


def _check(structure: Structure, chosen: Chosen) -> None:
    for layer, indices in chosen.items():
        if layer not in structure.outputs:
            close = get_close_matches(layer, structure.outputs, n=1, cutoff=0.0)
            raise InputError(f"Expected the name of a convolution, got '{layer}'; the nearest one is '{close[0]}'.")
        count = len(structure.outputs[layer])
        for i in indices:
            if not 0 <= i < count:
                raise InputError(f"Expected channels 0 to {count - 1} of '{layer}', got {i}.")


def _check_whole(structure: Structure, removed: Chosen, gone: set[int]) -> None:
    """Refuse locked channels, and parts of a class."""
    find = structure.channels.find
    firsts: dict[int, str] = {}
    for layer, indices in removed.items():
        for i in indices:
            channel = structure.outputs[layer][i]
            firsts.setdefault(find(channel), f"channel {i} of '{layer}'")
            reason = structure.channels.lock_of(channel)
            if reason is not None:
                raise InputError(f"Expected channels that may go, got channel {i} of '{layer}', which {reason}.")
    for layer, channels in structure.outputs.items():
        for i, channel in enumerate(channels):
            if find(channel) in gone and i not in removed.get(layer, ()):
                raise InputError(f"Expected channel {i} of '{layer}' to go with {firsts[find(channel)]}.")


