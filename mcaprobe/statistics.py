"""How many digits does a layer keep? The public names of the statistics; the parts are in the files below.

moments.py          what is kept of the samples (update, merge)
index_moments.py    the same for decisions, such as pool indices
estimators.py       the settings of an estimator, what n samples support
significance.py     significant bits (CNH, General) and classes of elements
"""

from mcaprobe.estimators import (
    Class,
    Estimator,
    mantissa_bits,
    samples_needed,
    shift,
    stored_bits,
    supported_probability,
)
from mcaprobe.index_moments import IndexMoments
from mcaprobe.moments import Moments
from mcaprobe.significance import classes, score, significant_bits, snr_below_one

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
