"""Where does each layer of a model lie on its input image?

`survey` runs the model once, unperturbed, under a dispatch mode that follows every aten operator and tags each tensor
with its place on the input grid (`mcaprobe.grids` has the algebra, `mcaprobe.gridrules` the operators).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakTensorKeyDictionary

from mcaprobe.gridrules import PRIMARY, RESAMPLING, SAME, STRUCTURE, concatenated
from mcaprobe.grids import Axis, Dim, Step, Tag, aligned, broadcast, is_lost, move, unknown
from mcaprobe.recorder import record
from mcaprobe.steps import LABELS

COMPOSITE = "CompositeImplicitAutograd"
RULED = frozenset([*RESAMPLING, *STRUCTURE, *SAME])
Grid = tuple[Step, ...]  # (scale, offset) of each spatial axis: input coordinate = offset + scale * layer index


@dataclass(frozen=True, slots=True)
class LayerInfo:
    """What one layer is and where it lies.

    Attributes:
        name: The recorder's name of the layer.
        operator: The operator or module class that made it.
        shape: Shape of its output, without samples.
        dtype: Type of its output.
        grid: (scale, offset) for each spatial axis, so that input coordinate = offset + scale * layer index, in voxel
            centres; None where an operator without a rule made the place unknown, or where there is no space.
        spatial: Whether the last dimensions are the image axes; False for a linear output or permuted axes: no map.
            Before them are the batch and the channels; labels and other decisions over the channels have no channels.
        step: What a layer of integers selects, one of `steps.STEPS`; None for activations.
    """

    name: str
    operator: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    grid: Grid | None
    spatial: bool
    step: str | None = None

    @property
    def assumed(self) -> bool:
        """Return whether a map of this layer has to assume the field of view of the input (edges aligned)."""
        return self.spatial and self.grid is None

    def placed(self, image_shape: Sequence[int]) -> Grid:
        """Return the grid, or where it is unknown the one that keeps the field of view of an input of `image_shape`."""
        if not self.spatial:
            raise ValueError(f"Expected a layer with image axes, got {self.name} of shape {self.shape}: it has no map.")
        if self.grid is not None:
            return self.grid
        sizes = self.shape[-len(image_shape) :]
        return tuple(aligned(before, after) for before, after in zip(image_shape, sizes, strict=True))


def _arguments(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return the operator's arguments by the names of its schema, with defaults."""
    named = {}
    for i, argument in enumerate(func._schema.arguments):
        if i < len(args):
            named[argument.name] = args[i]
        elif argument.name in kwargs or argument.has_default_value():
            named[argument.name] = kwargs.get(argument.name, argument.default_value)
    return named


def _base_name(func: Any) -> str:
    return str(func._schema.name).split("::")[-1].rstrip("_")


def _tensors(values: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]


def _wide(shape: Sequence[int]) -> tuple[int, ...]:
    return tuple(size for size in shape if size > 1)


