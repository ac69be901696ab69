"""Scores of two masks are those of a hand and torchmetrics' own, and what chance gives is what random masks have."""

import pytest
import torch
from torchmetrics.functional.classification import (
    binary_f1_score,
    binary_jaccard_index,
    binary_matthews_corrcoef,
    binary_precision,
    binary_recall,
)

from mcaprobe.agreement import Agreement
from mcaprobe.errors import InputError


def bools(text: str) -> torch.Tensor:
    return torch.tensor([c == "1" for c in text])


@pytest.mark.parametrize(
    ("a", "b", "dice", "precision", "recall"),
    [
        ("11110000", "00111100", 2 * 2 / 8, 2 / 4, 2 / 4),
        ("11100000", "11111100", 2 * 3 / 9, 1.0, 3 / 6),
        ("11111000", "00001000", 2 * 1 / 6, 1 / 5, 1.0),
        ("10100000", "01010000", 0.0, 0.0, 0.0),
        ("11111111", "11111111", 1.0, 1.0, 1.0),
        ("00000000", "11000000", 0.0, None, 0.0),
        ("11000000", "00000000", 0.0, 0.0, None),
        ("00000000", "00000000", None, None, None),
        ("", "", None, None, None),
    ],
)
def test_agreement_is_what_a_hand_counts(a, b, dice, precision, recall):
    found = Agreement.of(bools(a).bool(), bools(b).bool())
    assert (found.dice, found.precision, found.recall) == (dice, precision, recall)


def test_masks_of_different_shapes_are_refused():
    with pytest.raises(InputError, match=r"masks of one shape, got \(2,\) and \(3,\)"):
        Agreement.of(bools("10"), bools("101"))


def masks(seed, n=500, p=0.3, t=0.4):
    g = torch.Generator().manual_seed(seed)
    truth = torch.rand(n, generator=g) < t
    return (torch.rand(n, generator=g) < p) ^ (truth & (torch.rand(n, generator=g) < 0.5)), truth


@pytest.mark.parametrize("seed", range(5))
def test_scores_are_those_of_torchmetrics(seed):
    p, t = masks(seed)
    found = Agreement.of(p, t)
    pairs = {
        "dice": binary_f1_score, "iou": binary_jaccard_index, "precision": binary_precision, "recall": binary_recall,
        "mcc": binary_matthews_corrcoef,
    }  # fmt: skip
    for name, function in pairs.items():
        assert getattr(found, name) == pytest.approx(float(function(p.long(), t.long())), abs=1e-6), name


def test_chance_is_the_mean_over_random_masks_of_that_size():
    p, t = masks(0)
    g = torch.Generator().manual_seed(7)
    shuffled = [Agreement.of(p[torch.randperm(len(p), generator=g)], t) for _ in range(500)]
    found = Agreement.of(p, t)
    assert found.chance_dice == pytest.approx(sum(c.dice for c in shuffled) / 500, abs=0.005)
    assert found.chance_precision == pytest.approx(sum(c.precision for c in shuffled) / 500, abs=0.005)
    assert sum(c.mcc for c in shuffled) / 500 == pytest.approx(0, abs=0.01)


def test_sums_are_the_counts_of_both_together():
    (p, t), (q, u) = masks(1), masks(2)
    assert Agreement.of(p, t) + Agreement.of(q, u) == Agreement.of(torch.cat([p, q]), torch.cat([t, u]))


def test_a_ratio_of_nothing_is_none():
    found = Agreement(0, 0, 0, 10)
    assert [found.dice, found.iou, found.precision, found.recall, found.mcc, found.chance_dice] == [None] * 6
    assert found.chance_precision == 0 and Agreement(3, 0, 0, 10).precision == 0
