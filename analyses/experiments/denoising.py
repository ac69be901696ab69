"""What do conversions of the denoiser skip on labelled brains, and what becomes of PSNR and SSIM?

Tables: `layers` (for each subject, method and layer), `slices` (for each slice). The image is the brain as it was
published, the input the same with Rician noise; scores hold the output against the image without it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

import nanops
from analyses.brains import TEST, Brain
from analyses.experiments.counting import BRAIN, Counts, Row, Tables, merge, shares, sums_of
from analyses.methods import STOCK, Method
from analyses.metrics import psnr, ssim
from analyses.preprocessing.planes import CONTEXT, filled, thick_slices
from analyses.training.denoiser import DenoiserSettings, noisy
from analyses.training.randomness import Dice

SIGMA = sum(DenoiserSettings().noise) / 2  # of the noise: the middle of what the network was trained with


@dataclass(frozen=True, slots=True)
class Config:
    """What decides the rows."""

    plane: str
    methods: tuple[Method, ...]
    subjects: tuple[str, ...] = TEST
    every: int = 4  # of the slices that hold a voxel of the brain
    seed: int = 0


def run(
    network: nn.Module, config: Config, load: Callable[[str], Brain], progress: Callable[[str], None] = lambda _: None
) -> Tables:
    """Return the tables of all subjects.

    Args:
        network: FONDUE, trained, in eval mode.
        load: Returns a subject.
    """
    tables: Tables = {}
    for name in config.subjects:
        merge(tables, subject(network, load(name), config, progress))
    return tables


@torch.inference_mode()
def subject(network: nn.Module, brain: Brain, config: Config, progress: Callable[[str], None]) -> Tables:
    """Return the tables of one subject."""
    tables: Tables = {"layers": [], "slices": []}
    network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    pairs = list(noisy_slices(brain, config))
    for i, x, clean in pairs:
        about = {"subject": brain.name, "slice": i}
        tables["slices"].append(about | {"method": "noisy input"} | scores(x[0, CONTEXT], clean))
        tables["slices"].append(about | {"method": STOCK} | scores(network(x)[0, 0], clean))
    for method in config.methods:
        progress(f"{brain.name}: {method.pooling} {method.threshold:g}")
        converted, counts = method.convert(network), Counts()
        about = {"subject": brain.name, "method": method.pooling or "uniform", **method.columns}
        for i, x, clean in pairs:
            with nanops.count_skipped(converted) as skipped:
                y = converted(x)
            counts.add(skipped)
            replaced = sum(int(r.nans.sum()) for r in skipped.replaced)
            row = about | {"slice": i} | scores(y[0, 0], clean) | {"nan_replaced": replaced}
            tables["slices"].append(row | shares(sums_of(skipped.total)))
        tables["layers"] += counts.rows(about, BRAIN)
    return tables


def noisy_slices(brain: Brain, config: Config) -> Sequence[tuple[int, Tensor, Tensor]]:
    """Return index, noisy slices (1, 7, H, W) and the clean middle one (H, W)."""
    indices = torch.nonzero(filled(brain.image, config.plane)).flatten().tolist()[:: config.every]
    found = []
    for i in indices:
        clean = thick_slices(brain.image, config.plane, [i])
        x = noisy(Dice.of(config.seed, int(brain.name), i), clean, SIGMA)
        found.append((i, x.contiguous(memory_format=torch.channels_last), clean[0, CONTEXT]))
    return found


def scores(found: Tensor, clean: Tensor) -> Row:
    """Return PSNR and SSIM of the image, and PSNR in the brain alone."""
    inside = clean > 0
    return {"psnr": psnr(found, clean), "ssim": ssim(found, clean), "psnr_brain": psnr(found[inside], clean[inside])}
