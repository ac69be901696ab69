"""Turn a model into one that knows NaN, and back."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import Generator, Tensor, nn

from nanops.conversion.copying import check, copied
from nanops.conversion.masks import expect_masks, read_masks
from nanops.conversion.mode import Conversion, Converted, Site, become
from nanops.conversion.options import Options, resolve
from nanops.errors import InputError
from nanops.functional.final import expect_policy
from nanops.overrides import load_overrides
from nanops.tolerance import PAPER, Tolerance


def convert(
    model: nn.Module, pooling: str | None = "conservative", threshold: float = 0.5, fill: str = "mean",
    tolerance: Tolerance = PAPER, max_ties: int = 1, layers: str | Iterable[str] = "*", final: str = "zero", *,
    generator: Generator | None = None, count_padding: bool = True, uniform: bool = False, sigma: float = 1e-3,
    background: int = 0, overrides: Mapping[str, Mapping[str, Any]] | str | Path | None = None,
    masks: Mapping[str, Tensor] | None = None,
) -> nn.Module:  # fmt: skip
    """Return a copy of a model whose pools make NaN, and whose convolutions skip it; the original stays as it is.

    The copy has the original's very parameters and buffers, its hooks and the names of its layers: training or loading
    the one changes the other. (Move a model to a device or dtype before its conversion: that gives it new buffers.)
    Whether a module or a functional call does it makes no difference:

    - Convolutions, also transposed ones, are NaN convolutions. Norms take their statistics, and linear resizing its
      weights, from the valid values.
    - Max-pools ignore NaN. `conservative`: where the indices are asked for, ties travel in their place, and the unpool
      writes NaN at all tied positions (the paper's section 3). `aggressive`: a pool is NaN where more than `max_ties`
      values tie (section 4). `hybrid`: both. None: pools make no NaN, they only ignore it. `mask`: as None, and NaN
      where an oracle says, in `masks`, at the outputs of pools and unpools.
    - NaN is replaced by 0 before linear layers, average pools, means and sums, and before all convolutions, norms and
      pools of layers that are not selected; the final policy applies to the output and before softmax, argmax, sorting
      and extremes inside the model, with "zero" for those of the former. `count_skipped` lists what was replaced.
    - An operator that is not known to keep a NaN in its place runs as long as no NaN reaches it, and is refused then.

    Without gradients an activation, a convolution, a batch norm and a maximum that follow each other are one call of
    the kernel where something is skipped; a tensor between them is computed when somebody looks at it.

    Outside its forward the copy calls torch's own functions, as do hooks. A conversion follows every function of torch
    that is called from Python, in whatever thread; a scripted function inside a forward is not seen.

    Args:
        model: Any module; its forward may use anything of torch.
        threshold: In (0, 1], the share of NaN from which on a window is skipped (the paper's t2).
        fill: What stands for NaN in the other windows: "mean" or "max_normal" (which needs a `generator`, and `sigma`).
        tolerance: How near values tie.
        max_ties: The paper's t1.
        layers: Globs over paths of modules such as "decode*"; those that match, and all inside them, are converted.
        final: What becomes of NaN at the end: "zero", as in the paper; "background", the logits of the class
            `background`; or "keep".
        count_padding: Whether padding zeros are valid values.
        uniform: Whether windows of constant background get their known output.
        overrides: Other values of these options (not `pooling`, `final`, `masks`) by glob, or a file of
            `save_overrides`; the last match decides.
        masks: For "mask", by name of a max-pool's or unpool's call, bool tensors of the shape that it returns, or with
            batch 1 for all samples; not copied. Names are those of conversion/masks.py: `encode1.pool`,
            `encode1.pool.indices` (over windows), `decoder.1:max_unpool2d`, `:max_pool2d:2` (the second in a forward).

    Raises:
        InputError: an option that makes no sense, a glob that matches no layer, a model that was converted before; a
            mask that is of no pool, and in the forward one of another shape.
        ConversionError: a model that cannot be converted faithfully. What only a forward shows is refused there, also
            that a call with a mask was not made.
    """
    expect_policy(final, background)
    base = Options(pooling, threshold, fill, sigma, tolerance, max_ties, generator, count_padding, uniform)
    expect_masks(pooling, masks)
    if overrides is not None and not isinstance(overrides, Mapping):
        overrides = load_overrides(overrides)
    check(model)
    names: dict[nn.Module, list[str]] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        names.setdefault(module, []).append(path)
    options = resolve(list(names.values()), base, layers, overrides)
    found = {paths[0]: own for paths, own in zip(names.values(), options, strict=True)}
    selected = {path for path, own in found.items() if own is not None}
    conversion = Conversion(model, final, background, read_masks(masks, names, selected) if masks else None)
    converted = copied(model)
    for path, module in list(converted.named_modules()):
        vars(module)["_nanops"] = Site(conversion, path, found[path], type(module))
        become(module)
    return converted


def restore(converted: nn.Module) -> nn.Module:
    """Return the original of a converted model.

    Raises:
        InputError: a module that `convert` did not return.
    """
    site: Site | None = getattr(converted, "_nanops", None) if isinstance(converted, Converted) else None
    if site is None:
        raise InputError(f"Expected a model made by nanops.convert, got a {type(converted).__name__}.")
    if site.path:
        raise InputError(f"Expected a whole model made by nanops.convert, got its layer {site.path!r}.")
    return site.conversion.original
