"""perturb(): every inexact operator inside the block is randomly rounded, in any model, unmodified."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

from mcaprobe.errors import InputError
from mcaprobe.perturbation import Perturbation
from mcaprobe.rounding import MODES, Arithmetic
from mcaprobe.routes import AUTO


@contextmanager
def perturb(
    mode: str = "random", seed: int = 0, *, sample: int = 0, precision: int | None = None, route: str = AUTO
) -> Iterator[Perturbation]:
    """Perturb every operator in the block: one sample of Monte Carlo arithmetic, emulated.

    The same seed and sample give the same bits, whatever the threads: stock kernels run on one thread inside.

    Args:
        mode: `random`, `nearness`, `up_down`, or Monte Carlo arithmetic `rr`, `pb`, `full`.
        seed: Seed of the run, 0 or more.
        sample: Number of the sample, 0 or more; each has its own stream.
        precision: Virtual precision in bits, for `rr`, `pb` and `full`.
        route: `exact` (compiled kernels round every instruction; modes random and nearness), `model` (stock kernels
            and a model of their noise), or `auto`: exact where that is possible.
    Raises:
        InputError: unknown mode, a precision or route that does not fit the mode, or a block inside another one.
    """
    with lockstep([sample], reference=False, mode=mode, seed=seed, precision=precision, route=route) as block:
        yield block


@contextmanager
def lockstep(
    samples: Sequence[int],
    reference: bool = True,
    mode: str = "random",
    seed: int = 0,
    precision: int | None = None,
    threads: int = 1,
    route: str = AUTO,
) -> Iterator[Perturbation]:
    """Carry several samples, and the IEEE run before them, through one pass of a model.

    Args:
        samples: Numbers of the samples.
        reference: Whether lane 0 is the unperturbed run.
        threads: Lanes computed at the same time. Each stock kernel runs on one thread, so that no bit depends on it.
        route: As for perturb().
    """
    if any(isinstance(mode, Perturbation) for mode in _get_current_dispatch_mode_stack()):
        raise InputError("Expected no perturb() or lockstep() around another one: its arithmetic is perturbed already.")
    if not samples and not reference:
        raise InputError("Expected at least one sample or the reference, got none.")
    if seed < 0 or any(s < 0 for s in samples):
        raise InputError(f"Expected a seed and sample numbers of 0 or more, got seed {seed}, samples {list(samples)}.")
    if mode not in MODES:
        raise InputError(f"Expected a mode among {', '.join(MODES)}, got {mode!r}.")
    lanes = [None, *samples] if reference else list(samples)
    inside = torch.get_num_threads() if len(lanes) == 1 else threads
    block = Perturbation(lanes, Arithmetic(mode, precision), seed, route, threads, inside)
    try:
        with _stock_state(), block:
            yield block
    finally:
        block.close()


@contextmanager
def attention_by_parts() -> Iterator[None]:
    """Let transformer layers run their operators one by one, not torch's fused path; restored after."""
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)


@contextmanager
def _stock_state() -> Iterator[None]:
    """Stock kernels on one thread, attention by its parts; both restored after."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with attention_by_parts():
            yield
    finally:
        torch.set_num_threads(threads)
