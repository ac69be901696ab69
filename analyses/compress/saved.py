"""How is a pruned network kept? Its weights, and the numbers of channels that its layers have."""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from analyses.compress.layers import COUNTED, shapes
from analyses.models.checkpoint import first_difference, read_tensors, write_tensors
from mcaprobe.errors import InputError

FORMAT = "mcaprobe.analyses.pruned/1"
Counts = dict[str, dict[str, int]]


def counts(model: nn.Module) -> Counts:
    """Return the numbers of channels of every layer that has some: name -> attribute -> number."""
    return {
        name: {attribute: int(getattr(layer, attribute)) for attribute in COUNTED[type(layer)]}
        for name, layer in model.named_modules()
        if type(layer) in COUNTED
    }


def resize(model: nn.Module, recorded: Mapping[str, Mapping[str, int]]) -> None:
    """Give a freshly built network the numbers of channels of a pruned one; what changes its shape is 0 then.

    Raises:
        InputError: other layers than the network's, or more channels than it has. It is as it was then.
    """
    current = counts(model)
    odd = sorted(current.keys() ^ recorded.keys())
    if odd:
        whose = "the network" if odd[0] in current else "the file"
        raise InputError(f"Expected the layers of the network in the file, '{odd[0]}' is in {whose} only.")
    for name, numbers in recorded.items():
        for attribute, have in current[name].items():
            wanted = numbers.get(attribute)
            if not isinstance(wanted, int) or not 1 <= wanted <= have:
                raise InputError(f"Expected 1 to {have} for {attribute} of '{name}', got {wanted}.")
    for name, numbers in recorded.items():
        layer = model.get_submodule(name)
        for attribute in current[name]:
            setattr(layer, attribute, numbers[attribute])
        for tensor, shape in shapes(layer).items():
            old = getattr(layer, tensor)
            if tuple(old.shape) != shape:
                new = torch.zeros(shape, dtype=old.dtype, device=old.device)
                is_parameter = isinstance(old, nn.Parameter)
                setattr(layer, tensor, nn.Parameter(new, old.requires_grad) if is_parameter else new)


def save_pruned(path: Path, model: nn.Module) -> None:
    """Write a network's state and its numbers of channels to a safetensors file."""
    write_tensors(path, model.state_dict(), {"format": FORMAT, "channels": json.dumps(counts(model))})


def load_pruned(path: Path, model: nn.Module) -> None:
    """Make a freshly built original the pruned network of a file.

    Raises:
        InputError: the file is missing, broken or of another kind, or does not fit the network.
    """
    tensors, about = read_tensors(path)
    if about.get("format") != FORMAT:
        raise InputError(f"Expected format {FORMAT} in {path}, got {about.get('format')}.")
    resize(model, json.loads(about["channels"]))
    expected = model.state_dict()
    if (difference := first_difference(expected, tensors, sorted(expected.keys() | tensors.keys()))) is not None:
        key, wanted, found = difference
        raise InputError(f"Expected {key} of shape {wanted} in {path}, got {found}.")
    model.load_state_dict(tensors)
