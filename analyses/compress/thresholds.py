"""When does a layer's threshold rise? Procedure 1 of Sauron's Algorithm 1, conditions C1 to C4."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from mcaprobe.errors import InputError


def _no_better(latest: float, previous: Sequence[float]) -> bool:
    return bool(previous) and latest >= min(previous)


def _worse_than_all(latest: float, previous: Sequence[float]) -> bool:
    return bool(previous) and latest > max(previous)


STALLS = {"best": _no_better, "strict": _worse_than_all, "none": lambda latest, previous: True}


@dataclass(frozen=True, slots=True)
class Schedule:
    """How thresholds rise (section 3.4); all start at 0.

    Attributes:
        maximum: tau_max, which none exceeds.
        steps: kappa, the number of rises from 0 to the maximum.
        share: mu as a share: where less of a layer's filters went in the last epoch, C3 holds.
        patience: rho, the number of epochs without a rise before the next one.
        stall: What C2 means. "best": the validation loss is not below its minimum so far. "strict": it is above all
            before it, the text taken literally, which hardly ever happens. "none": C2 always holds.
    """

    maximum: float = 0.3
    steps: int = 15
    share: float = 0.02
    patience: int = 5
    stall: str = "best"

    def __post_init__(self) -> None:
        if not 0 <= self.maximum <= 1:
            raise InputError(f"Expected a maximum threshold from 0 to 1, got {self.maximum}.")
        if self.steps < 1 or self.patience < 0:
            raise InputError(f"Expected a step and a patience of 0 or more, got {self.steps} and {self.patience}.")
        if not 0 <= self.share <= 1:
            raise InputError(f"Expected a share of filters from 0 to 1, got {self.share}.")
        if self.stall not in STALLS:
            raise InputError(f"Expected stall out of {', '.join(STALLS)}, got {self.stall!r}.")


@dataclass(frozen=True, slots=True)
class Conditions:
    """What holds for a layer at the end of an epoch.

    Attributes:
        converging: C1, the training loss lies between the minimum and the maximum of those before it.
        stalled: C2, the validation loss no longer improves (`Schedule.stall`).
        few_pruned: C3, fewer than the schedule's share of the layer's filters went at the end of the last epoch.
        patient: C4, the threshold has not risen in the last `patience` epochs.
    """

    converging: bool
    stalled: bool
    few_pruned: bool
    patient: bool

    @property
    def all(self) -> bool:
        """Whether all four hold."""
        return self.converging and self.stalled and self.few_pruned and self.patient


def is_converging(losses: Sequence[float]) -> bool:
    """Return C1 of the training losses of all epochs, the latest one last; False where there is none before it."""
    *previous, latest = losses
    return bool(previous) and min(previous) <= latest <= max(previous)


def is_stalled(losses: Sequence[float], stall: str) -> bool:
    """Return C2 of the validation losses of all epochs, the latest one last."""
    *previous, latest = losses
    return STALLS[stall](latest, previous)


@dataclass
class Threshold:
    """The threshold of one layer.

    Attributes:
        rises: How often it rose.
        last_rise: The epoch of the last rise, or None.
        pruned: Share of the layer's filters that went at the end of the last epoch.
    """

    schedule: Schedule
    rises: int = 0
    last_rise: int | None = None
    pruned: float = field(default=0.0)

    @property
    def value(self) -> float:
        """tau_l."""
        return self.schedule.maximum * (self.rises / self.schedule.steps)  # in this order never above the maximum

    def update(self, epoch: int, training: Sequence[float], validation: Sequence[float]) -> Conditions:
        """Raise the threshold by a step where all conditions hold and it is below the maximum; return them.

        Args:
            epoch: The epoch that ends.
            training: Training losses of all epochs, the latest one last.
            validation: Validation losses, the same.
        """
        conditions = Conditions(
            is_converging(training),
            is_stalled(validation, self.schedule.stall),
            self.pruned < self.schedule.share,
            self.last_rise is None or epoch - self.last_rise > self.schedule.patience,
        )
        if conditions.all and self.rises < self.schedule.steps:
            self.rises, self.last_rise = self.rises + 1, epoch
        return conditions
