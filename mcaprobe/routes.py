"""Which way does a perturbed run take: every instruction rounded by compiled kernels, or stock kernels and a model?"""

from mcaprobe import kernels
from mcaprobe.errors import InputError
from mcaprobe.kernels.call import MODES

EXACT, MODEL, AUTO = "exact", "model", "auto"
VERROU = "verrou"  # not emulated: each sample is a process under Verrou
ROUTES = (EXACT, MODEL, AUTO)
_COMPILED = tuple(mode for mode in MODES if mode != "nearest")


def obstacle(mode: str, device: str) -> str | None:
    """Return why the route exact cannot be taken, as half a sentence; None where it can."""
    if mode not in _COMPILED:
        return f"the compiled kernels have the modes {' and '.join(_COMPILED)}, not {mode}"
    if not device.startswith("cpu"):
        return f"the compiled kernels run on the processor, not on {device}"
    return kernels.absence() if kernels.library() is None else None


def resolve(route: str, mode: str, device: str) -> str:
    """Return `exact` or `model`; InputError where the route exact was asked for and cannot be taken."""
    if route not in ROUTES:
        raise InputError(f"Expected a route among {', '.join(ROUTES)}, got {route!r}.")
    why = obstacle(mode, device)
    if route == EXACT and why is not None:
        raise InputError(f"The route exact cannot be taken: {why}. Take the route auto or model.")
    return MODEL if route == MODEL or why is not None else EXACT
