"""One exchange of kernels, in lists."""

import math


def exchange(mask: list[bool], kernels: list[list[float]], t: int, total: int, order: list[int]) -> list[bool]:
    """Return the mask after an exchange at iteration t of `total`.

    Args:
        kernels: The values of each kernel.
        order: The order in which the kernels that were inactive are drawn, as positions among them.
    """
    on = [i for i, bit in enumerate(mask) if bit]
    off = [i for i, bit in enumerate(mask) if not bit]
    u = math.ceil(0.25 * (1 + math.cos(math.pi * t / total)) * len(on) - 1e-9)
    u = min(u, len(on), len(off))
    weakest = sorted(on, key=lambda i: (sum(abs(v) for v in kernels[i]), i))[:u]
    new = list(mask)
    for i in weakest:
        new[i] = False
    for k in order[:u]:
        new[off[k]] = True
    return new
