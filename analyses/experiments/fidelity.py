"""Does the emulator perturb as Verrou does? Standard deviations, significant bits, exact results, index changes.

Two comparisons, one table each. `against_verrou`: the operators and the two small U-Nets that were run under Verrou
(`shared/data/verrou`: 20 samples a mode). `against_twin`: random shapes against a twin that rounds after every
multiply-add (tests/reference), whose order of addition is the stock kernel's.
"""

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from scipy.special import digamma

from mcaprobe.emulator import perturb
from mcaprobe.errors import InputError

MODES = ("random", "nearness")
VERROU_SAMPLES = 20
# After the first unpooling every emulator that flips indices looks right: shown, not judged.
NOT_JUDGED = ("unpool", "unpool1", "unpool2", "d2.", "d1.", "head", "softmax")
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Config:
    """What to run: the emulator's route, its samples and seed, and where Verrou's measurements lie."""

    data: Path
    route: str = "exact"
    samples: int = 200
    seed: int = 0
    bootstrap: int = 1000


def against_verrou(config: Config, progress: Callable[[str], None] = lambda _: None) -> list[Row]:
    """Return one row for each operator, output and mode that Verrou was run on."""
    inputs, measured, calls = _load(config.data)
    rows: list[Row] = []
    for name, operator in calls.make_ops(inputs).items():
        for mode in MODES:
            progress(f"route {config.route}: {name} {mode}")
            collected = _Collected()
            with torch.no_grad():
                for sample in range(config.samples):
                    with perturb(mode=mode, seed=config.seed, sample=sample, route=config.route):
                        outputs = operator()
                    collected.add(name, {k: calls.tonp(v) for k, v in outputs.items()}, measured)
            rows += [_verrou_row(name, output, mode, collected, measured, config) for output in collected.totals]
    return rows


def _load(data: Path) -> tuple[dict[str, torch.Tensor], Mapping[str, np.ndarray], ModuleType]:
    for file in ("inputs.npz", "statistics.npz", "calls.py"):
        if not (data / file).is_file():
            raise InputError(f"Expected Verrou's measurements ({file}) in {data}, found none.")
    spec = importlib.util.spec_from_file_location("verrou_calls", data / "calls.py")
    if spec is None or spec.loader is None:
        raise InputError(f"Expected Python source in {data / 'calls.py'}.")
    calls = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(calls)
    with np.load(data / "inputs.npz", allow_pickle=False) as f:
        inputs = {k: torch.from_numpy(f[k]) for k in f.files}
    with np.load(data / "statistics.npz", allow_pickle=False) as f:
        return inputs, {k: f[k] for k in f.files}, calls


class _Collected:
    """Sums of the deviations from Verrou's IEEE run, and counts of changed indices, over the samples."""

    def __init__(self) -> None:
        self.totals: dict[str, list[np.ndarray]] = {}
        self.samples: dict[str, int] = {}

    def add(self, name: str, outputs: Mapping[str, np.ndarray], measured: Mapping[str, np.ndarray]) -> None:
        for output, value in outputs.items():
            reference = measured[f"{name}__{output}__ieee"]
            if value.dtype.kind == "i":
                terms = [(value != reference).astype(float)]
            else:
                d = value.astype(float) - reference
                terms = [d, d * d]
            held = self.totals.setdefault(output, [np.zeros_like(t) for t in terms])
            for total, term in zip(held, terms, strict=True):
                total += term
            self.samples[output] = self.samples.get(output, 0) + 1

    def std(self, output: str) -> np.ndarray:
        first, second = self.totals[output]
        n = self.samples[output]
        return np.sqrt(np.maximum(second - first * first / n, 0) / (n - 1))


