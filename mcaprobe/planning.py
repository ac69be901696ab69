"""What will a campaign need? Memory and disk are predicted from one plain forward, before anything starts."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

import torch
from torch import Tensor, nn

from mcaprobe import kernels
from mcaprobe.emulator import attention_by_parts
from mcaprobe.errors import InputError
from mcaprobe.geometry import LayerInfo, survey
from mcaprobe.memory import LiveBytes, base_memory, default_memory
from mcaprobe.models import state_hashes
from mcaprobe.routes import EXACT, resolve
from mcaprobe.settings import Settings, matches, show_bytes
from mcaprobe.statistics import IndexMoments, Moments
from mcaprobe.steps import LABELS

# Measured bytes for each element, on the CPU. Of an operator's output, for each thread, while its noise is drawn and
# rounded, or, on the route exact, while it is computed. Of a weight: its squares, or the copies that the kernels read.
# Of the largest layer: what the compiled sweep writes; what torch needs beside the moments for bits, classes and
# histograms. What malloc keeps on top of what is in use: a quarter.
WORKSPACE = 60
EXACT_WORKSPACE = 12
WEIGHTS = 8
SWEPT = 12
SCORES = 50
MALLOC = 1.25
MAP_BYTES = 2 * 4 * 9 + 5  # of each position: the NIfTI volumes, the stored map and shares
HISTOGRAM_BYTES = 2**17  # of each layer: three regions, eight estimators, 16 bins a bit of float64
PROCESS = 2**30  # Valgrind, Python and torch before a model is there: measured 0.7 to 0.9 GiB
SLACK = 64 * 2**20  # libraries that are loaded later, pictures


@dataclass(frozen=True, slots=True)
class Survey:
    """What one plain forward tells.

    Attributes:
        layers: The recorded layers, in execution order.
        live: Largest sum of the bytes of activations alive at one time, the labels of the output among them.
        largest: Elements of the largest output of an operator.
        weights: Elements of the largest parameter.
        output: Name of the last recorded floating-point layer, or of the last layer where all are decisions.
    """

    layers: dict[str, LayerInfo]
    live: int
    largest: int
    weights: int
    output: str


def look(model: nn.Module, x: Tensor, layers: Sequence[str]) -> Survey:
    """Run the model twice, unperturbed: once to place its layers, once to count its live bytes.

    Raises:
        InputError: the model changes its own parameters or buffers, or nothing is recorded.
    """
    hashes = state_hashes(model)
    with attention_by_parts():
        found = survey(model, x, list(layers))
    for name, value in state_hashes(model).items():
        if hashes.get(name) != value:
            raise InputError(
                f"The model changes its own {name} in forward: samples would depend on each other. "
                "Put that part in evaluation mode, or make it functional."
            )
    if not found:
        raise InputError("Expected a model that computes something, got one whose calls put out nothing new.")
    floating = [info.name for info in found.values() if info.dtype.is_floating_point]
    counter = LiveBytes()
    with torch.no_grad(), attention_by_parts(), counter:
        y = model(x)
    labels = max((_bytes(info) for info in found.values() if info.step == LABELS), default=0)
    live = max(counter.peak, counter.live + labels)  # they are taken while the output is alive
    del y
    weights = max((p.numel() for p in model.parameters()), default=0)
    return Survey(found, live, counter.largest, weights, (floating or list(found))[-1])


def _bytes(info: LayerInfo) -> int:
    """Return the bytes of a layer in one run."""
    return prod(info.shape) * info.dtype.itemsize


def state_bytes(info: LayerInfo) -> int:
    """Return the bytes of the stored moments of a layer (those of a few elements, scaled)."""
    kind = Moments if info.dtype.is_floating_point else IndexMoments
    state = kind.empty(torch.zeros(64, dtype=info.dtype)).state()
    return sum(t.numel() * t.element_size() for t in state.values()) * prod(info.shape) // 64


@dataclass(frozen=True, slots=True)
class Needs:
    """Predicted bytes, and the blocks that run at once.

    Attributes:
        memory: Peak of the process (on CUDA: of the device).
        allowed: What it may take.
        disk: Largest size of the run directory while it runs.
        blocks: Blocks to a chunk.
    """

    memory: int
    allowed: int
    disk: int
    blocks: int


def _reduction(settings: Settings, info: LayerInfo, side_by_side: int, direct: bool) -> int:
    """Return the bytes that are in use while a layer is reduced."""
    elements = prod(info.shape)
    swept = info.dtype == torch.float32 and settings.device == "cpu" and kernels.library() is not None
    if not swept:
        return (1 + side_by_side) * state_bytes(info) + SCORES * elements
    kept = 0 if direct and not matches(info.name, settings.keep_moments) else 2
    return kept * state_bytes(info) + SWEPT * elements


def memory_needed(
    settings: Settings, seen: Survey, lanes: int, copies: int, in_memory: bool, direct: bool = False
) -> int:
    """Return the predicted peak in bytes with `lanes` runs side by side.

    Args:
        copies: How often the moments of all layers are in memory together: once when samples run one at a time, once
            more when totals are.
        in_memory: The campaign has no directory: kept moments and samples stay in memory.
        direct: All samples run at once: moments that nobody keeps are never in memory.
    """
    threads = min(settings.thread_count(), lanes)
    side_by_side = min(threads, -(-(lanes - 1) // settings.block) or 1)
    narrow = all(info.dtype != torch.float64 for info in seen.layers.values())  # the kernels compute float32
    exact = narrow and resolve(settings.route, settings.mode, settings.device) == EXACT
    growth = lanes * seen.live
    growth += threads * ((EXACT_WORKSPACE if exact else WORKSPACE) * seen.largest + WEIGHTS * seen.weights)
    growth += max(_reduction(settings, info, side_by_side, direct) for info in seen.layers.values())
    growth += copies * sum(state_bytes(info) for info in seen.layers.values())
    need = base_memory(settings.device) + SLACK + int(MALLOC * growth)
    if in_memory:
        need += kept_bytes(settings, seen) + map_bytes(seen)
    return need


def driver_memory(settings: Settings, seen: Survey) -> int:
    """Return the predicted peak in bytes of a process that gives out units and merges what they leave."""
    growth = max(_reduction(settings, info, 1, direct=False) for info in seen.layers.values())
    return base_memory(settings.device) + SLACK + int(MALLOC * growth)


def kept_bytes(settings: Settings, seen: Survey) -> int:
    """Return the bytes of the moments and samples that the user asked to keep."""
    total = 0
    for info in seen.layers.values():
        if matches(info.name, settings.keep_moments):
            total += state_bytes(info)
        if matches(info.name, settings.keep_samples):
            total += (settings.samples + 1) * _bytes(info)
    return total


def map_bytes(seen: Survey) -> int:
    mapped = [info for info in seen.layers.values() if info.spatial and info.dtype.is_floating_point]
    return sum(MAP_BYTES * prod(info.shape[2:]) for info in mapped)


def disk_needed(settings: Settings, seen: Survey, chunks: int) -> int:
    """Return the predicted size of the run directory: maps, what is kept, and all moments where there are chunks."""
    total = kept_bytes(settings, seen) + map_bytes(seen) + 2**20
    total += len(seen.layers) * HISTOGRAM_BYTES
    if chunks > 1:
        total += len(settings.blocks()) * sum(state_bytes(info) for info in seen.layers.values())
    return total


def plan(
    settings: Settings, seen: Survey, out: Path | None, blocks: int | None = None, one_at_a_time: bool = False,
    totals: bool = False,
) -> Needs:  # fmt: skip
    """Return how many blocks run at once within the memory allowed, and what that needs.

    Args:
        blocks: Blocks that are still to do; None for all.
        one_at_a_time: Plan for samples that run alone.
        totals: Without a directory, whether the moments of all layers are merged in memory, chunk by chunk; tried by
            itself where all samples together do not fit.
    Raises:
        InputError: not even one block fits the memory, or the results do not fit the disk.
    """
    allowed = settings.memory or default_memory(settings.device)
    total = len(settings.blocks())
    todo = total if blocks is None else blocks
    count = 1 if one_at_a_time else todo
    if settings.chunk is not None:
        count = min(count, max(1, settings.chunk // settings.block))
    while True:
        lanes = 1 if one_at_a_time else 1 + min(settings.samples, count * settings.block)
        copies = int(one_at_a_time) + int(totals or (out is None and count < total))
        direct = count == total and not (one_at_a_time or totals)
        memory = memory_needed(settings, seen, lanes, copies, out is None, direct)
        if memory <= allowed:
            break
        if count == 1:
            raise InputError(_refusal(settings, seen, memory, allowed, lanes))
        count -= 1
    disk = disk_needed(settings, seen, 1 if count >= total else 2)
    if out is not None:
        expect_room(disk, out)
    return Needs(memory, allowed, disk, count)


def plan_processes(settings: Settings, seen: Survey, out: Path, jobs: int | None) -> tuple[Needs, int]:
    """Return the needs of a campaign whose runs are processes, and how many of them go at once.

    Args:
        jobs: As many as were asked for; None: as the processors and the memory allow.
    Raises:
        InputError: not even one fits the memory, or the files of all runs do not fit the disk.
    """
    recorded = [_bytes(info) for info in seen.layers.values()]
    one = PROCESS + int(MALLOC * (seen.live + sum(recorded))) + 2 * 4 * seen.weights
    own = base_memory(settings.device) + SLACK + (settings.samples + 2) * max(recorded)
    own += max(_reduction(settings, info, settings.thread_count(), True) for info in seen.layers.values())
    allowed = settings.memory or default_memory(settings.device)
    runs = settings.samples + 2
    count = jobs or max(1, min(settings.thread_count(), runs, (allowed - own) // one))
    if own + count * one > allowed:
        raise InputError(
            f"{count} processes under Verrou would take {show_bytes(own + count * one)}, and {show_bytes(allowed)} are "
            "allowed: raise --memory, lower --jobs, or record fewer layers with --layers."
        )
    needs = Needs(own + count * one, allowed, disk_needed(settings, seen, 1) + runs * sum(recorded), 1)
    expect_room(needs.disk, out)
    return needs, count


def expect_room(disk: int, out: Path) -> None:
    free = shutil.disk_usage(_existing(out)).free
    if disk > free:
        raise InputError(
            f"The run would write up to {show_bytes(disk)}, but the disk of {out} has {show_bytes(free)} free: "
            "choose another --out, fewer layers (--layers), or keep fewer moments and samples."
        )


def _refusal(settings: Settings, seen: Survey, memory: int, allowed: int, lanes: int) -> str:
    base = base_memory(settings.device)
    return (
        f"{lanes} runs side by side would take {show_bytes(memory)}, {show_bytes(base)} of them are taken already, and "
        f"{show_bytes(allowed)} are allowed: raise --memory, lower --block (now {settings.block}), or record "
        f"fewer layers (now {len(seen.layers)}) with --layers."
    )


def _existing(path: Path) -> Path:
    while not path.exists():
        path = path.absolute().parent
    return path
