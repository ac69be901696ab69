"""How well do two segmentations, two images or two classifications agree? By torchmetrics, with fixed options."""

from typing import Any

import torch
from torch import Tensor
from torchmetrics.functional.classification import multiclass_accuracy, multiclass_f1_score
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure
from torchmetrics.functional.segmentation import dice_score

from mcaprobe.errors import InputError

DICE_OPTIONS: dict[str, Any] = {
    "include_background": True,
    "average": "none",
    "input_format": "index",
    "aggregation_level": "samplewise",
}
DICE_DEFINITION = "2 |P and T| / (|P| + |T|) over the voxels of one subject and region; NaN where both are empty"
PSNR_OPTIONS: dict[str, Any] = {"data_range": 1.0, "base": 10.0}
# Those of Wang et al. 2004 (IEEE TIP), as scikit-image has them with gaussian_weights and without sample covariance.
SSIM_OPTIONS: dict[str, Any] = {
    "gaussian_kernel": True, "sigma": 1.5, "kernel_size": 11, "data_range": 1.0, "k1": 0.01, "k2": 0.03,
}  # fmt: skip
SSIM_BORDER = 5  # pixels, half a window
F1_OPTIONS: dict[str, Any] = {"average": "macro"}


def dice_of_classes(predicted: Tensor, target: Tensor, where: Tensor, classes: int) -> list[float]:
    """Return the Dice coefficient of each class over the voxels of a region, by torchmetrics with fixed options.

    Args:
        predicted: Classes of any shape.
        target: Classes of the same shape.
        where: Bool of the same shape; other voxels count in no way.
    Returns:
        One number in [0, 1] for each class; NaN where neither has the class.
    """
    p, t = predicted[where].long()[None], target[where].long()[None]
    scores = dice_score(p, t, num_classes=classes, **DICE_OPTIONS)[0]
    present = torch.bincount(p[0], minlength=classes) + torch.bincount(t[0], minlength=classes) > 0
    return [float(s) if here else float("nan") for s, here in zip(scores, present, strict=True)]


def psnr(found: Tensor, expected: Tensor) -> float:
    """Return the peak signal-to-noise ratio in dB of an image (H, W) in [0, 1]; infinite where both are the same.

    Raises:
        InputError: NaN in either: it is to be counted and replaced before.
    """
    _expect_numbers(found, expected)
    if torch.equal(found, expected):
        return float("inf")
    return float(peak_signal_noise_ratio(found, expected, **PSNR_OPTIONS))


def ssim(found: Tensor, expected: Tensor) -> float:
    """Return the structural similarity of an image (H, W) in [0, 1].

    Raises:
        InputError: NaN in either: it is to be counted and replaced before.
    """
    _expect_numbers(found, expected)
    # torchmetrics averages over windows that leave the image, too; the publication and scikit-image leave them out.
    _, each = structural_similarity_index_measure(
        found[None, None], expected[None, None], return_full_image=True, **SSIM_OPTIONS
    )
    return float(each[..., SSIM_BORDER:-SSIM_BORDER, SSIM_BORDER:-SSIM_BORDER].mean())


def f1(logits: Tensor, target: Tensor) -> tuple[float, float]:
    """Return the mean of the classes' F1, and the accuracy, of logits (N, classes) and classes (N,).

    Raises:
        InputError: NaN in the logits: it is to be counted and replaced before.
    """
    _expect_numbers(logits)
    classes, predicted = logits.shape[1], logits.argmax(1)
    score = float(multiclass_f1_score(predicted, target, classes, **F1_OPTIONS))
    return score, float(multiclass_accuracy(predicted, target, classes, average="micro"))


def _expect_numbers(*tensors: Tensor) -> None:
    bad = sum(int(t.isnan().sum()) for t in tensors)
    if bad:
        raise InputError(f"Expected numbers to score, got {bad} NaNs: replace them first, and count them.")
