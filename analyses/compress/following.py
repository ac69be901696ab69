"""What becomes of channels from one operation of a traced network to the next?"""

import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch.nn.functional as F
from torch import fx, nn

from analyses.compress.channels import Channels
from analyses.compress.layers import COUNTED, NORMS, PRODUCERS, Axis, convolution_axes, norm_axis
from analyses.compress.operators import (
    CONCATENATIONS,
    KEEPING_FUNCTIONS,
    KEEPING_METHODS,
    KEEPING_MODULES,
    OF_TWO,
    REDUCTIONS,
    canonical_axis,
)  # fmt: skip
from analyses.compress.tracing import place
from mcaprobe.errors import InputError

Layout = Any  # the channels along axis 1, a tuple of layouts for a tuple of tensors, or None where there are none


class _Unfollowed(Exception):
    """An operation whose effect on channels is unknown; the message says why."""


class Follower:
    """Goes through a graph once, in its order; see `structure.follow`.

    Attributes:
        channels: Classes and locks of all channels.
        axes: Every axis of channels of every layer.
        outputs: Output channels of each convolution.
    """

    def __init__(self, model: nn.Module, graph: fx.Graph) -> None:
        self.model, self.graph = model, graph
        self.channels = Channels()
        self.layouts: dict[fx.Node, Layout] = {}
        self.axes: list[Axis] = []
        self.outputs: dict[str, tuple[int, ...]] = {}
        self.last = _after_the_last_layer(graph, model)

    def run(self) -> None:
        """Fill the attributes.

        Raises:
            InputError: channels cannot be followed through a layer, which is named.
        """
        for node in self.graph.nodes:
            try:
                self.layouts[node] = _checked(self._layout(node), node.meta["shape"])
            except _Unfollowed as error:
                if node not in self.last:
                    raise InputError(
                        f"Expected channels that can be followed, got {place(node)}, which {error}."
                    ) from None
                self._lock(node.all_input_nodes, f"leaves the network through {place(node)}")
                self.layouts[node] = None

    def _layout(self, node: fx.Node) -> Layout:
        match node.op:
            case "placeholder":
                shape = node.meta["shape"]
                inputs = self.channels.new(shape[1]) if len(shape) > 1 else ()
                self.channels.lock(inputs, "is an input of the network")
                return inputs
            case "output":
                self._lock(node.all_input_nodes, "leaves the network")
                return None
            case "get_attr":
                return None
            case "call_module":
                return self._module(node)
            case "call_method":
                return self._operation(node, KEEPING_METHODS)
            case _:
                return self._operation(node, KEEPING_FUNCTIONS)

    def _lock(self, nodes: Sequence[fx.Node], reason: str) -> None:
        for node in nodes:
            self.channels.lock(_flat(self.layouts[node]), reason)

    def _module(self, node: fx.Node) -> Layout:
        name = str(node.target)
        layer: Any = self.model.get_submodule(name)
        kind = type(layer)
        if kind in KEEPING_MODULES or (isinstance(layer, nn.PReLU) and layer.num_parameters == 1):
            return self._keep(node)
        if kind not in COUNTED:
            raise _Unfollowed(f"is a {kind.__name__}")
        into = self._single(node)
        if kind in PRODUCERS:
            return self._convolution(node, name, layer, into)
        if kind is nn.Linear:
            if len(node.all_input_nodes[0].meta["shape"]) != 2:
                raise _Unfollowed("takes another axis than the channels")
            out = self.channels.new(layer.out_features)
            self.channels.lock(out, f"comes from '{name}', a Linear")
            self.axes.append(Axis(name, (("weight", 1),), ("in_features",), into))
            return out
        if kind is nn.GroupNorm:
            return self._group_norm(name, layer, into)
        if kind not in NORMS and kind is not nn.PReLU:
            raise _Unfollowed(f"is a {kind.__name__}")
        self.axes.append(norm_axis(name, layer, into))
        return into

    def _convolution(self, node: fx.Node, name: str, layer: Any, into: Sequence[int]) -> Layout:
        if "weight" not in layer._parameters:
            raise _Unfollowed("computes its weight from other parameters")
        if len(node.meta["shape"]) != layer.weight.ndim:
            raise _Unfollowed(f"is given {len(node.meta['shape'])} axes and no batch")
        out = self.channels.new(layer.out_channels)
        self.axes.extend(convolution_axes(name, layer, into, out))
        self.outputs[name] = out
        if layer.groups > 1:
            times = layer.out_channels // layer.in_channels
            self.channels.join(out, [channel for channel in into for _ in range(times)])
        return out

    def _group_norm(self, name: str, layer: nn.GroupNorm, into: Sequence[int]) -> Layout:
        # A channel counts in the statistics of its whole group, which therefore goes whole.
        size = layer.num_channels // layer.num_groups
        firsts = [channel for channel in into[::size] for _ in range(size)]
        self.channels.join(into, firsts)
        self.axes.append(norm_axis(name, layer, into))
        self.axes.append(Axis(name, (), ("num_groups",), tuple(into[::size])))
        return into

    def _operation(self, node: fx.Node, keeping: frozenset[Any]) -> Layout:
        target: Any = node.target
        if target in keeping or (target in OF_TWO and len(node.all_input_nodes) == 2):
            return self._keep(node)
        rules: list[tuple[Any, Callable[[fx.Node], Layout]]] = [
            (CONCATENATIONS, self._concatenation), (REDUCTIONS, self._reduction),
            ({operator.getitem}, self._item), ({F.pad}, self._pad),
        ]  # fmt: skip
        for targets, rule in rules:
            if target in targets:
                return rule(node)
        raise _Unfollowed("is not known to keep channels apart")

    def _single(self, node: fx.Node) -> tuple[int, ...]:
        layout = self.layouts[node.all_input_nodes[0]] if len(node.all_input_nodes) == 1 else None
        if not layout or not isinstance(layout[0], int):
            raise _Unfollowed("is not given one tensor with channels")
        return tuple(layout)

    def _keep(self, node: fx.Node) -> Layout:
        """Join the channels of all inputs."""
        ndim = len(_first(node.meta["shape"]))
        joined: tuple[int, ...] | None = None
        for other in node.all_input_nodes:
            layout, shape = self.layouts[other], other.meta["shape"]
            if other.op == "get_attr":
                if len(shape) >= ndim - 1 and shape[1 - ndim] != 1:
                    raise _Unfollowed(f"meets '{other.target}', which has numbers a channel")
                continue
            if not layout or not isinstance(layout[0], int) or len(shape) != ndim:
                raise _Unfollowed("is not given tensors with channels")
            joined = tuple(layout) if joined is None else self._meet(joined, tuple(layout), node)
        if joined is None:
            raise _Unfollowed("is not given a tensor with channels")
        shape = node.meta["shape"]
        return (joined,) * len(shape) if _is_several(shape) else joined  # values and indices of a pooling

    def _meet(self, one: tuple[int, ...], other: tuple[int, ...], node: fx.Node) -> tuple[int, ...]:
        wide, narrow = (one, other) if len(one) >= len(other) else (other, one)
        if len(wide) != len(narrow):
            self.channels.lock(narrow, f"meets every channel of another tensor in {place(node)}")
        else:
            self.channels.join(wide, narrow)
        return wide

    def _concatenation(self, node: fx.Node) -> Layout:
        parts = node.args[0] if node.args else node.kwargs.get("tensors")
        axis: Any = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", node.kwargs.get("axis", 0))
        if not isinstance(parts, (tuple, list)):
            raise _Unfollowed("concatenates what is not a list of tensors")
        layouts: list[Layout] = [self.layouts[part] if isinstance(part, fx.Node) else None for part in parts]
        if any(not layout or not isinstance(layout[0], int) for layout in layouts):
            raise _Unfollowed("is not given tensors with channels")
        if canonical_axis(axis, len(node.meta["shape"])) == 1:
            return tuple(channel for layout in layouts for channel in layout)
        for layout in layouts[1:]:
            self.channels.join(layouts[0], layout)
        return layouts[0]

    def _reduction(self, node: fx.Node) -> Layout:
        layout = self._single(node)
        dims: Any = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim")
        ndim = len(node.all_input_nodes[0].meta["shape"])
        axes = {canonical_axis(d, ndim) for d in ((dims,) if isinstance(dims, int) else dims or range(ndim))}
        if 1 in axes or (0 in axes and len(node.meta["shape"]) < ndim):
            raise _Unfollowed("reduces the channels or moves their axis")
        return layout

    def _item(self, node: fx.Node) -> Layout:
        of, key = node.args
        layout = self.layouts[of] if isinstance(of, fx.Node) else None
        if layout is not None and _is_several(of.meta["shape"]) and isinstance(key, int):  # type: ignore[union-attr]
            return layout[key]
        keys: Any = key if isinstance(key, tuple) else (key,)
        whole = slice(None)
        if not all(isinstance(k, slice) for k in keys) or (len(keys) > 1 and keys[1] != whole):
            raise _Unfollowed("picks parts of a tensor by number")
        return self._single(node)

    def _pad(self, node: fx.Node) -> Layout:
        pad: Any = node.args[1] if len(node.args) > 1 else node.kwargs.get("pad")
        layout, ndim = self._single(node), len(node.meta["shape"])
        # The last axis comes first; axis 1 is described by the pair after those of the axes behind it.
        if any(pad[2 * (ndim - 2) : 2 * (ndim - 1)]):
            raise _Unfollowed("pads the channels")
        return layout


def _flat(layout: Layout) -> list[int]:
    if layout is None:
        return []
    return [c for part in layout for c in (_flat(part) if isinstance(part, tuple) else (part,))]


def _checked(layout: Layout, shape: Any) -> Layout:
    """Return a layout, which has as many channels as the tensor, or raise _Unfollowed."""
    if layout and isinstance(layout[0], int) and len(layout) != shape[1]:
        raise _Unfollowed("changes the number of channels")
    return layout


def _is_several(shape: Any) -> bool:
    return bool(shape) and isinstance(shape[0], tuple)


def _first(shape: Any) -> tuple[int, ...]:
    return tuple(shape[0] if _is_several(shape) else shape)


def _after_the_last_layer(graph: fx.Graph, model: nn.Module) -> set[fx.Node]:
    """Return the operations without weights behind which no operation with weights follows: part of a head."""
    found: set[fx.Node] = set()
    for node in reversed(list(graph.nodes)):
        layer = model.get_submodule(str(node.target)) if node.op == "call_module" else None
        weighty = any(other.op == "get_attr" for other in node.all_input_nodes) or (
            layer is not None and any(True for _ in layer.parameters())
        )
        if not weighty and (node.op == "output" or all(user in found for user in node.users)):
            found.add(node)
    return found