def _verrou_row(
    name: str, output: str, mode: str, collected: _Collected, measured: Mapping[str, np.ndarray], config: Config
) -> Row:
    after = any(output == p or (p.endswith(".") and output.startswith(p)) for p in NOT_JUDGED)
    judged = not after or name == "softmax64"
    row: Row = {
        "route": config.route,
        "comparison": "verrou",
        "operator": name,
        "output": output,
        "mode": mode,
        "n": config.samples,
        "reference_n": VERROU_SAMPLES,
        "judged": judged,
    }
    if len(collected.totals[output]) == 1:
        ours = float(collected.totals[output][0].mean() / config.samples)
        theirs = float(measured[f"{name}__{output}__{mode}__change_rate"].mean())
        ratio = ours / theirs if theirs else (1.0 if ours == 0 else float("inf"))
        return row | {
            "elements": collected.totals[output][0].size,
            "change_rate": ours,
            "change_rate_reference": theirs,
            "change_ratio": ratio,
            "met": abs(ratio - 1) <= 0.15,
        }
    return row | compare(
        collected.std(output),
        config.samples,
        measured[f"{name}__{output}__{mode}__std"],
        VERROU_SAMPLES,
        measured[f"{name}__{output}__ieee"],
        config,
    )


def compare(ours: np.ndarray, n: int, theirs: np.ndarray, m: int, reference: np.ndarray, config: Config) -> Row:
    """Return the figures that hold two fields of standard deviations against each other.

    Args:
        ours, theirs: Standard deviations (ddof 1) over n and m samples, any shape.
        reference: The IEEE run, same shape: significant bits are -log2(std / |reference|), where both stds are
            positive and the reference is not 0, less the bias of the logarithm of a sample's std (normal samples).
    """
    a, b, x = (np.asarray(t, dtype=float).ravel() for t in (ours, theirs, reference))
    row: Row = {
        "elements": a.size,
        "exact": float((a == 0).mean()),
        "exact_reference": float((b == 0).mean()),
        "exact_agreement": float(((a == 0) == (b == 0)).mean()),
    }
    if not b.any() or not a.any():
        return row | {"met": not a.any() and not b.any()}
    ratio = _rms_ratio(a, b)
    rng = np.random.default_rng(config.seed)
    draws = (rng.integers(0, a.size, a.size) for _ in range(config.bootstrap))
    low, high = np.nanquantile([_rms_ratio(a[i], b[i]) for i in draws], [0.025, 0.975])
    both = (a > 0) & (b > 0) & (x != 0)
    bits_ours = -np.log2(a[both] / abs(x[both])) + _log_bias(n)
    bits_theirs = -np.log2(b[both] / abs(x[both])) + _log_bias(m)
    difference = float((bits_ours - bits_theirs).mean())
    return row | {
        "rms_ratio": ratio, "low": float(low), "high": float(high), "bits": float(bits_ours.mean()),
        "bits_reference": float(bits_theirs.mean()), "bits_difference": difference,
        "within_half_bit": float((abs(bits_ours - bits_theirs) < 0.5).mean()),
        "met": bool(low <= 1.25 and high >= 0.8),
    }  # fmt: skip


def _rms_ratio(a: np.ndarray, b: np.ndarray) -> float:
    below = float((b * b).mean())
    return float(np.sqrt((a * a).mean() / below)) if below else float("nan")


def _log_bias(n: int) -> float:
    """Return E[log2 s] - log2 sigma for the standard deviation s of n normal samples."""
    return float((digamma((n - 1) / 2) - np.log((n - 1) / 2)) / 2 / np.log(2))


def against_twin(config: Config, shapes: int = 30, progress: Callable[[str], None] = lambda _: None) -> list[Row]:
    """Return one row for each random shape and mode, against the twin that rounds after every multiply-add."""
    from tests.reference import multiply_add_twin as twin

    rng = np.random.default_rng(config.seed)
    rows = []
    for number in range(shapes):
        case = _random_convolution(rng) if number % 5 else _random_product(rng)
        for mode in MODES:
            progress(f"route {config.route}: shape {number + 1} of {shapes}, {mode}")
            rows.append(_twin_row(case, mode, twin, config, rng))
    return rows


@dataclass(frozen=True, slots=True)
class _Case:
    name: str
    call: Callable[[], torch.Tensor]
    terms: Callable[[ModuleType, tuple[int, ...]], tuple[np.ndarray, np.ndarray]]
    bias: np.ndarray | None
    bias_first: bool
    channel_axis: int


