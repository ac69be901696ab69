"""Scores of two masks are torchmetrics' own, and what chance gives is what random masks have."""

import pytest
import torch
from torchmetrics.functional.classification import (
    binary_f1_score,
    binary_jaccard_index,
    binary_matthews_corrcoef,
    binary_precision,
    binary_recall,
)

from analyses.confusion import Confusion, never_seen
from mcaprobe.errors import InputError


def masks(seed, n=500, p=0.3, t=0.4):
    g = torch.Generator().manual_seed(seed)
    truth = torch.rand(n, generator=g) < t
    return (torch.rand(n, generator=g) < p) ^ (truth & (torch.rand(n, generator=g) < 0.5)), truth


@pytest.mark.parametrize("seed", range(5))
def test_scores_are_those_of_torchmetrics(seed):
    p, t = masks(seed)
    found = Confusion.of(p, t)
    pairs = {
        "dice": binary_f1_score, "iou": binary_jaccard_index, "precision": binary_precision, "recall": binary_recall,
        "mcc": binary_matthews_corrcoef,
    }  # fmt: skip
    for name, function in pairs.items():
        assert getattr(found, name) == pytest.approx(float(function(p.long(), t.long())), abs=1e-6), name


def test_chance_is_the_mean_over_random_masks_of_that_size():
    p, t = masks(0)
    g = torch.Generator().manual_seed(7)
    shuffled = [Confusion.of(p[torch.randperm(len(p), generator=g)], t) for _ in range(500)]
    found = Confusion.of(p, t)
    assert found.chance_dice == pytest.approx(sum(c.dice for c in shuffled) / 500, abs=0.005)
    assert found.chance_precision == pytest.approx(sum(c.precision for c in shuffled) / 500, abs=0.005)
    assert sum(c.mcc for c in shuffled) / 500 == pytest.approx(0, abs=0.01)


def test_sums_are_the_counts_of_both_together():
    (p, t), (q, u) = masks(1), masks(2)
    assert Confusion.of(p, t) + Confusion.of(q, u) == Confusion.of(torch.cat([p, q]), torch.cat([t, u]))


def test_a_ratio_of_nothing_is_none():
    found = Confusion(0, 0, 0, 10)
    assert [found.dice, found.iou, found.precision, found.recall, found.mcc, found.chance_dice] == [None] * 6
    assert found.chance_precision == 0 and Confusion(0, 3, 0, 10).precision == 0


def test_masks_of_other_shapes_are_refused():
    with pytest.raises(InputError, match=r"one shape, got \(2,\) and \(3,\)"):
        Confusion.of(torch.ones(2, dtype=torch.bool), torch.ones(3, dtype=torch.bool))


def test_what_was_never_seen_is_a_lower_bound_near_the_truth():
    """Units that change with probability .14, as the rarest of four tied positions does, in 10 samples."""
    g = torch.Generator().manual_seed(3)
    seen = (torch.rand(20_000, 10, generator=g) < 0.14).sum(1)
    missed = int((seen == 0).sum())
    found = never_seen(int((seen == 1).sum()), int((seen == 2).sum()), 10)
    assert found == pytest.approx(missed, rel=0.08)


def test_without_units_seen_twice_the_bound_is_the_corrected_one():
    assert never_seen(4, 0, 10) == pytest.approx(0.9 * 4 * 3 / 2)
    assert never_seen(0, 0, 10) == 0
