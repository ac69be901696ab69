"""What does a layer look like as a picture, its channels reduced to one value per position?"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from mcaprobe.errors import InputError
from mcaprobe.estimators import DEFAULT, Class, Estimator
from mcaprobe.moments import Moments
from mcaprobe.significance import score
from mcaprobe.sweep import sweep


def channel_map(m: Moments, estimator: Estimator = DEFAULT) -> tuple[Tensor, Tensor, Tensor]:
    """Return median bits, majority class and class shares over the channels of a layer (1, C, *spatial).

    Returns:
        bits: float32 (*spatial), median significant bits of the channels of class NUMBER (the mean of the
            middle two for an even count), unclipped; NaN where there is none.
        majority: uint8 (*spatial), the Class that more than half of the channels have, else NUMBER; where no
            channel is a NUMBER the most frequent class, of equally frequent ones the one of lower code.
        shares: float32 (8, *spatial), the share of the channels of each Class, in the order of its codes.
    """
    if len(m.shape) < 2 or m.shape[0] != 1 or m.shape[1] == 0:
        raise InputError(f"Expected a layer of shape (1, C, *spatial) with C >= 1, got {tuple(m.shape)}.")
    swept = sweep(m, estimator, {})
    found = swept.channel_map() if swept is not None else None
    if found is not None:
        return found
    channels, spatial = m.shape[1], m.shape[2:]
    bits, codes = score(m, estimator)
    # One row per position: everything below reduces rows.
    codes = codes.reshape(channels, -1).T.contiguous()
    bits = bits.reshape(channels, -1).T.float().masked_fill_(codes != Class.NUMBER, torch.nan)
    counts = _class_counts(codes)
    numeric = counts[:, Class.NUMBER]
    most = counts.argmax(dim=1)
    majority = torch.where((2 * counts.amax(dim=1) > channels) | (numeric == 0), most, int(Class.NUMBER))
    shares = (counts / channels).float().T.reshape(len(Class), *spatial)
    median = _median_of_numbers(bits, numeric).reshape(spatial)
    return median, majority.to(torch.uint8).reshape(spatial), shares


def _class_counts(codes: Tensor) -> Tensor:
    """Return how often each class occurs in each row of `codes` (rows, C): int64 (rows, 8)."""
    rows = torch.arange(len(codes), device=codes.device).mul_(len(Class)).unsqueeze(1)
    counts = torch.bincount((rows + codes).reshape(-1), minlength=len(codes) * len(Class))
    return counts.reshape(-1, len(Class))


def _median_of_numbers(bits: Tensor, numeric: Tensor) -> Tensor:
    """Return the median of the first `numeric` values of each sorted row; NaNs sort to the end."""
    # numpy sorts short rows ten times faster than torch.
    ordered = torch.from_numpy(np.sort(bits.cpu().numpy(), axis=1)).to(bits.device)
    upper = (numeric // 2).clamp(max=bits.shape[1] - 1).unsqueeze(1)
    lower = ((numeric - 1) // 2).clamp(min=0).unsqueeze(1)
    # Where nothing is numeric both are the NaN in front.
    return (ordered.gather(1, lower) + ordered.gather(1, upper)).squeeze(1).mul_(0.5)
