"""What is a weighted mean of the valid values? For every operator of torch that averages neighbours."""

from collections.abc import Callable

import torch
from torch import Tensor

from nanops.functional.presence import known_clean, laid_out_as

# Weights that add up to the threshold in real arithmetic reach it, whichever kernel of torch adds them up.
ROUNDING = 2.0**-40


def average_valid(average: Callable[[Tensor], Tensor], x: Tensor, threshold: float) -> Tensor:
    """Return average(x) with the weights of NaN left out and the others renormalised, in the dtype of x.

    Where no NaN has any weight the result has the bits of torch's own. Elsewhere values and weights are averaged in
    float64, by the same kernel, so that the weights of numerator and denominator agree; the result is rounded once.

    Args:
        average: A linear operator of torch with weights that are not negative and add up to 1.
        threshold: The result is NaN where the weight of NaN is at least this, up to 2^-40; 1 means all of the weight.
    """
    if known_clean(x):
        return average(x)
    missing = x.isnan()
    values = torch.where(missing, 0, x)
    own = average(values)
    lost = average(missing.double())
    dropped = lost >= threshold - ROUNDING
    renormalised = average(values.double()) / torch.where(dropped, 1, average((~missing).double()))
    found = torch.where(lost == 0, own, renormalised.to(own.dtype))
    return laid_out_as(own, torch.where(dropped, torch.nan, found))
