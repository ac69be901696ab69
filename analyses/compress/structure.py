"""Where does each output channel of a network go, and which channels are one and the same decision?"""

from collections import Counter
from dataclasses import dataclass

from torch import fx, nn

from analyses.compress.channels import Channels
from analyses.compress.following import Follower
from analyses.compress.layers import COUNTED, NORMS, Axis
from analyses.compress.operators import POINTWISE_MODULES
from analyses.compress.tracing import Example, trace
from mcaprobe.errors import InputError


@dataclass(frozen=True)
class Structure:
    """The channels of a traced network.

    Attributes:
        axes: Every axis of channels of every layer.
        outputs: Output channels of each convolution, by its name, in the order of the forward.
        channels: Their classes and locks.
        blocks: The layer whose output is the feature map of a convolution's block: the convolution itself, or the
            normalisation or activation behind it where nothing else reads what lies between.
    """

    axes: tuple[Axis, ...]
    outputs: dict[str, tuple[int, ...]]
    channels: Channels
    blocks: dict[str, str]

    def free(self, layer: str) -> tuple[int, ...]:
        """Return the indices of a convolution's output channels that may go."""
        return tuple(i for i, c in enumerate(self.outputs[layer]) if self.channels.lock_of(c) is None)

    def prunable(self) -> tuple[str, ...]:
        """Return the convolutions of which a channel may go, in the order of the forward; heads are none of them."""
        return tuple(layer for layer in self.outputs if self.free(layer))


def follow(model: nn.Module, example: Example) -> Structure:
    """Return where the channels of a network go.

    Two channels are in one class, and go together, where an operation pairs them: addition, maximum and any other
    operation of two tensors, an unpooling with the indices of a pooling, a concatenation along another axis, a
    depthwise convolution (with its input), a group of a GroupNorm. Locked are the network's inputs and outputs and
    what meets them.

    Args:
        example: The input, or the inputs in their order, as `trace` takes them.

    Raises:
        InputError: the network cannot be traced, or channels cannot be followed through a layer, which is named:
            reshaping, indexing by channel, unknown layers, groups, layers or weights used twice, layers never used.
    """
    graph = trace(model, example)
    _check_use(model, graph)
    follower = Follower(model, graph)
    follower.run()
    return Structure(tuple(follower.axes), follower.outputs, follower.channels, _blocks(model, graph, follower.outputs))


def _check_use(model: nn.Module, graph: fx.Graph) -> None:
    calls = Counter(str(node.target) for node in graph.nodes if node.op == "call_module")
    owners: dict[int, str] = {}
    for name, module in model.named_modules():
        if type(module) not in COUNTED:
            continue
        one = isinstance(module, nn.PReLU) and module.num_parameters == 1
        if calls[name] > 1 and not one:
            raise InputError(f"Expected each layer to be called once, '{name}' is called {calls[name]} times.")
        if calls[name] == 0:
            raise InputError(f"Expected each layer to be called, '{name}' is not, in the mode the network is in.")
        for key, parameter in module._parameters.items():
            if parameter is not None and (owner := owners.setdefault(id(parameter), name)) != name:
                raise InputError(f"Expected each layer to have its own weights, '{name}' has {key} of '{owner}'.")


def _blocks(model: nn.Module, graph: fx.Graph, convolutions: dict[str, tuple[int, ...]]) -> dict[str, str]:
    """Return the layer whose output is the feature map of each convolution's block (see `Structure`)."""
    calls = Counter(str(node.target) for node in graph.nodes if node.op == "call_module")
    blocks = {}
    for node in graph.nodes:
        if node.op != "call_module" or node.target not in convolutions:
            continue
        last, rest = node, [(*NORMS, nn.GroupNorm), (*POINTWISE_MODULES, nn.PReLU)]
        while rest and len(last.users) == 1:
            (user,) = last.users
            kind = type(model.get_submodule(str(user.target))) if user.op == "call_module" else None
            place = next((i for i, kinds in enumerate(rest) if kind in kinds), None)
            # The output of a layer that is called more than once is not this block's alone.
            if place is None or calls[str(user.target)] > 1:
                break
            last, rest = user, rest[place + 1 :]
        blocks[str(node.target)] = str(last.target)
    return blocks
