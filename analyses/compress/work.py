"""How many multiply-accumulates does a network's forward take?"""

from math import prod
from typing import Any

from torch import nn

from analyses.compress.layers import PRODUCERS, TRANSPOSED
from analyses.compress.tracing import Example, trace


def macs(model: nn.Module, example: Example) -> dict[str, int]:
    """Return the multiply-accumulates of each convolution for an input of the example's shape, by name.

    Every product counts once, those with padding too: filters times kernel times output positions; for a transposed
    convolution times input positions. Calls of one layer add up.

    Raises:
        InputError: the network cannot be traced.
    """
    counts: dict[str, int] = {}
    for node in trace(model, example).nodes:
        layer: Any = model.get_submodule(str(node.target)) if node.op == "call_module" else None
        if type(layer) not in PRODUCERS:
            continue
        at = node.all_input_nodes[0] if type(layer) in TRANSPOSED else node
        batch, _, *size = at.meta["shape"]
        name = str(node.target)
        counts[name] = counts.get(name, 0) + batch * prod(size) * layer.weight.numel()
    return counts
