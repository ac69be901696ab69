"""Which voxels of a head get another label by NaNs? Figures 15 and 16 of the paper, on an image that may be shown."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import nibabel as nib
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from analyses.brains import Brain, even
from analyses.experiments.counting import Counts, Row
from analyses.experiments.segmentation import Config as Slices
from analyses.experiments.segmentation import segment
from analyses.methods import STOCK, Method
from analyses.preprocessing.conform import conform
from analyses.preprocessing.planes import from_plane
from analyses.structures import CLASSES
from mcaprobe.volumes import TEMPLATE, existing

METHODS = (Method("aggressive", 1.0), Method("aggressive", 0.5), Method("conservative", 0.5))
ALL = "all"


@dataclass(frozen=True, slots=True)
class Config:
    """What decides the labels, beside the network."""

    plane: str = "axial"
    methods: tuple[Method, ...] = METHODS
    every: int = 1  # of the slices that hold a voxel of the brain; the others stay background
    image: str = TEMPLATE


@dataclass(frozen=True)
class Overlay:
    """An image and the labels that the network and its conversions give it.

    Attributes:
        image: Conformed, (256, 256, 256) uint8, LIA.
        affine: From its voxels to millimetres.
        labels: For `stock` and each method (by `name_of`) the classes of the structures, the same grid, uint8.
    """

    image: Tensor
    affine: NDArray[np.float64]
    labels: Mapping[str, Tensor]


def name_of(method: Method) -> str:
    """Return a method in a few words."""
    return f"{method.pooling} NaNs, t2 = {method.threshold:g}"


def template(name: str = TEMPLATE) -> Brain:
    """Return an image, conformed, as a brain of which no class is known."""
    image = conform(even(nib.Nifti1Image.from_filename(existing(name))))
    data = torch.from_numpy(np.asarray(image.dataobj))
    return Brain(name, data, torch.zeros_like(data), image.affine)


@torch.inference_mode()
def run(
    network: nn.Module, brain: Brain, config: Config, progress: Callable[[str], None] = lambda _: None
) -> Overlay:
    """Return the labels by torch and by each method.

    Args:
        network: Trained for the plane, in eval mode.
    """
    network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    slices = Slices(config.plane, config.methods, (brain.name,), every=config.every)

    def labels(model: nn.Module, name: str) -> Tensor:
        progress(name)
        found = segment(model, brain, slices, Counts(), Counts(), [])
        return from_plane(found.movedim(0, 2), config.plane).contiguous()

    stock = {STOCK: labels(network, STOCK)}
    others = {name_of(m): labels(m.convert(network), name_of(m)) for m in config.methods}
    return Overlay(brain.image, brain.affine, stock | others)


def rows(overlay: Overlay) -> Iterator[Row]:
    """Yield for each method a row in total and one for each structure: how many voxels got another label.

    A voxel is lost by the structure that torch's network gives it, and gained by the one that the method does.
    """
    stock = overlay.labels[STOCK]
    for name, labels in overlay.labels.items():
        if name == STOCK:
            continue
        both = torch.bincount((len(CLASSES) * stock.int() + labels).flatten(), minlength=len(CLASSES) ** 2)
        pairs = both.view(len(CLASSES), len(CLASSES))  # voxels by torch's label and the method's
        before, after, same = pairs.sum(1).tolist(), pairs.sum(0).tolist(), pairs.diagonal().tolist()
        brain, differing = sum(before[1:]), sum(before) - sum(same)
        yield {"method": name, "structure": ALL, "voxels_torch": brain, "differing": differing}
        for k, structure in enumerate(CLASSES):
            lost, gained = before[k] - same[k], after[k] - same[k]
            yield {
                "method": name, "structure": structure, "voxels_torch": before[k], "differing": lost + gained,
                "lost": lost, "gained": gained,
            }  # fmt: skip
