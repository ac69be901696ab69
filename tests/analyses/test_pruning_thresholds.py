"""Does a threshold rise when C1 to C4 hold, by equal steps and never above its maximum?"""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analyses.compress.thresholds import Conditions, Schedule, Threshold, is_converging, is_stalled
from mcaprobe.errors import InputError


@pytest.mark.parametrize(("losses", "expected"), [
    ([1.0], False), ([1.0, 0.9], False), ([1.0, 1.1], False), ([1.0, 1.0], True), ([1.0, 0.5, 0.7], True),
    ([1.0, 0.5, 0.4], False), ([1.0, 0.5, 1.2], False), ([1.0, 0.5, 0.5], True), ([1.0, 0.5, 1.0], True),
])  # fmt: skip
def test_c1_the_training_loss_lies_between_those_before(losses: list[float], expected: bool) -> None:
    assert is_converging(losses) is expected


@pytest.mark.parametrize(("losses", "best", "strict"), [
    ([1.0], False, False), ([1.0, 0.9], False, False), ([1.0, 1.0], True, False), ([1.0, 0.5, 0.7], True, False),
    ([1.0, 0.5, 0.4], False, False), ([1.0, 0.5, 1.2], True, True), ([1.0, 0.5, 0.5], True, False),
])  # fmt: skip
def test_c2_the_validation_loss_no_longer_improves(losses: list[float], best: bool, strict: bool) -> None:
    assert [is_stalled(losses, stall) for stall in ("best", "strict", "none")] == [best, strict, True]


@pytest.mark.parametrize("holds", list(itertools.product([False, True], repeat=4)))
def test_a_threshold_rises_only_where_all_four_conditions_hold(holds: tuple[bool, ...]) -> None:
    c1, c2, c3, c4 = holds
    threshold = Threshold(Schedule(), rises=3, last_rise=9 - 6 if c4 else 9 - 5, pruned=0.019 if c3 else 0.02)
    training = [2.0, 1.0, 1.5 if c1 else 0.5]
    conditions = threshold.update(9, training, [2.0, 1.0, 1.5 if c2 else 0.5])
    assert conditions == Conditions(*holds)
    assert threshold.value == pytest.approx(0.3 * (4 if all(holds) else 3) / 15)
    assert threshold.last_rise == (9 if all(holds) else 3 if c4 else 4)


@settings(max_examples=50, deadline=None)
@given(steps=st.integers(1, 20), patience=st.integers(0, 4), epochs=st.integers(1, 60), maximum=st.floats(0, 1))
def test_thresholds_rise_by_equal_steps_with_pauses_and_stop_at_the_maximum(steps: int, patience: int, epochs: int,
                                                                            maximum: float) -> None:  # fmt: skip
    threshold = Threshold(Schedule(maximum, steps, patience=patience))
    values = [threshold.value]
    for epoch in range(1, epochs + 1):
        threshold.update(epoch, [1.0] * epoch, [1.0] * epoch)
        values.append(threshold.value)
    # Nothing lies before the first epoch; after it every (patience + 1)th one brings a step.
    rises = [min(steps, max(0, epoch - 2) // (patience + 1) + 1) if epoch >= 2 else 0 for epoch in range(epochs + 1)]
    assert values == pytest.approx([maximum * n / steps for n in rises])
    assert max(values) <= maximum


@pytest.mark.parametrize(("options", "words"), [
    ({"maximum": 1.5}, "maximum threshold from 0 to 1, got 1.5"), ({"steps": 0}, "got 0 and 5"),
    ({"patience": -1}, "got 15 and -1"), ({"share": 2.0}, "share of filters from 0 to 1, got 2.0"),
    ({"stall": "last"}, "out of best, strict, none, got 'last'"),
])  # fmt: skip
def test_a_schedule_that_makes_no_sense_is_refused(options: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        Schedule(**options)  # type: ignore[arg-type]
