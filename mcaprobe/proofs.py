"""What shows that a run under Verrou was perturbed, and that nothing else was? Each failure is one sentence."""

import re
from pathlib import Path

import torch

from mcaprobe.errors import InputError
from mcaprobe.sample_files import Proof, layers_file, log_file
from mcaprobe.storage import read_tensors
from mcaprobe.verrou import AGAIN, DETERMINISTIC, REFERENCE


class Unproven(InputError):
    """A run that does not prove what it must; its results are not used."""


def title(run: str) -> str:
    """Return a run as a sentence calls it."""
    return {REFERENCE: "the baseline", AGAIN: "the second baseline"}.get(run, f"sample {run}")


def check_alone(run: str, proof: Proof) -> None:
    """Raise Unproven where a run was not instrumented, or had more than one thread."""
    if proof.counted <= 0:
        raise Unproven(
            f"Not perturbed: Verrou counted no floating-point operation in {title(run)}. Let the launcher run Python "
            "itself under `valgrind --tool=verrou`, no script that starts another process, and look for an "
            "exclusion or source list that leaves nothing."
        )
    if proof.threads != 1:
        raise Unproven(
            f"Not one thread: torch had {proof.threads} in {title(run)}, and sums depend on their number. Remove "
            "torch.set_num_threads from the model."
        )


def check_same_machine(run: str, proof: Proof, other: str, known: Proof) -> None:
    """Raise Unproven where two runs of a campaign had other kernels or other software."""
    if proof.instruction_set != known.instruction_set:
        raise Unproven(
            f"Not the same kernels: torch dispatched to {proof.instruction_set} in {title(run)} and to "
            f"{known.instruction_set} in {title(other)}. Run the whole campaign on one type of machine (--overwrite)."
        )
    for name, value in known.versions.items():
        if proof.versions.get(name) != value:
            raise Unproven(
                f"Not the same software: {name} is {proof.versions.get(name)} in {title(run)} and {value} in "
                f"{title(other)}. Run the whole campaign with one (--overwrite)."
            )


def check_baseline(folder: Path, first: Proof, second: Proof) -> None:
    """Raise Unproven where two runs that round to nearest differ: then the samples differ by more than rounding."""
    if first.sha256 != second.sha256:
        raise Unproven(
            f"Not repeatable: two runs that round to nearest differ{_first_difference(folder)}. Something beside "
            "rounding varies: let the model draw random numbers from torch's generator only, and read no clock."
        )


def _first_difference(folder: Path) -> str:
    one, two = (read_tensors(layers_file(folder, run)) for run in (REFERENCE, AGAIN))
    for name, tensor in one.items():
        if name not in two or not torch.equal(tensor, two[name]):
            return f", first in layer {name}"
    return ""


def check_seeds(mode: str, first: tuple[str, Proof], second: tuple[str, Proof]) -> None:
    """Raise Unproven where two samples are the same bits although their rounding is random."""
    if mode not in DETERMINISTIC and first[1].sha256 == second[1].sha256:
        raise Unproven(
            f"Not random: {title(first[0])} and {title(second[0])} have the same bits although their seeds differ. "
            "Look for lists that exclude the model's kernels; a model of so little arithmetic needs other samples "
            "(--seed)."
        )


def counted(folder: Path, run: str, proof: Proof) -> int:
    """Return the instrumented operations of a run, from the table that Verrou prints at the end.

    The run itself read them in 32 bits, layer by layer: where a layer has more, its count lacks multiples of 2^32.
    """
    try:
        text = log_file(folder, run).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return proof.counted
    total = sum(int(found) for found in re.findall(r"^==\d+==  \w+ +\d+ +(\d+) +\(", text, re.M))
    return total if (total - proof.counted) % 2**32 == 0 else proof.counted


def verrou_version(folder: Path, run: str) -> str | None:
    """Return the version that Valgrind states in the log of a run, such as 3.26.0+verrou-2.7.0."""
    try:
        text = log_file(folder, run).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    match = re.search(r"Using Valgrind-(\S+)", text)
    return match[1] if match else None
