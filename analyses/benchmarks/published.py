"""What do other tools cost? Ratios measured elsewhere, each with its source; none was measured in our own run."""

from dataclasses import dataclass

OWN = (
    "measured for this project, not in this run: Verrou 2.7.0 on Valgrind 3.26, torch 2.13.0+cpu, one thread, over "
    "native AVX2"
)
PAPER = (
    "published: Gonzalez Pepe, Akhaddar, Glatard and Chatelain, Fuzzy PyTorch: Rapid Numerical Variability Evaluation "
    "for Deep Learning Models (arXiv 2605.25991)"
)


@dataclass(frozen=True, slots=True)
class Published:
    """A ratio to the unperturbed run, or its range, as somebody else measured it.

    Args:
        low, high: The ratio; equal where one number was given.
    """

    tool: str
    subject: str
    mode: str
    low: float
    high: float
    source: str


PUBLISHED = (
    Published("Verrou", "small U-Net", "random", 203, 203, OWN),
    Published("Verrou", "small U-Net", "nearness", 246, 246, OWN),
    Published("Verrou", "convolution 64->64 5x5", "random", 1216, 1216, OWN),
    Published("Verrou", "convolution 64->64 5x5", "nearness", 1660, 1660, OWN),
    Published("Verrou", "MNIST net", "", 311, 335, PAPER),
    Published("Verrou", "FastSurfer, 22 days a run", "", 198, 214, PAPER),
    Published("PRISM, needs a rebuilt PyTorch", "MNIST net", "", 8, 11, PAPER),
    Published("PRISM, needs a rebuilt PyTorch", "FastSurfer", "", 3.6, 4.1, PAPER),
)
