"""Which input does a model get? From what the user names to a tensor, or one clear sentence."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mcaprobe.errors import InputError
from mcaprobe.folders import file_hash
from mcaprobe.images import Slice, SliceOptions, load_slice
from mcaprobe.models import nearest, tensor_hash
from mcaprobe.tensor_files import TENSOR_SUFFIXES
from mcaprobe.volumes import existing
from mcaprobe.whole import Whole, check_pieces


@dataclass(frozen=True)
class Input:
    """The tensor the model gets, (N, C, *spatial), and the picture it came from, where there is one.

    `regions` are parts of the picture by name, bool of its image axes, and `segmentation` the file they came from.
    Where the input is a whole volume, `whole` has it, and the tensor is its middle piece.
    """

    tensor: Tensor
    name: str
    sha256: str
    file_sha256: str | None = None
    picture: Slice | None = None
    options: SliceOptions | None = None
    regions: Mapping[str, Tensor] = field(default_factory=dict)
    segmentation: str | None = None
    whole: Whole | None = None


def load(
    x: Tensor | np.ndarray | str | Path,
    model: nn.Module,
    options: Mapping[str, Any],
    device: str,
    slices: str | None,
    patches: str | None,
) -> Input:
    """Return the input of a campaign: `load_whole` where slices or patches are asked for, else `load_input`."""
    if slices is None and patches is None:
        return load_input(x, model, options, device)
    return load_whole(x, model, options, device, slices, patches)


def load_input(
    x: Tensor | np.ndarray | str | Path, model: nn.Module, options: Mapping[str, Any], device: str = "cpu"
) -> Input:
    """Return the input tensor: a tensor as it is, a path through `images.load_slice`, `mni152` for nilearn's template.

    Args:
        model: Its attribute `input_options`, where it has one, gives defaults for the slice.
        options: Fields of SliceOptions that the user stated; they win over the model's.
    Raises:
        InputError: unreadable, of an unexpected kind, or with NaN or infinity.
    """
    if isinstance(x, (Tensor, np.ndarray)):
        tensor = torch.as_tensor(x)
        result = Input(tensor, "tensor", tensor_hash(tensor))
    else:
        chosen = slice_options(getattr(model, "input_options", None), options)
        picture = load_slice(x, chosen)
        shown = picture if picture.anatomy is not None else None
        result = Input(picture.tensor, str(x), tensor_hash(picture.tensor), file_hash(existing(x)), shown, chosen)
    _check(result)
    return replace(result, tensor=result.tensor.to(device))


def load_whole(
    path: Any, model: nn.Module, options: Mapping[str, Any], device: str, slices: str | None, patches: str | None
) -> Input:
    """Return a whole image as an input that is streamed through the model piece by piece.

    Args:
        slices: `all`, or START:STOP or START:STOP:STEP, for a two-dimensional model.
        patches: XxYxZ, or `whole` for one patch of everything, for a three-dimensional model.
    Raises:
        InputError: no image, another slice was asked for too, or there are no such slices.
    """
    if not isinstance(path, (str, Path)) or existing(path).suffix.lower() in TENSOR_SUFFIXES:
        raise InputError("Expected an image for slices or patches, got a tensor: it has no slices to choose from.")
    check_pieces(slices, patches)
    if "index" in options:
        raise InputError(f"Expected one slice ({options['index']}) or slices of the whole volume, not both.")
    chosen = replace(slice_options(getattr(model, "input_options", None), options), index=None)
    whole = Whole.read(path, chosen, slices, patches)
    picture = whole.picture(whole.numbers[len(whole.numbers) // 2])
    sha256 = tensor_hash(torch.from_numpy(whole.data))
    result = Input(picture.tensor, str(path), sha256, file_hash(existing(path)), picture, chosen, whole=whole)
    return replace(result, tensor=result.tensor.to(device))


def slice_options(defaults: Any, stated: Mapping[str, Any]) -> SliceOptions:
    """Return SliceOptions from a model's `input_options` (a mapping or None) and what the user stated, which wins."""
    if defaults is not None and not isinstance(defaults, Mapping):
        raise InputError(f"Expected the model's input_options to be a dict, got {type(defaults).__name__}.")
    merged = {**(defaults or {}), **stated}
    known = [f.name for f in fields(SliceOptions)]
    for name in merged:
        if name not in known:
            raise InputError(f"There is no input option {name}: {nearest(name, known)}.")
    return SliceOptions(**merged)


def _check(x: Input) -> None:
    if not x.tensor.is_floating_point():
        raise InputError(f"Expected a floating-point input, got {x.name} of {x.tensor.dtype}.")
    for word, count in (("NaN", int(x.tensor.isnan().sum())), ("infinity", int(x.tensor.isinf().sum()))):
        if count:
            raise InputError(
                f"The input {x.name} has {count} elements of {x.tensor.numel()} that are {word}: none is allowed."
            )