class GridTracking(TorchDispatchMode):
    """Follow the place of `x` (N, C, *spatial) through every aten operator inside the block.

    `tag_of(tensor)` is None for a tensor that does not depend on `x`.
    """

    def __init__(self, x: Tensor) -> None:
        super().__init__()
        self._tags: Any = WeakTensorKeyDictionary()
        self._tags[x] = Tag((None, None)[: x.ndim] + tuple(Axis(i) for i in range(x.ndim - 2)))

    def tag_of(self, tensor: Tensor) -> Tag | None:
        return self._tags.get(tensor)

    def __torch_dispatch__(
        self,
        func: Any,
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if _base_name(func) not in RULED and torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), COMPOSITE):
            with self:  # composite operators arrive whole where the model enters inference mode
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        result = func(*args, **kwargs)
        inputs = _tensors([args, kwargs])
        if any(self.tag_of(t) is not None for t in inputs):
            self._follow(func, _arguments(func, args, kwargs), inputs, _tensors(result))
        return result

    def _follow(self, func: Any, arguments: dict[str, Any], inputs: list[Tensor], outputs: list[Tensor]) -> None:
        operator = _base_name(func)
        arguments["operator"] = operator
        tags = self._tags_of(operator, func, arguments, inputs, outputs)
        for output, tag in zip(outputs, tags, strict=True):
            base = output._base
            if any(output is t for t in inputs) and base is not None and self.tag_of(base) is None:
                self._tags[base] = unknown(base.ndim)  # a piece of a buffer was written: the buffer's place is unknown
            self._tags[output] = tag if len(tag.dims) == output.ndim else unknown(output.ndim)

    def _tags_of(
        self, operator: str, func: Any, a: dict[str, Any], inputs: list[Tensor], outputs: list[Tensor]
    ) -> list[Tag]:
        shapes = [tuple(t.shape) for t in outputs]
        in_aten = func.namespace == "aten"
        if operator in ("cat", "stack") and in_aten:
            return [self._joined(operator, inputs, a["dim"], outputs[0].ndim)]
        if torch.Tag.pointwise in func.tags or (in_aten and (operator in SAME or operator.endswith("_like"))):
            return [self._elementwise(inputs, output) for output in outputs]
        primary = a[PRIMARY[operator]] if operator in PRIMARY else inputs[0]
        tag = self.tag_of(primary)
        if tag is None or not in_aten:
            return [unknown(output.ndim) for output in outputs]
        before = tuple(primary.shape)
        if operator in STRUCTURE:
            rule = STRUCTURE[operator]
            found = [Tag(dims) for dims in rule(a, tag, before, shapes)]
            if tag.source is not None and operator in (
                "squeeze",
                "unsqueeze",
            ):  # one-dimensional pooling does this
                sizes, dims = tag.source
                found = [Tag(found[0].dims, (sizes, tuple(rule(a, Tag(dims), before, shapes)[0])))]
            return found
        if operator in RESAMPLING:
            return self._resampled(operator, a, tag, before, shapes)
        return [unknown(output.ndim) for output in outputs]

    def _resampled(
        self,
        operator: str,
        a: dict[str, Any],
        tag: Tag,
        before: tuple[int, ...],
        shapes: list[tuple[int, ...]],
    ) -> list[Tag]:
        if operator.startswith("max_unpool"):
            index_tag = self.tag_of(a["indices"])
            if index_tag is not None and index_tag.source is not None and index_tag.source[0] == _wide(shapes[0]):
                return [Tag(index_tag.source[1])]
        steps = RESAMPLING[operator](a, before, shapes[0])
        kept = len(tag.dims) - len(steps)
        dims: tuple[Dim, ...] = tag.dims[:kept] + tuple(
            move(dim, step) for dim, step in zip(tag.dims[kept:], steps, strict=True)
        )
        source = (_wide(before), tag.dims) if "max_pool" in operator else None
        return [Tag(dims, source if i == 1 else None) for i in range(len(shapes))]

    def _elementwise(self, inputs: list[Tensor], output: Tensor) -> Tag:
        known = [(t, self.tag_of(t)) for t in inputs if t.ndim <= output.ndim]
        dims = broadcast(
            [t.shape for t, _ in known], [None if tag is None else tag.dims for _, tag in known], output.shape
        )
        sources = [tag.source for t, tag in known if tag is not None and t.shape == output.shape]
        return Tag(dims, sources[0] if len(inputs) == 1 and sources else None)

    def _joined(self, operator: str, inputs: list[Tensor], dim: int, ndim: int) -> Tag:
        pieces = [t for t in inputs if t.ndim > 0 and (operator == "stack" or t.shape != (0,))]
        if operator == "cat":
            return concatenated([self.tag_of(t) for t in pieces], [t.shape for t in pieces], dim)
        dims = broadcast(
            [t.shape for t in pieces],
            [None if (tag := self.tag_of(t)) is None else tag.dims for t in pieces],
            pieces[0].shape,
        )
        at = dim % ndim
        return Tag((*dims[:at], None, *dims[at:]))


def layer_info(
    name: str, operator: str, tensor: Tensor, tag: Tag | None, spatial_dims: int, step: str | None = None
) -> LayerInfo:
    """Return what is known of one recorded tensor.

    Args:
        tag: Its place, or of labels that of the output they were taken of; None: it does not depend on the image.
        spatial_dims: Image axes of the input.
        step: What it selects, if it does.
    """
    grid, spatial = None, False
    if tag is not None and spatial_dims > 0:
        grid, spatial = _place(tag, spatial_dims, bare=step not in (None, LABELS))
    return LayerInfo(name, operator, tuple(tensor.shape), tensor.dtype, grid, spatial, step)


def _place(tag: Tag, spatial_dims: int, bare: bool) -> tuple[Grid | None, bool]:
    """Return the grid, and whether the last dimensions are the image axes; `bare`: there may be no channels."""
    leading = len(tag.dims) - spatial_dims
    if leading != 2 and not (leading == 1 and bare):
        return None, False
    dims = tag.dims[leading:]
    in_place = all(is_lost(d) or (isinstance(d, Axis) and d.axis == i) for i, d in enumerate(dims))
    known = all(isinstance(d, Axis) for d in dims)
    spatial = in_place and not any(isinstance(d, Axis) for d in tag.dims[:leading])
    if leading == 1 and not known:  # nothing tells channels from a lost axis
        return None, False
    return (tuple((d.scale, d.offset) for d in dims if isinstance(d, Axis)) if spatial and known else None), spatial


def survey(model: nn.Module, x: Tensor, layers: str | list[str] = "*") -> dict[str, LayerInfo]:
    """Run `model` once, unperturbed, and return what each recorded layer is and where it lies.

    Args:
        model: Any module; its mode (train or eval) is left alone.
        x: Input, (N, C, *spatial) with 1, 2 or 3 spatial axes; with fewer dimensions no layer has a place.
        layers: Globs of the recorder.
    Returns:
        LayerInfo by layer name, in execution order.
    """
    found: dict[str, LayerInfo] = {}
    with torch.inference_mode(False), torch.no_grad():
        image = x.clone() if x.is_inference() else x.detach()
        tracking = GridTracking(image)

        def sink(name: str, operator: str, tensor: Tensor) -> None:
            # The recorder takes labels out of sight of the tracking.
            placed = tensor if recorded.labelled is None else recorded.labelled
            step, dims = recorded.steps.get(name), max(0, x.ndim - 2)
            found[name] = layer_info(name, operator, tensor, tracking.tag_of(placed), dims, step)

        with record(model, layers=layers, sink=sink) as recorded, tracking:
            model(image)
    return found
