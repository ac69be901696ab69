"""How many digits does a layer keep? The public names of the statistics; the parts are in the files below.

moments.py          what is kept of the samples (update, merge)
index_moments.py    the same for pool indices
estimators.py       significant bits (CNH, General) and classes of elements
"""

from mcaprobe.estimators import (
    Class,
    Estimator,
    classes,
    mantissa_bits,
    samples_needed,
    score,
    shift,
    significant_bits,
    snr_below_one,
    stored_bits,
    supported_probability,
)
from mcaprobe.index_moments import IndexMoments
from mcaprobe.moments import Moments

__all__ = [
    "Class",
    "Estimator",
    "IndexMoments",
    "Moments",
    "classes",
    "mantissa_bits",
    "samples_needed",
    "score",
    "shift",
    "significant_bits",
    "snr_below_one",
    "stored_bits",
    "supported_probability",
]
