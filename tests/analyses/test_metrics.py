"""Is Dice what its definition says, and the interval an interval of the mean?"""

import math

import numpy as np
import pytest
import torch

from analyses.metrics import dice_of_classes
from analyses.statistics import bootstrap_interval


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
