"""How much do the roundings inside a sum add up to?

Each rounding adds a variance proportional to the square of the partial sum that it rounds. A run of k terms with sum s
and sum of squares q, started at p, is a walk: after m terms, taken in random order, its square has the mean
(p + m s / k)^2 + q' m (k - m) / (k (k - 1)), with q' = q - s^2 / k. The kernel's order of addition enters through the
runs (whose ends are known partial sums) or, for kernels with many partial sums at once, through the list of their
sizes. The last rounding is never counted here: the caller carries it out.
"""

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from mcaprobe.kernels.accumulation import follow_run, follows
from mcaprobe.rounding import Arithmetic, block_limit, blocks, relative_unit


@dataclass(frozen=True, slots=True)
class Order:
    """In which order a kernel adds K terms when it keeps several partial sums.

    Args:
        fused: each step is a fused multiply-add, so that the first product is rounded too.
        block: the sum is cut into runs of this many terms, each summed from zero and then added to the total.
        unroll, vector: independent interleaved partial sums; the unrolled vectors are added up first, then their
            elements.
        cascade: the four-level cascade of torch's `sum` inside each partial sum.
        tree: the elements of the last vector are added pairwise.
    """

    fused: bool = True
    block: int | None = None
    unroll: int = 1
    vector: int = 1
    cascade: bool = False
    tree: bool = False


@lru_cache(maxsize=4096)
def coefficients(order: Order, count: int) -> tuple[float, float]:
    """Return (a, b) so that the partial sums' mean squares add up to a S^2 + b Q', without the last rounding."""
    sizes = _partial_sizes(order, count)[:-1]
    m = torch.tensor(sizes, dtype=torch.float64)
    a = ((m / count) ** 2).sum().item()
    b = (m * (count - m)).sum().item() / (count * (count - 1)) if count > 1 else 0.0
    return a, b


def _partial_sizes(order: Order, count: int) -> list[int]:
    sizes: list[int] = []
    columns = []
    for column in _split(count, order.vector):
        rows = _split(column, order.unroll)
        for terms in rows:
            _sum_lane(order, terms, sizes)
        columns.append(_add_up(rows, sizes))
    if order.tree:
        _add_pairs(columns, sizes)
    else:
        _add_up(columns, sizes)
    return sizes


