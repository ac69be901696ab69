"""What must be said of a mask? Criterion, estimator, n and what it supports, the run, the tensor, the counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mcaprobe.estimators import Class, Estimator, samples_needed, supported_probability
from mcaprobe.flips import claim
from mcaprobe.layer_result import LayerResult
from mcaprobe.manifest import command, commit, versions
from mcaprobe.masks import Criterion, IndexChange, SnrBelow
from mcaprobe.pairing import backend_of
from mcaprobe.result import Result
from mcaprobe.spread import std_scatter
from mcaprobe.steps import SUFFIXES
from mcaprobe.storage import file_name
from mcaprobe.stores import SUFFIX

RUN_LINK = "run"  # the name of the run directory in DatasetLinks


def facts_of_run(run: Result, criterion: Criterion, estimator: Estimator) -> dict[str, Any]:
    """Return what is the same for all masks of one call, under names in the style of BIDS."""
    manifest = run.manifest
    return {
        "Criterion": {
            "Option": f"--{criterion.option}",
            "Threshold": criterion.threshold,
            "Unit": criterion.unit,
            "Rule": str(criterion),
        },
        "UndefinedPolicy": undefined_policy(criterion),
        "Estimator": {
            "Name": str(estimator), "Method": estimator.method, "Reference": estimator.reference,
            "Error": estimator.error, "Probability": estimator.probability, "Confidence": estimator.confidence,
            "Convention": estimator.convention,
        },
        "Samples": run.samples,
        "SupportedProbability": supported_probability(run.samples, estimator.confidence),
        "SamplingCeiling": sampling_ceiling(criterion, estimator, run.samples),
        "Mode": manifest["mode"],
        "Precision": manifest.get("precision"),
        "Seed": manifest.get("seed"),
        "Backend": backend_of(run),
        "Route": manifest.get("route"),
        "Model": manifest["identity"]["model"],
        "Input": manifest["input"]["name"],
        "Run": {
            "Identity": manifest["identity"],
            **{key.capitalize(): manifest.get(key) for key in ("command", "commit", "versions")},
        },
        "GeneratedBy": generated_by(),
    }  # fmt: skip


def generated_by() -> list[dict[str, Any]]:
    """Return what made the masks: this package, its version and commit, the command line of this process."""
    return [{"Name": "mcaprobe", "Version": versions()["mcaprobe"], "Commit": commit(), "Command": command()}]


def facts_of_layer(
    run: Result, layer: LayerResult, counts: Mapping[str, int], kinds: Sequence[int] | None
) -> dict[str, Any]:
    """Return what is said of one layer: the tensor, how much of it is marked and undefined.

    Args:
        counts: Elements, masked, undefined.
        kinds: Elements of each class, in the order of Class; None for decisions.
    """
    elements = counts["elements"]
    return {
        "Layer": layer.name,
        "Operator": layer.operator,
        "Tensor": _tensor(layer),
        "Aliases": sorted(other for other, name in run.manifest["aliases"].items() if name == layer.name),
        "Shape": list(layer.shape),
        "ImageAxes": layer.image_axes if layer.spatial else None,
        "Elements": elements,
        "MaskedElements": counts["masked"],
        "MaskedShare": counts["masked"] / elements if elements else None,
        "UndefinedElements": counts["undefined"],
        "UndefinedShare": counts["undefined"] / elements if elements else None,
        "ElementsOfClass": None if kinds is None else {kind.name.lower(): kinds[kind] for kind in Class},
        "FieldOfViewAssumed": layer.field_of_view_assumed if layer.spatial else None,
        "Sources": _sources(run, layer.name),
    }


def _tensor(layer: LayerResult) -> str:
    """Return such as `indices of encode1.pool`, `labels of :output`, `output of conv`."""
    source, _, what = layer.name.rpartition(".")
    return f"{what} of {source}" if layer.is_index and f".{what}" in SUFFIXES else f"output of {layer.name}"


def _sources(run: Result, layer: str) -> list[str]:
    """Return the layer's file in the run directory as a BIDS URI, and the input as the user named it."""
    kept = [] if run.path is None else [f"bids:{RUN_LINK}:layers/{file_name(layer)}{SUFFIX}"]
    return [*kept, str(run.manifest["input"]["name"])]


def undefined_policy(criterion: Criterion) -> str:
    """Return which elements are neither marked nor said to be stable."""
    classes = "zero, exact, shifted, nan, inf or undefined"
    if criterion.on_indices:
        return "No decision is undefined: each is taken in every sample."
    if criterion.option == "snr-below":
        return f"Elements that do not vary, or were not finite in a run (class {classes}), are undefined: not marked."
    if criterion.option == "class" and criterion.threshold != "noise":
        return "No element is undefined: each is of one class, first match wins."
    return (
        f"Elements without significant bits (class {classes}; 0 in all samples, say) are undefined: "
        "neither stable nor unstable, and not marked."
    )


def sampling_ceiling(criterion: Criterion, estimator: Estimator, n: int) -> dict[str, Any]:
    """Return in numbers and words what n samples can and cannot claim of the masks."""
    share = 1 - supported_probability(n, estimator.confidence)
    return {
        "MissedWithProbability": f"(1 - q)^{n}",
        "LargestShareNeverSeen": share,
        "Statement": " ".join(_ceiling(criterion, estimator, n, share)),
    }


def _ceiling(criterion: Criterion, e: Estimator, n: int, share: float) -> list[str]:
    sure = f"At {e.confidence:.0%} confidence"
    if isinstance(criterion, IndexChange):
        least = criterion.least(n)
        return [
            f"Rates are multiples of 1/{n}: a decision is marked from {least} changed {_samples(least)} of {n} on.",
            claim(n, e.confidence),
        ]
    never = (
        f"An element that differs in a share q of all runs looks constant in {n} samples with probability (1 - q)^{n}. "
        f"{sure} an element that never differed differs in at most {share:.2f} of all runs."
    )
    if isinstance(criterion, SnrBelow):
        return [never, f"The standard deviation of {n} normal samples scatters by {std_scatter(n):.0%}."]
    if criterion.option == "class" and criterion.threshold != "noise":
        return [
            f"A class is what {n} samples show: what happens in a share q of all runs is not seen in {n} with "
            f"probability (1 - q)^{n}. {sure} what was never seen happens in at most {share:.2f} of all runs."
        ]
    assumed = (
        f"CNH assumes normal samples; without assumptions {n} samples support p = {1 - share:.2f}"
        if e.method == "cnh"
        else f"{n} samples support p = {1 - share:.2f}"
    )
    needed = samples_needed(e.probability, e.confidence)
    return [never, f"{assumed} at {e.confidence:.0%} confidence; p = {e.probability:g} needs {needed}."]


def _samples(count: int) -> str:
    return "sample" if count == 1 else "samples"

