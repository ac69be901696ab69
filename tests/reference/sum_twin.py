"""In which order does torch add up? Its SumKernel.cpp on AVX2 and the sum of a softmax, term by term.

Each function takes the rounding of random_rounding_twin (or nearest_twin) and x (outputs, terms), and returns `samples`
results (samples, outputs) in float64.
"""

import numpy as np


def _columns(x, samples: int) -> list:
    x = np.asarray(x, np.float64)
    return [np.broadcast_to(x[:, i], (samples, len(x))) for i in range(x.shape[1])]


def cascade(rounding, terms: list, zero):
    """Return the sum of the terms in torch's cascade of four levels (multi_row_sum)."""
    levels, log = 4, max(1, (len(terms) - 1).bit_length())
    power = max(4, log // levels)
    step = 1 << power
    held = [zero] * levels
    i = 0
    while i + step <= len(terms):
        for _ in range(step):
            held[0] = rounding.add(held[0], terms[i])
            i += 1
        for level in range(1, levels):
            held[level] = rounding.add(held[level], held[level - 1])
            held[level - 1] = zero
            if i & ((step - 1) << (level * power)):
                break
    for term in terms[i:]:
        held[0] = rounding.add(held[0], term)
    for level in range(1, levels):
        held[0] = rounding.add(held[0], held[level])
    return held[0]


def outer(rounding, x, samples: int):
    """A sum over a dimension that is not the innermost: one accumulator for each output."""
    terms = _columns(x, samples)
    return cascade(rounding, terms, np.zeros((samples, len(x))))


def inner(rounding, x, samples: int):
    """A sum over the innermost dimension: vectors of 8, in turn into 4 accumulators, then the lanes (row_sum)."""
    terms, zero = _columns(x, samples), np.zeros((samples, len(x)))
    vectors = [terms[8 * i : 8 * i + 8] for i in range(len(terms) // 8)]
    rows = len(vectors) // 4
    lanes = []
    for lane in range(8):
        four = [cascade(rounding, [vectors[4 * i + n][lane] for i in range(rows)], zero) for n in range(4)]
        for vector in vectors[4 * rows :]:
            four[0] = rounding.add(four[0], vector[lane])
        for n in range(1, 4):
            four[0] = rounding.add(four[0], four[n])
        lanes.append(four[0])
    total = zero
    for term in [*terms[8 * len(vectors) :], *lanes]:
        total = rounding.add(total, term)
    return total


def vector(rounding, x, samples: int):
    """One vector of 8 partial sums, whose halves are added to each other until one number is left."""
    terms, zero = _columns(x, samples), np.zeros((samples, len(x)))
    lanes = [zero] * 8
    for i, term in enumerate(terms):
        lanes[i % 8] = rounding.add(lanes[i % 8], term)
    while len(lanes) > 1:
        half = len(lanes) // 2
        lanes = [rounding.add(lanes[i], lanes[i + half]) for i in range(half)]
    return lanes[0]


def sequence(rounding, x, samples: int):
    """One term after the other."""
    total = np.zeros((samples, len(x)))
    for term in _columns(x, samples):
        total = rounding.add(total, term)
    return total


def dot(rounding, x, factor, samples: int):
    """A dot product: rows of 32 into 4 x 8 chains, eights into the first vector, the vectors, then one by one."""
    terms, factors, zero = _columns(x, samples), _columns(factor, samples), np.zeros((samples, len(x)))
    chains, i = [zero] * 32, 0
    while i + 32 <= len(terms):
        chains = [rounding.fma(terms[i + j], factors[i + j], chains[j]) for j in range(32)]
        i += 32
    total = chains[:8]
    while i + 8 <= len(terms):
        total = [rounding.fma(terms[i + j], factors[i + j], total[j]) for j in range(8)]
        i += 8
    for n in (8, 16, 24):
        total = [rounding.add(total[j], chains[n + j]) for j in range(8)]
    last = zero
    for a, b in zip(terms[i:], factors[i:], strict=True):
        last = rounding.fma(a, b, last)
    for lane in total:
        last = rounding.add(last, lane)
    return last
