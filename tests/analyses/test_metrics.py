"""Is Dice what its definition says, the interval one of the mean, and the number of the unseen a lower bound?"""

import math

import numpy as np
import pytest
import torch

from analyses.metrics import dice_of_classes, f1, psnr, ssim
from analyses.statistics import bootstrap_interval, holm, never_seen, non_inferiority
from mcaprobe.errors import InputError


def test_dice_is_twice_the_overlap_over_the_sum_of_the_sizes() -> None:
    generator = torch.Generator().manual_seed(0)
    p = torch.randint(0, 3, (6, 7, 8), generator=generator)
    t = torch.randint(0, 3, (6, 7, 8), generator=generator)
    where = torch.rand(6, 7, 8, generator=generator) < 0.7
    found = dice_of_classes(p, t, where, 3)
    for c in range(3):
        a = {tuple(i) for i in ((p == c) & where).nonzero().tolist()}
        b = {tuple(i) for i in ((t == c) & where).nonzero().tolist()}
        assert found[c] == pytest.approx(2 * len(a & b) / (len(a) + len(b)))


def test_an_absent_class_is_nan_and_a_missed_one_is_zero() -> None:
    p, t = torch.tensor([0, 0, 1]), torch.tensor([0, 0, 2])
    scores = dice_of_classes(p, t, torch.ones(3, dtype=torch.bool), 4)
    assert scores[:3] == [1, 0, 0]
    assert math.isnan(scores[3])


def test_the_interval_holds_the_mean_and_covers_it() -> None:
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(200):
        values = rng.normal(0.8, 0.05, 15).tolist()
        low, high = bootstrap_interval(values, draws=500)
        assert low < np.mean(values) < high
        hits += low < 0.8 < high
    assert 0.86 < hits / 200 < 0.99  # the percentile bootstrap of 15 covers a little less than 95 %


def test_the_interval_is_the_seeds() -> None:
    values = [0.7, 0.8, 0.9]
    assert bootstrap_interval(values, 1) == bootstrap_interval(values, 1)


def image(seed: int) -> torch.Tensor:
    x = torch.nn.functional.avg_pool2d(torch.rand(1, 1, 60, 70, generator=torch.Generator().manual_seed(seed)), 5, 1, 2)
    return x[0, 0].clamp(0, 1)


def test_psnr_is_that_of_the_mean_squared_difference() -> None:
    a, b = image(0), image(1)
    assert psnr(a, b) == pytest.approx(-10 * math.log10(float((a - b).square().mean())), rel=1e-6)
    assert psnr(a, a) == math.inf


def test_ssim_is_that_of_gaussian_windows() -> None:
    """Wang et al. 2004, equation 13, window by window; the border, where windows leave the image, is left out."""
    a, b = image(0).double().numpy(), image(1).double().numpy()
    axis = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
    weights = np.outer(axis, axis) / axis.sum() ** 2
    found = []
    for i in range(5, a.shape[0] - 5):
        for j in range(5, a.shape[1] - 5):
            x, y = a[i - 5 : i + 6, j - 5 : j + 6], b[i - 5 : i + 6, j - 5 : j + 6]
            mx, my = (weights * x).sum(), (weights * y).sum()
            vx, vy, cov = (
                (weights * p * q).sum() - m * n for p, q, m, n in ((x, x, mx, mx), (y, y, my, my), (x, y, mx, my))
            )
            found.append(
                (2 * mx * my + 1e-4) * (2 * cov + 9e-4) / ((mx * mx + my * my + 1e-4) * (vx + vy + 9e-4))
            )
    assert ssim(image(0), image(1)) == pytest.approx(np.mean(found), abs=1e-4)
    assert ssim(image(0), image(0)) == pytest.approx(1)


def test_psnr_and_ssim_are_those_of_scikit_image() -> None:
    metrics = pytest.importorskip("skimage.metrics")
    a, b = image(0), image(1)
    assert psnr(a, b) == pytest.approx(metrics.peak_signal_noise_ratio(b.numpy(), a.numpy(), data_range=1.0), rel=1e-6)
    expected = metrics.structural_similarity(
        a.double().numpy(), b.double().numpy(), data_range=1.0, gaussian_weights=True, sigma=1.5,
        use_sample_covariance=False,
    )  # fmt: skip
    assert ssim(a, b) == pytest.approx(expected, abs=1e-4)


def test_f1_is_the_mean_over_the_classes_that_occur() -> None:
    predicted, target = torch.tensor([0, 0, 1, 1, 2, 2]), torch.tensor([0, 1, 1, 1, 2, 0])
    logits = torch.nn.functional.one_hot(predicted, 4).float()
    expected = np.mean([2 * 1 / (2 * 1 + 1 + 1), 2 * 2 / (2 * 2 + 0 + 1), 2 * 1 / (2 * 1 + 1 + 0)])
    score, accuracy = f1(logits, target)
    assert score == pytest.approx(expected) and accuracy == pytest.approx(4 / 6)


def test_nan_is_refused_not_scored() -> None:
    bad = image(0)
    bad[3, 4] = math.nan
    for call in (lambda: psnr(bad, image(1)), lambda: ssim(image(1), bad), lambda: f1(bad, torch.zeros(60).long())):
        with pytest.raises(InputError, match="Expected numbers to score, got 1 NaNs"):
            call()


def test_a_method_as_good_is_not_inferior_and_a_worse_one_is() -> None:
    rng = np.random.default_rng(0)
    reference = rng.normal(0.8, 0.05, 8)
    same = non_inferiority((reference + rng.normal(0, 5e-4, 8)).tolist(), reference.tolist(), 0.005)
    worse = non_inferiority((reference - 0.02 + rng.normal(0, 5e-4, 8)).tolist(), reference.tolist(), 0.005)
    assert same.p < 0.001 and same.low < same.difference < same.high and same.n == 8
    assert worse.p > 0.999 and worse.high < -0.015
    equal = non_inferiority(reference.tolist(), reference.tolist(), 0.005)
    assert (equal.difference, equal.low, equal.high, equal.p) == (0, 0, 0, 0)


def test_the_error_of_the_test_is_what_it_says() -> None:
    """Where the true difference is minus the margin, 5 % of the tests call it not inferior."""
    rng = np.random.default_rng(1)
    calls = [
        non_inferiority(rng.normal(-0.005, 0.003, 5).tolist(), [0.0] * 5, 0.005).p < 0.05 for _ in range(600)
    ]
    assert 0.03 < np.mean(calls) < 0.075


def test_pairs_that_cannot_be_compared_are_one_sentence() -> None:
    for a, b, message in (
        ([1.0], [1.0], "two or more pairs"), ([1.0, 2.0], [1.0], "got 2 and 1"),
        ([1.0, math.nan], [1.0, 1.0], "got 1 pairs with NaN"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=message):
            non_inferiority(a, b, 0.01)


def test_holm_multiplies_by_what_is_left_and_never_sinks() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0]


def test_what_was_never_seen_is_a_lower_bound_near_the_truth() -> None:
    """Units that change with probability .14, as the rarest of four tied positions does, in 10 samples."""
    g = torch.Generator().manual_seed(3)
    seen = (torch.rand(20_000, 10, generator=g) < 0.14).sum(1)
    missed = int((seen == 0).sum())
    found = never_seen(int((seen == 1).sum()), int((seen == 2).sum()), 10)
    assert found == pytest.approx(missed, rel=0.08)


def test_without_units_seen_twice_the_bound_is_the_corrected_one() -> None:
    assert never_seen(4, 0, 10) == pytest.approx(0.9 * 4 * 3 / 2)
    assert never_seen(0, 0, 10) == 0