def _split(count: int, parts: int) -> list[int]:
    return [count // parts + (i < count % parts) for i in range(min(parts, count))]


def _add_up(parts: list[int], sizes: list[int]) -> int:
    total = parts[0]
    for part in parts[1:]:
        total += part
        sizes.append(total)
    return total


def _add_pairs(parts: list[int], sizes: list[int]) -> None:
    while len(parts) > 1:
        half = len(parts) // 2
        pairs = [a + b for a, b in zip(parts[:half], parts[half : 2 * half], strict=True)]
        sizes.extend(pairs)
        parts = pairs + parts[2 * half :]


def _sum_lane(order: Order, terms: int, sizes: list[int]) -> None:
    if order.cascade:
        _cascade(terms, sizes)
        return
    done = 0
    for start in range(0, terms, order.block or terms):
        run = min(order.block or terms, terms - start)
        sizes.extend(range(1 if order.fused else 2, run + 1))
        if done:
            sizes.append(done + run)
        done += run


def _cascade(terms: int, sizes: list[int], levels: int = 4) -> None:
    """The cascade sum of torch's CPU kernel: runs of 2^p terms, carried from level to level."""
    power = max(4, max(terms - 1, 1).bit_length() // levels)
    step = 1 << power
    held = [0] * levels

    def add(level: int, count: int) -> None:
        if held[level] and count:
            sizes.append(held[level] + count)
        held[level] += count

    i = 0
    while i + step <= terms:
        for _ in range(step):
            add(0, 1)
        i += step
        for level in range(1, levels):
            add(level, held[level - 1])
            held[level - 1] = 0
            if i & ((step - 1) << (level * power)):
                break
    for _ in range(terms - i):
        add(0, 1)
    for level in range(1, levels):
        add(0, held[level])


def ordered_squares(total: Tensor, squares: Tensor, count: Tensor, order: Order, full_count: int) -> Tensor:
    """Return the summed mean squares of the partial sums of a kernel that keeps several of them.

    Args:
        total, squares, count: Sum, sum of squares and number of the non-zero terms, same shape.
        full_count: Number of terms with the zeros, which fixes the kernel's blocks.
    """
    a, b = coefficients(order, full_count)
    spread = (squares - total * total / count.clamp(min=1)).clamp(min=0)
    # With zeros among the terms the partial sums are fewer in proportion.
    return (a * total * total + b * spread) * (count / full_count)


def blocked_squares(total: Tensor, squares: Tensor, count: Tensor, parts: Tensor) -> Tensor:
    """Return the summed mean squares of the partial sums of a sum in parts, without the last.

    Each part is a chain of multiply-adds from zero; the parts are then added up.

    Args:
        total, squares, count: Sum, sum of squares and number of the non-zero terms, same shape.
        parts: Number of the parts of each sum, broadcastable.
    """
    k, n = count.clamp(min=1), torch.minimum(parts, count).clamp(min=1)
    b = k / n  # terms of a part
    cubes = n * (n + 1) * (2 * n + 1) / 6
    # Sums of m and of m^2 over the sizes m of the partial sums: in every part 1 ... b, then 2 b, 3 b, ... n b.
    first = n * b * (b + 1) / 2 + b * (n * (n + 1) / 2 - 1) - k
    second = n * b * (b + 1) * (2 * b + 1) / 6 + b * b * (cubes - 1) - k * k
    spread = (squares - total * total / k).clamp(min=0)
    return (total * total / (k * k) * second + spread * (k * first - second) / (k * (k - 1).clamp(min=1))).clamp(min=0)


class SequentialSquares:
    """The summed mean squares of the partial sums of one accumulator, run by run.

    Args:
        start: Value that the accumulation starts from (the bias of a direct convolution), of the sums' shape.
    """

    def __init__(self, start: Tensor) -> None:
        self.partial = start.contiguous().clone()
        self.summed = torch.zeros_like(self.partial)

    def add(self, total: Tensor, squares: Tensor, count: Tensor) -> None:
        """Add one run: its sum, its sum of squares, its number of non-zero terms (same shape or broadcastable)."""
        count = count.expand(total.shape)
        if follows(total, squares, count, self.partial):
            follow_run(total, squares.expand(total.shape), count, self.partial, self.summed)
            return
        for index in blocks(total.shape, block_limit(total.device)):
            s, k, p = total[index], count[index], self.partial[index]
            some = k.clamp(min=1)
            spread = (squares[index] - s * s / some).clamp_(min=0)
            drift = s * (2 * k + 1) / (6 * some)
            self.summed[index] += (k + 1) * (s * (drift + p) + spread / 6) + k * p * p
            p += s

    def without_last(self) -> Tensor:
        """Return the sum over all roundings but the last one."""
        return (self.summed - self.partial.square()).clamp_(min=0)


def rounding_std(squares: Tensor, arithmetic: Arithmetic, perturbed: bool, dtype: torch.dtype) -> Tensor:
    """Return the standard deviation of the roundings of partial sums whose squares add up to `squares`."""
    return squares.sqrt() * (relative_unit(dtype) * arithmetic.step_variance(dtype, perturbed) ** 0.5)


def operand_variance(arithmetic: Arithmetic, dtype: torch.dtype, factors: int) -> float:
    """Return the variance that inbound noise on the factors of each product adds, over the sum of squared products."""
    if not arithmetic.inbound:
        return 0.0
    return factors * relative_unit(dtype) ** 2 * arithmetic.noise_variance(dtype)
