"""Which network is in a published checkpoint, and do its parameters fit?

The published files themselves were not at hand: names and shapes are those of the code that wrote them (FastSurfer
1.1.2 and 2.1.1, FONDUE 1.1, the PyTorch port of Xception) and, for the stand-ins, of the files that were.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from analyses.models.checkpoint import first_difference, read_tensors
from analyses.models.fastsurfer import FastSurferVINN
from analyses.models.fastsurfer_cnn import FastSurferCNN
from analyses.models.fondue import FONDUE
from analyses.models.noise2noise import Noise2Noise
from analyses.models.pickles import read_pickle
from analyses.models.relaynet import ReLayNet
from analyses.models.squeezenet import SqueezeNet
from analyses.models.xception import Xception
from mcaprobe.errors import InputError

Weights = Mapping[str, Tensor]
# Where the programs put the state dict, in this order.
PARTS = ("model_state", "model_state_dict", "state_dict")
COUNTER = "num_batches_tracked"  # files of an older torch do not hold it


@dataclass(frozen=True)
class Kind:
    """One architecture.

    Attributes:
        mark: A parameter that only its files have.
        build: Makes the network, with the sizes that the shapes of a file tell.
    """

    name: str
    mark: str
    build: Callable[[Weights], nn.Module]


def _vinn(w: Weights) -> nn.Module:
    first, second = w["inp_block.conv0.weight"], w["encode1.conv0.weight"]
    return FastSurferVINN(first.shape[1], second.shape[0], first.shape[0], w["classifier.conv.weight"].shape[0])


def _cnn(w: Weights) -> nn.Module:
    first = w["encode1.conv0.weight"]
    return FastSurferCNN(first.shape[1], first.shape[0], w["classifier.conv.weight"].shape[0])


def _fondue(w: Weights) -> nn.Module:
    first = w["conv0_0.conv1.weight"]
    return FONDUE(first.shape[1], first.shape[0], w["final1.weight"].shape[0])


def _xception(w: Weights) -> nn.Module:
    return Xception(w["fc.weight"].shape[0])


KINDS = (
    Kind("FastSurferVINN", "inp_block.conv0.weight", _vinn),
    Kind("FastSurferCNN", "encode1.bn0.weight", _cnn),
    Kind("FONDUE", "conv0_6.conv1.weight", _fondue),
    Kind("Xception", "block1.rep.0.conv1.weight", _xception),
    Kind("ReLayNet", "encode1.conv.weight", lambda w: ReLayNet()),
    Kind("SqueezeNet", "fire2/conv1x1_1.weight", lambda w: SqueezeNet()),
    Kind("Noise2Noise", "_block1.0.weight", lambda w: Noise2Noise()),
)


def load_checkpoint(path: Path) -> nn.Module:
    """Return the network of a published checkpoint, in eval mode: what it is and how wide is read from the file.

    Files of torch.save (.pkl, .pt, .pth) are read without executing anything in them; .safetensors are what
    `python -m analyses convert` makes of the others.

    Raises:
        InputError: no such file, one that cannot be read, none of the architectures, or a parameter that does not fit
            (the first one in the network's order is named, with what was expected and what arrived).
    """
    weights = weights_of(read_tensors(path)[0] if path.suffix == ".safetensors" else read_pickle(path), path)
    kind = next((kind for kind in KINDS if kind.mark in weights), None)
    if kind is None:
        names = ", ".join(kind.name for kind in KINDS)
        first = next(iter(weights), "none")
        raise InputError(f"Expected the parameters of one of {names} in {path}, got others (the first: {first}).")
    try:
        network = kind.build(weights)
    except KeyError as error:
        missing = error.args[0]
        raise InputError(f"Expected the parameter {missing} of {kind.name} in {path}, found no such key.") from None
    fit(network, weights, f"{path} ({kind.name})")
    return network.eval()


def weights_of(content: Any, path: Path) -> dict[str, Tensor]:
    """Return the state dict in what a checkpoint holds, without the prefix of a parallel run.

    Raises:
        InputError: it holds none.
    """
    for part in PARTS:
        if isinstance(content, Mapping) and isinstance(content.get(part), Mapping):
            content = content[part]
            break
    if not isinstance(content, Mapping) or not any(isinstance(value, Tensor) for value in content.values()):
        raise InputError(f"Expected a state dict, or one under {', '.join(PARTS)}, in {path}, found none.")
    return {
        _renamed(str(key).removeprefix("module.")): value for key, value in content.items() if isinstance(value, Tensor)
    }


def _renamed(key: str) -> str:
    """Return a parameter's name; one port of Xception calls its last layer otherwise."""
    return key.replace("last_linear.", "fc.")


def fit(network: nn.Module, weights: Weights, where: str) -> None:
    """Put parameters into a network; InputError names the first that is missing, too much or of another shape."""
    own = network.state_dict()
    keys = [key for key in own if key in weights or not key.endswith(COUNTER)]
    keys += [key for key in weights if key not in own]
    if (difference := first_difference(own, weights, keys)) is not None:
        key, wanted, found = difference
        raise InputError(f"Expected {key} to be {wanted} in {where}, found {found}.")
    network.load_state_dict(dict(weights), strict=False)
