"""Which numbers can a campaign have? Asked before torch is imported, too."""

from mcaprobe.errors import InputError


def check_counts(samples: int, seed: int) -> None:
    """Raise InputError where a campaign cannot have so many samples or such a seed."""
    if samples < 2:
        raise InputError(f"Expected at least 2 samples, since a standard deviation needs two, got {samples}.")
    if seed < 0:
        raise InputError(f"Expected a seed of at least 0, got {seed}.")
