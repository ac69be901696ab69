"""Which operations does a network apply, and to tensors of which shapes?

`torch.fx.symbolic_trace` stops where a network looks at a shape or at an optional argument. The tracer here is its
`Tracer` with an example beside every proxy: branches and arithmetic that depend on shapes go as the example takes them.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from mcaprobe.errors import InputError

Example = Tensor | Sequence[Tensor]


class ShapedProxy(fx.Proxy):
    """A proxy whose shape, type and device are those of the example."""

    @property
    def value(self) -> Any:
        """What the example becomes here: a tensor or a tuple of them."""
        return self.node.meta["value"]

    @property
    def shape(self) -> torch.Size:
        """Shape of the example's tensor."""
        return self.value.shape

    @property
    def ndim(self) -> int:
        """Number of axes of the example's tensor."""
        return self.value.ndim

    @property
    def dtype(self) -> torch.dtype:
        """Type of the example's numbers."""
        return self.value.dtype

    @property
    def device(self) -> torch.device:
        """Where the example's tensor is."""
        return self.value.device

    def __len__(self) -> int:
        """Return the number of parts of a tuple, or of samples."""
        return len(self.value)

    def size(self, dim: int | None = None) -> Any:
        """Return the example's size, or that of one axis."""
        return self.value.shape if dim is None else self.value.shape[dim]

    def dim(self) -> int:
        """Return the number of axes."""
        return self.value.ndim

    def numel(self) -> int:
        """Return the number of elements of the example's tensor."""
        return self.value.numel()


class ShapedTracer(fx.Tracer):
    """Traces a module and computes the example at every node, once.

    Attributes:
        at: Name of the innermost module that was entered last, for messages.
    """

    def __init__(self, example: Sequence[Tensor]) -> None:
        super().__init__()
        self.example = tuple(example)
        self.at = ""
        self._waiting = iter(self.example)
        self._computing = False

    def create_args_for_root(
        self, root_fn: Any, is_module: bool, concrete_args: Any = None
    ) -> tuple[Any, list[Any]]:
        """Return the forward function with one placeholder a tensor of the example; its defaults fill the rest."""
        placeholders = [self.create_proxy("placeholder", f"x{i}", (), {}) for i in range(len(self.example))]
        return root_fn, [self.root, *placeholders]

    def proxy(self, node: fx.Node) -> ShapedProxy:
        """Return the node's proxy."""
        return ShapedProxy(node, self)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        """Return an attribute of a module; a parameter is itself while the example is computed."""
        return attr_val if self._computing else super().getattr(attr, attr_val, parameter_proxy_cache)

    def call_module(self, m: nn.Module, forward: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return what a module makes of its arguments."""
        if self._computing:
            return forward(*args, **kwargs)
        self.at = self.path_of_module(m)
        if self.is_leaf_module(m, self.at) and any(True for _ in m.children()):
            raise InputError(f"Expected layers that can be followed, got '{self.at}', a {type(m).__name__}.")
        return super().call_module(m, forward, args, kwargs)

    def create_proxy(self, kind: str, target: Any, args: Any, kwargs: Any, *rest: Any, **options: Any) -> fx.Proxy:
        """Return the proxy of a new node, behind which the example's value stands."""
        proxy = super().create_proxy(kind, target, args, kwargs, *rest, **options)
        proxy.node.meta["scope"] = self.scope.module_path
        proxy.node.meta["value"] = self._compute(proxy.node)
        return proxy

    def _compute(self, node: fx.Node) -> Any:
        args, kwargs = fx.node.map_arg((node.args, node.kwargs), self._value)
        self._computing = True
        try:
            match node.op:
                case "placeholder":
                    return next(self._waiting)
                case "get_attr":
                    return _attribute(self.root, str(node.target))
                case "call_module":
                    return _forward(self.root.get_submodule(str(node.target)), args, kwargs)
                case "call_method":
                    return getattr(args[0], str(node.target))(*args[1:], **kwargs)
                case _:
                    return node.target(*args, **kwargs)  # type: ignore[operator]
        finally:
            self._computing = False

    def _value(self, node: fx.Node) -> Any:
        if "value" not in node.meta:  # a constant of the forward, which the tracer parks in the network
            node.meta["value"] = _attribute(self.root, str(node.target))
        return node.meta["value"]

    def iter(self, obj: fx.Proxy) -> Iterator[Any]:
        """Yield the parts of a tuple.

        Raises:
            InputError: obj is a tensor.
        """
        value = obj.node.meta["value"]
        if isinstance(value, Tensor):
            raise InputError(f"Expected no loop over the parts of a tensor, found one in {place(obj.node)}.")
        return iter([obj[i] for i in range(len(value))])  # type: ignore[index]

    def to_bool(self, obj: fx.Proxy) -> bool:
        """Never return: a branch depends on values.

        Raises:
            InputError: always.
        """
        raise InputError(f"Expected no branch that depends on values, found one in {place(obj.node)}.")


def place(node: fx.Node) -> str:
    """Return where in the network a node is, and what it does, in words."""
    what = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", str(node.target))
    if node.op == "call_module":
        return f"'{what}'"
    scope = node.meta.get("scope", "")
    return f"'{scope}' ({what})" if scope else f"the network itself ({what})"


def trace(model: nn.Module, example: Example) -> fx.Graph:
    """Return the graph of a network's forward; each node's `meta["shape"]` is its shape, or a tuple of shapes.

    The network computes the example once, in the mode it is in, its layers however as in eval mode and without hooks;
    weights, running statistics, modes and the global generator are left as they were.

    Args:
        example: The input, or the inputs in their order; further arguments of forward have their defaults.

    Raises:
        InputError: the network cannot be traced; the sentence says in which layer.
    """
    inputs = (example,) if isinstance(example, Tensor) else tuple(example)
    tracer = ShapedTracer(inputs)
    attributes = set(vars(model))
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            graph = tracer.trace(model)
    except InputError:
        raise
    except (fx.proxy.TraceError, RuntimeError, TypeError, ValueError, AttributeError, IndexError, KeyError) as error:
        where = f"'{tracer.at}'" if tracer.at else "the network itself"
        raise InputError(f"Expected a network that can be traced, got an error in {where}: {error}") from error
    finally:
        for name in set(vars(model)) - attributes:  # the tracer parks constants in the network
            delattr(model, name)
    for node in graph.nodes:
        node.meta["shape"] = _shapes(node.meta.pop("value", None))
    return graph


def _forward(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    training, layer.training = layer.training, False  # running statistics stay as they are
    try:
        return layer.forward(*args, **kwargs)  # not the call: a hook is no part of the layer
    finally:
        layer.training = training


def _attribute(root: nn.Module, path: str) -> Any:
    owner, _, name = path.rpartition(".")
    return getattr(root.get_submodule(owner), name)


def _shapes(value: Any) -> Any:
    if isinstance(value, Tensor):
        return tuple(value.shape)
    if isinstance(value, (tuple, list)):
        return tuple(_shapes(part) for part in value)
    return None
