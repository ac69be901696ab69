"""What is the mean of a map in each band across a slice? Voxel by voxel of the input, slowly."""

from __future__ import annotations

import math


def bands(bits, shares, region, grid, axis, whole, count):
    """Return (mean bits or None, shares) of each band, or None where the region has no position in it.

    `bits` (H, W) nested lists with NaN, `shares` 8 of (H, W), `region` (H, W) of bool, `grid` (scale, offset) of each
    axis. A voxel of the input takes the plane of the map whose centre is nearest to it.
    """
    scale, offset = grid[axis]
    size = [len(region), len(region[0])][axis]
    widths = [whole // count + (1 if k < whole % count else 0) for k in range(count)]
    found, start = [], 0
    for width in widths:
        total = numbers = 0
        bit_sum, share_sums = 0.0, [0.0] * 8
        for voxel in range(start, start + width):
            planes = [i for i in range(size) if abs(voxel - (offset + scale * i)) <= scale / 2 + 1e-9]
            if not planes:
                continue
            plane = planes[-1]  # halfway between two, the one of higher index
            for i in range(len(region)):
                for j in range(len(region[0])):
                    if (i, j)[axis] != plane or not region[i][j]:
                        continue
                    total += 1
                    for kind in range(8):
                        share_sums[kind] += shares[kind][i][j]
                    if shares[0][i][j] > 0 and not math.isnan(bits[i][j]):
                        numbers += 1
                        bit_sum += bits[i][j]
        start += width
        mean = bit_sum / numbers if numbers else None
        found.append(None if not total else (mean, [part / total for part in share_sums]))
    return found