def _random_convolution(rng: np.random.Generator) -> _Case:
    groups = int(rng.choice([1, 1, 1, 2, 4]))
    channels, outputs = groups * int(rng.integers(1, 25)), groups * int(rng.integers(1, 9))
    kernel, size = int(rng.choice([1, 3, 3, 5])), int(rng.integers(9, 24))
    stride, dilation = int(rng.choice([1, 1, 2])), int(rng.choice([1, 1, 2]))
    padding = int(rng.integers(0, kernel // 2 * dilation + 1))
    x = rng.standard_normal((channels, size, size)).astype(np.float32) + np.float32(rng.choice([0.0, 1.0]))
    if rng.random() < 0.3:
        x = np.maximum(x, 0)
    w = (rng.standard_normal((outputs, channels // groups, kernel, kernel)) / kernel).astype(np.float32)
    b = rng.standard_normal(outputs).astype(np.float32)
    image, weight, shift = (torch.from_numpy(t) for t in (x[None], w, b))
    steps = ([stride] * 2, [padding] * 2, [dilation] * 2)
    backend = torch._C._select_conv_backend(image, weight, shift, *steps, False, [0, 0], groups)
    # Which kernel runs is torch's choice; oneDNN's starts from the bias and takes the channels in eights.
    direct = "mkldnn" in str(backend).lower()
    return _Case(
        f"conv {channels}->{outputs} {kernel}x{kernel} /{stride} dilation {dilation} groups {groups} on {size}x{size}",
        lambda: torch.conv2d(image, weight, shift, stride, padding, dilation, groups)[0],
        lambda twin, at: twin.convolution_terms(x, w, at, stride, padding, dilation, groups, direct),
        b, direct, 0,
    )  # fmt: skip


def _random_product(rng: np.random.Generator) -> _Case:
    n, k, m = (int(v) for v in rng.integers(2, (40, 257, 40)))
    a, b = rng.standard_normal((n, k)).astype(np.float32), rng.standard_normal((k, m)).astype(np.float32)
    left, right = torch.from_numpy(a), torch.from_numpy(b)
    return _Case(
        f"mm {n}x{k} @ {k}x{m}", lambda: left @ right, lambda twin, at: (a[at[0]], b[:, at[1]]), None, False, 0
    )


def _twin_row(case: _Case, mode: str, twin: ModuleType, config: Config, rng: np.random.Generator) -> Row:
    with torch.no_grad():
        reference = case.call().double().numpy()
        samples = []
        for sample in range(config.samples):
            with perturb(mode=mode, seed=config.seed, sample=sample, route=config.route):
                samples.append(case.call().double().numpy())
    ours = np.std(samples, axis=0, ddof=1)
    chosen = rng.choice(reference.size, min(200, reference.size), replace=False)
    places = [tuple(int(i) for i in np.unravel_index(c, reference.shape)) for c in chosen]
    factors = [case.terms(twin, at) for at in places]
    a, b = (np.stack([f[i] for f in factors], axis=1) for i in (0, 1))
    bias = (
        np.zeros(len(places), np.float32) if case.bias is None else case.bias[[at[case.channel_axis] for at in places]]
    )
    start = bias if case.bias_first else np.zeros_like(bias)
    theirs = twin.multiply_add(a, b, start, config.samples, mode, rng)
    if not case.bias_first and case.bias is not None:
        theirs = twin.round_randomly(theirs.astype(float) + bias, mode, rng)
    row: Row = {
        "route": config.route,
        "comparison": "twin",
        "operator": case.name,
        "output": "y",
        "mode": mode,
        "n": config.samples,
        "reference_n": config.samples,
        "judged": True,
    }
    picked = tuple(np.array(axis) for axis in zip(*places, strict=True))
    return row | compare(
        ours[picked],
        config.samples,
        np.std(theirs.astype(float), axis=0, ddof=1),
        config.samples,
        reference[picked],
        config,
    )
