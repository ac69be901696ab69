"""What must be kept of the samples of a layer, element by element, so that every statistic can follow?"""

from __future__ import annotations

import torch
from torch import Tensor

from mcaprobe import fused
from mcaprobe.errors import InputError

# Elements per sweep: the float64 scratch of one chunk stays in the second-level cache.
CHUNK = 32_768
# The counts of zeros, NaNs and infinities are int16.
MOST_SAMPLES = 32_767
BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class Moments:
    """Count, mean, M2, extremes and zero/NaN/inf counts of the samples of one activation, elementwise.

    NaN and infinite values are counted and left out of `mean`, `m2`, `minimum` and `maximum`. The bits of the
    result depend on the samples, their order and the grouping into blocks only: every step is a correctly rounded
    elementary operation on one element, so neither threads nor vector width nor compiled kernels change it.

    float64 activations are accumulated as differences to the reference (origin()): samples a few ulps apart
    have a mean between two floats, and a rounded mean would spoil M2. Narrower activations leave 29 bits
    for that.

    Attributes:
        n: Samples seen, the non-finite ones included.
        offset: Mean of the finite samples less origin(), float64; 0 where there is none. `mean` is the sum.
        m2: Sum of squared distances of the finite samples from their mean, float64.
        minimum, maximum: Extremes of the finite samples, in the dtype of the activation; +inf, -inf where
            none.
        reference: The IEEE activation (shape and dtype of the layer).
        zeros, nans, infs: Samples that were 0 (either sign), NaN, infinite; int16.
    """

    __slots__ = ("_infs", "_nans", "m2", "maximum", "minimum", "n", "offset", "reference", "zeros")

    def __init__(
        self,
        n: int,
        offset: Tensor,
        m2: Tensor,
        minimum: Tensor,
        maximum: Tensor,
        reference: Tensor,
        zeros: Tensor,
        nans: Tensor | None = None,
        infs: Tensor | None = None,
    ) -> None:
        self.n = n
        self.offset = offset
        self.m2 = m2
        self.minimum = minimum
        self.maximum = maximum
        self.reference = reference
        self.zeros = zeros
        self._nans = nans
        self._infs = infs

    @classmethod
    def empty(cls, reference: Tensor) -> Moments:
        """Return the moments of no sample; `reference` is the IEEE activation (floating, any shape).

        The reference is copied: a later in-place change of the activation does not reach the statistics.
        """
        if not reference.is_floating_point():
            raise InputError(
                f"Expected a floating-point activation, got {reference.dtype}; decisions have IndexMoments."
            )
        reference = reference.detach().clone(memory_format=torch.contiguous_format)
        accumulator = torch.zeros_like(reference, dtype=torch.float64)
        infinity = torch.full_like(reference, torch.inf)
        zeros = torch.zeros_like(reference, dtype=torch.int16)
        return cls(0, accumulator, accumulator.clone(), infinity, -infinity, reference, zeros)

    @property
    def nans(self) -> Tensor:
        """Samples that were NaN, int16, the layer's shape."""
        return torch.zeros_like(self.zeros) if self._nans is None else self._nans

    @property
    def infs(self) -> Tensor:
        """Samples that were +inf or -inf, int16, the layer's shape."""
        return torch.zeros_like(self.zeros) if self._infs is None else self._infs

    @property
    def mean(self) -> Tensor:
        """Mean of the finite samples, float64; where there is none, origin() or 0."""
        origin = self.origin()
        return self.offset if origin is None else origin + self.offset

    def origin(self) -> Tensor | None:
        """Return what `offset` is counted from: the finite reference of a float64 layer, else None for 0."""
        return self.reference.nan_to_num(0.0, 0.0, 0.0) if self.reference.dtype == torch.float64 else None

    @property
    def shape(self) -> torch.Size:
        return self.reference.shape

    @property
    def all_finite(self) -> bool:
        """Whether no NaN and no infinity was counted in any sample (the reference is not looked at)."""
        return self._nans is None and self._infs is None

    def tensors(self) -> list[Tensor | None]:
        """Return offset, m2, minimum, maximum, reference, zeros, nans and infs; None for counts of nothing."""
        always = [self.offset, self.m2, self.minimum, self.maximum, self.reference, self.zeros]
        return [*always, self._nans, self._infs]

    def set_specials(self, nans: Tensor, infs: Tensor) -> None:
        """Set the counts of NaN and infinity, int16, the layer's shape."""
        self._nans = nans if bool(nans.any()) else None
        self._infs = infs if bool(infs.any()) else None

    def is_contiguous(self) -> bool:
        """Return whether the elements of all tensors lie in the order of memory."""
        return all(t is None or t.is_contiguous() for t in self.tensors())

    def _by_kernels(self, *others: Tensor) -> bool:
        """Return whether a compiled kernel can go on from here: all samples so far are finite."""
        return self.all_finite and fused.available(self.reference, *others) and self.is_contiguous()

    def _state(self) -> fused.State:
        return fused.state(self.tensors())

    def finite_count(self) -> Tensor | float:
        """Finite samples of each element: one float if all were finite, else float64 of the layer's shape."""
        if self.all_finite:
            return float(self.n)
        return (self.n - self.nans.double()).sub_(self.infs)

    def update(self, sample: Tensor) -> Moments:
        """Take in one sample of the activation (shape and dtype of the reference); return self.

        Welford (1962): d = x - mean; mean += d / n; M2 += d (x - mean), in float64.
        """
        if sample.shape != self.shape or sample.dtype != self.reference.dtype:
            raise InputError(
                f"Expected a sample of shape {tuple(self.shape)} and {self.reference.dtype}, "
                f"got {tuple(sample.shape)} and {sample.dtype}."
            )
        if self.n >= MOST_SAMPLES:
            raise InputError(f"Expected at most {MOST_SAMPLES} samples in one set of moments.")
        self.n += 1
        if self._by_kernels(sample) and fused.update(self._state(), sample, self.n):
            return self
        sample = sample.detach().contiguous()
        # A sum is finite only if all its terms are; where it overflows by itself, the slow path is right too.
        finite = None if bool(torch.isfinite(sample.sum())) else torch.isfinite(sample)
        if finite is not None and bool(finite.all()):
            finite = None
        if finite is not None:
            self._count_specials(sample, finite)
        self.zeros.add_(sample == 0)
        self._sweep(sample, finite)
        return self

    def _count_specials(self, sample: Tensor, finite: Tensor) -> None:
        nans = torch.isnan(sample)
        infs = ~(finite | nans)
        if bool(nans.any()):
            self._nans = self.nans.add_(nans)
        if bool(infs.any()):
            self._infs = self.infs.add_(infs)

    def _sweep(self, sample: Tensor, finite: Tensor | None) -> None:
        """Add a sample to mean, M2 and the extremes, chunk by chunk; `finite` marks the elements to take."""
        count = self.finite_count()
        flat = [t.view(-1) for t in (sample, self.offset, self.m2, self.minimum, self.maximum)]
        per_element = [_chunks(values, sample.numel()) for values in (count, finite, self.origin())]
        for x, mean, m2, low, high, counts, keep, origin in zip(
            *(t.split(CHUNK) for t in flat), *per_element, strict=True
        ):
            below = above = x
            value = x.to(torch.float64, copy=True)
            if origin is not None:
                value.sub_(origin)
            if keep is not None:
                value = torch.where(keep, value, mean)
                below, above = torch.where(keep, x, torch.inf), torch.where(keep, x, -torch.inf)
            # clamp: an element without a finite sample so far has d = 0 and count 0.
            divisor = counts.clamp(min=1) if isinstance(counts, Tensor) else counts
            distance = value - mean
            mean.add_(distance / divisor)
            m2.add_(distance.mul_(value.sub_(mean)))
            _extremes(low, high, below, above)

    def merge(self, other: Moments) -> Moments:
        """Take in the samples of `other`, a later block of the same layer; return self.

        Chan, Golub & LeVeque (1979): with d = mean_b - mean_a, mean = mean_a + d (n_b / n) and
        M2 = M2_a + M2_b + d^2 (n_a n_b / n). Merging blocks in another order or grouping can change the
        last bits.
        """
        same_layer(self.reference, other.reference)
        if self.n + other.n > MOST_SAMPLES:
            raise InputError(f"Expected at most {MOST_SAMPLES} samples in one set of moments.")
        if other.n and self.n and self._by_kernels() and other._by_kernels():
            fused.merge(self._state(), other._state(), self.reference.numel(), self.n, other.n)
            self.n += other.n
            return self
        a, b = self.finite_count(), other.finite_count()
        self.n += other.n
        if other.n:
            _chan(self, other, a, b)
        for name in ("_nans", "_infs"):
            mine, theirs = getattr(self, name), getattr(other, name)
            if theirs is not None:
                setattr(self, name, theirs.clone() if mine is None else mine.add_(theirs))
        self.zeros.add_(other.zeros)
        _extremes(self.minimum, self.maximum, other.minimum, other.maximum)
        return self

    def take(self, index: Tensor) -> Moments:
        """Return a copy of the moments at `index` (int64, (k,), into the flattened layer), of shape (k,)."""

        def at(values: Tensor) -> Tensor:
            return values.reshape(-1)[index]

        specials = [None if t is None else at(t) for t in (self._nans, self._infs)]
        extremes = at(self.minimum), at(self.maximum)
        return Moments(self.n, at(self.offset), at(self.m2), *extremes, at(self.reference), at(self.zeros), *specials)

    def state(self) -> dict[str, Tensor]:
        """Return the tensors from_state() needs, contiguous; `nans` and `infs` only if there were any."""
        state = {
            "n": torch.tensor(self.n),
            "offset": self.offset,
            "m2": self.m2,
            "minimum": self.minimum,
            "maximum": self.maximum,
            "reference": self.reference,
            "zeros": self.zeros,
        }
        specials = {"nans": self._nans, "infs": self._infs}
        return state | {name: counts for name, counts in specials.items() if counts is not None}

    @classmethod
    def from_state(cls, state: dict[str, Tensor]) -> Moments:
        """Return the moments whose state() is `state`; the tensors are used, not copied."""
        expect_keys("moments", state, {"n", "offset", "m2", "minimum", "maximum", "reference", "zeros"})
        return cls(
            int(state["n"]),
            state["offset"],
            state["m2"],
            state["minimum"],
            state["maximum"],
            state["reference"],
            state["zeros"],
            state.get("nans"),
            state.get("infs"),
        )


