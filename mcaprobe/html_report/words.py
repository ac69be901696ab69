"""What has to be said of the numbers, and what goes into the methods section of a paper?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mcaprobe.html_report.facts import MODES
from mcaprobe.html_report.groups import Group
from mcaprobe.mask_facts import sampling_ceiling
from mcaprobe.masks import Criterion, Unstable
from mcaprobe.result import Result
from mcaprobe.routes import EXACT, VERROU


@dataclass(frozen=True, slots=True)
class Reference:
    """A publication: how it is cited, and where it is."""

    key: str
    text: str
    doi: str | None = None


PARKER = Reference(
    "Parker, 1997",
    "Parker, D. S. (1997). Monte Carlo arithmetic: exploiting randomness in floating-point arithmetic. Technical "
    "report CSD-970002, Computer Science Department, University of California, Los Angeles.",
)
VERROU_PAPER = Reference(
    "Févotte & Lathuilière, 2016",
    "Févotte, F., & Lathuilière, B. (2016). VERROU: a CESTAC evaluation without recompilation. 17th International "
    "Symposium on Scientific Computing, Computer Arithmetic and Validated Numerics (SCAN 2016), Uppsala, Sweden.",
)
CROCI = Reference(
    "Croci et al., 2022",
    "Croci, M., Fasi, M., Higham, N. J., Mary, T., & Mikaitis, M. (2022). Stochastic rounding: implementation, error "
    "analysis and applications. Royal Society Open Science, 9(3), 211631.",
    "10.1098/rsos.211631",
)
SOHIER = Reference(
    "Sohier et al., 2021",
    "Sohier, D., de Oliveira Castro, P., Févotte, F., Lathuilière, B., Petit, E., & Jamond, O. (2021). Confidence "
    "intervals for stochastic arithmetic. ACM Transactions on Mathematical Software, 47(2), 1–33.",
    "10.1145/3432184",
)
DIGITS = Reference(
    "significantdigits",
    "The Verificarlo contributors. significantdigits: significant digits of stochastic arithmetic, a Python package. "
    "github.com/verificarlo/significantdigits.",
)
_MODE_PAPERS = {"random": VERROU_PAPER, "nearness": CROCI, "rr": PARKER, "pb": PARKER, "full": PARKER}


def claims(group: Group) -> str:
    """Return what the samples of a group can and cannot claim."""
    return statement(group.first, Unstable())


def statement(result: Result, criterion: Criterion) -> str:
    """Return the sentence of `mcaprobe mask` on what n samples support."""
    return str(sampling_ceiling(criterion, result.estimator, result.samples)["Statement"])


def methods(group: Group, rules: Sequence[str], nan_notes: Sequence[str]) -> list[str]:
    """Return the paragraphs of a methods section.

    Args:
        rules: Of the masks that the report shows, such as `class noise`.
        nan_notes: What the makers of the NaN maps say of them.
    """
    more = []
    if rules:
        more.append(f"Elements were masked by the rule: {'; or by the rule: '.join(rules)}.")
    if nan_notes:
        more.append(f"NaN maps were made by another program, which describes them so: {' '.join(nan_notes)}")
    return [_experiment(group), " ".join([_estimate(group.first), *more, claims(group)])]


def _experiment(group: Group) -> str:
    result = group.first
    manifest = result.manifest
    versions, mode, n = manifest.get("versions") or {}, manifest["mode"], result.samples
    cited = f"; {_MODE_PAPERS[mode].key}" if mode in _MODE_PAPERS else ""
    precision = manifest.get("precision")
    virtual = "" if precision is None else f" of {precision} bits"
    seeds = sorted({int(run.manifest["seed"]) for run in group.runs})
    seed = f", seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"
    return (
        f"The numerical stability of the model {group.model} was assessed by Monte Carlo arithmetic ({PARKER.key}) "
        f"with mcaprobe {versions.get('mcaprobe', '(version unknown)')}. The model was run on {_inputs(group)} once in "
        f"IEEE arithmetic (round to nearest) and n = {n} times with perturbed arithmetic (mode {mode}{virtual}: "
        f"{MODES.get(mode, 'as Verrou defines it')}{cited}{seed}). {_backend(result)}"
    )


def _inputs(group: Group) -> str:
    if group.plane is None:
        return f"the input {group.image}"
    labels = [run.label for run in group.runs]
    many = len(labels) > 1
    count = f"{len(labels)} {group.plane} slices" if many else f"one {group.plane} slice"
    return f"{count} of {group.image} ({'; '.join(labels)})"


def _backend(result: Result) -> str:
    manifest = result.manifest
    versions, machine = manifest.get("versions") or {}, manifest.get("machine") or {}
    on = f"PyTorch {versions.get('torch', '(version unknown)')}"
    if machine:
        on += f", {machine.get('processor')}, instruction set {machine.get('torch_cpu_capability')}"
    if manifest["route"] == VERROU:
        version = (manifest.get("verrou") or {}).get("version")
        return (
            f"Every floating-point instruction of the forward pass was perturbed under Verrou ({version}; "
            f"{VERROU_PAPER.key}; {on}), each sample in a process of its own."
        )
    how = (
        "compiled kernels round each multiply-add and each addition in the order of the stock kernels"
        if manifest["route"] == EXACT
        else "stock kernels run, and the noise that their roundings amount to is added to their results"
    )
    return f"The arithmetic was emulated in process (route {manifest['route']}: {how}; {on})."


def _estimate(result: Result) -> str:
    e = result.estimator
    method = (
        "under the centred normality hypothesis (CNH)"
        if e.method == "cnh"
        else "without assumptions on their distribution"
    )
    reference = "the IEEE run" if e.reference == "ieee" else "the mean of the samples"
    return (
        f"The significant bits of each element of each recorded layer were estimated {method} from the {e.error} "
        f"error to {reference}, with probability {e.probability:g} and confidence {e.confidence:g} ({SOHIER.key}; as "
        f"in the package {DIGITS.key}). Elements that were zero in every run, equal to the IEEE run in every sample "
        "(exact), constant at another value (shifted), not finite in a run, or without any significant bit (noise) "
        "were kept apart as classes. A map shows the median over the channels of a layer that have bits, and the class "
        "where more than half of the channels are of one class."
    )


def references(groups: Sequence[Group]) -> list[Reference]:
    """Return what the methods cite, in the order of the alphabet."""
    cited = {PARKER, SOHIER, DIGITS}
    for manifest in (group.first.manifest for group in groups):
        cited |= {_MODE_PAPERS[manifest["mode"]]} if manifest["mode"] in _MODE_PAPERS else set()
        cited |= {VERROU_PAPER} if manifest["route"] == VERROU else set()
    return sorted(cited, key=lambda reference: reference.text.removeprefix("The ").casefold())