def _extremes(low: Tensor, high: Tensor, below: Tensor, above: Tensor) -> None:
    """Move `low` and `high` to what lies beyond; of zeros of both signs, which are equal, the first stays.

    torch.minimum takes the one or the other of them, depending on where in its vectors they are.
    """
    torch.where(below < low, below, low, out=low)
    torch.where(above > high, above, high, out=high)


def _chan(a: Moments, b: Moments, count_a: Tensor | float, count_b: Tensor | float) -> None:
    """Combine offset and M2 of two blocks into `a`; counts are per element where anything was not finite."""
    total = count_a + count_b
    if isinstance(total, Tensor):
        total = total.clamp(min=1)
        # As a tensor: torch divides a Python number by multiplying with a rounded reciprocal.
        count_b = torch.as_tensor(count_b, dtype=torch.float64, device=total.device)
    distance = b.offset - a.offset
    share, weight = count_b / total, count_a * count_b / total
    squared = distance * distance * weight
    if isinstance(weight, Tensor):
        squared = torch.where(weight == 0, 0.0, squared)
    elif weight == 0:
        squared.zero_()
    a.offset.add_(distance * share)
    a.m2.add_(b.m2).add_(squared)


def _chunks(values: Tensor | float | None, size: int) -> tuple[Tensor | float | None, ...]:
    """Return `values` in the chunks of the sweep: slices of a tensor, repeats of anything else."""
    if isinstance(values, Tensor):
        return values.view(-1).split(CHUNK)
    # torch splits an empty tensor into one empty chunk.
    return (values,) * max(1, -(-size // CHUNK))


def same_layer(mine: Tensor, theirs: Tensor) -> None:
    """Refuse to merge blocks that were measured against different IEEE activations."""
    if mine.shape != theirs.shape or mine.dtype != theirs.dtype:
        raise InputError(
            f"Expected a block of shape {tuple(mine.shape)} and {mine.dtype}, "
            f"got {tuple(theirs.shape)} and {theirs.dtype}."
        )
    if mine.is_floating_point():
        # Bits, not values: a NaN equals itself, and -0 is not the 0 of another kernel.
        bits = BITS[mine.element_size()]
        mine, theirs = mine.view(bits), theirs.view(bits)
    if not torch.equal(mine, theirs):
        raise InputError(
            "Expected blocks with the same IEEE reference; these come from different kernels, "
            "models or inputs and are not merged."
        )


def expect_keys(what: str, state: dict[str, Tensor], keys: set[str]) -> None:
    """Refuse a stored state that lacks some of its tensors."""
    missing = sorted(keys - state.keys())
    if missing:
        raise InputError(f"Expected the state of {what}: {', '.join(missing)} missing; got {sorted(state)}.")
