"""Which command runs one sample under Verrou, with which variables? Nothing here runs anything."""

import difflib
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mcaprobe.errors import InputError

NATIVE, DOCKER, PODMAN, APPTAINER, AUTO = "native", "docker", "podman", "apptainer", "auto"
LAUNCHERS = (NATIVE, DOCKER, PODMAN, APPTAINER)

NEAREST = "nearest"  # the IEEE baseline: the same instrumented kernels, no random rounding
DETERMINISTIC = ("upward", "downward", "toward_zero", "away_zero", "farthest", "float")
RANDOM = (
    *("random", "random_det", "random_comdet", "random_scomdet"),
    *("nearness", "nearness_det", "nearness_comdet", "nearness_scomdet", "average", "average_det", "average_comdet"),
    *("prandom", "prandom_det", "prandom_comdet", "sr_monotonic", "sr_smonotonic"),
)
MODES = (*RANDOM, *DETERMINISTIC)

REFERENCE, AGAIN = "reference", "again"  # the IEEE baseline, and the same once more
WORKER = "mcaprobe.verrou_worker"
BUILT_IN_LIST, MATH_LIST = "exclude-timers.txt", "exclude-math.txt"

# oneDNN measures the time of its own calls; these sums are of the clock, not of the model, and draw random bits.
TIMERS = (
    "_ZN4dnnl4impl17primitive_executeEPK14dnnl_primitiveRNS0_10exec_ctx_tE",
    "_ZN4dnnl4impl16primitive_createEPP14dnnl_primitivePK19dnnl_primitive_descRKNS0_12cache_blob_tE",
)
_MKL = "Acos Acosh Asin Asinh Atan Atan2 Atanh Cos Cosh Erf ErfInv Erfc Exp Expm1 Ln Log10 Log1p Pow Sin Sinh Tan Tanh"
_SLEEF = (
    "acos acosh asin asinh atan atan2 atanh cos cosh erf erfc exp exp2 expm1 fmod hypot lgamma log log10 log1p log2 "
    "pow sin sinh sqrt tan tanh tgamma"
)


def vector_math() -> list[str]:
    """Return the names of torch's vector math on AVX2: MKL's VML and Sleef, in float and double."""
    mkl = [f"mkl_vml_kernel_{kind}{name}_L9HAynn" for name in _MKL.split() for kind in "sd"]
    errors = ("u05", "u10", "u15", "u35", "")
    return mkl + [
        f"Sleef_{name}{width}_{error}avx2" for name in _SLEEF.split() for width in ("f8", "d4") for error in errors
    ]


@dataclass(frozen=True, slots=True)
class Verrou:
    """How a campaign runs under Verrou, beside what every campaign has.

    Args:
        launcher: native, docker, podman or apptainer; auto: the first of them that is there.
        engine: Command of the container engine with its global options, such as `podman --runtime runc`; None: the
            launcher's name.
        image: Image with torch, mcaprobe and Verrou; None: the engine's default (container.IMAGES).
        engine_options: Further options of the engine's `run` or `exec`.
        jobs: Samples at once; None: as many as the processors and the memory allow.
        exclude: Verrou's exclusion lists: functions that are not perturbed.
        source: Verrou's source lists: only these lines of source are perturbed.
        exclude_math: Leave torch's vector math (exp, tanh, ...) unperturbed.
    """

    launcher: str = AUTO
    engine: str | None = None
    image: str | None = None
    engine_options: tuple[str, ...] = ()
    jobs: int | None = None
    exclude: tuple[Path, ...] = ()
    source: tuple[Path, ...] = ()
    exclude_math: bool = False

    def __post_init__(self) -> None:
        if self.launcher not in (*LAUNCHERS, AUTO):
            raise InputError(f"Expected a launcher among {', '.join((*LAUNCHERS, AUTO))}, got {self.launcher!r}.")
        if self.jobs is not None and self.jobs < 1:
            raise InputError(f"Expected at least 1 job, got {self.jobs}.")
        for path in (*self.exclude, *self.source):
            if not path.is_file():
                raise InputError(f"There is no list {path} for Verrou.")
        if self.launcher == NATIVE and (self.image or self.engine or self.engine_options):
            raise InputError("The launcher native has no image and no engine: leave their options out.")

    def identity(self) -> dict[str, Any]:
        """Return what the bits of a sample depend on, beside the mode and the seed."""
        return {
            "exclude": [_sha256(path) for path in self.exclude],
            "source": [_sha256(path) for path in self.source],
            "exclude_math": self.exclude_math,
        }

    def lists(self) -> dict[str, str]:
        """Return the option of Verrou for each list file of a campaign, by the name of its copy."""
        names = {BUILT_IN_LIST: "exclude", **({MATH_LIST: "exclude"} if self.exclude_math else {})}
        names |= {f"exclude-{i}.txt": "exclude" for i in range(len(self.exclude))}
        return names | {f"source-{i}.txt": "source" for i in range(len(self.source))}

    def write_lists(self, folder: Path) -> None:
        """Write the copies of all lists, which are what the samples see."""
        (folder / BUILT_IN_LIST).write_text("".join(f"{name}\t*\n" for name in TIMERS))
        if self.exclude_math:
            (folder / MATH_LIST).write_text("".join(f"{name}\t*\n" for name in vector_math()))
        for kind, paths in (("exclude", self.exclude), ("source", self.source)):
            for i, path in enumerate(paths):
                (folder / f"{kind}-{i}.txt").write_bytes(path.read_bytes())


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def check_mode(mode: str) -> None:
    """Raise InputError where a campaign cannot have this rounding mode of Verrou."""
    if mode == NEAREST:
        raise InputError("The rounding mode nearest is the IEEE baseline, which every campaign runs: choose another.")
    if mode not in MODES:
        near = difflib.get_close_matches(mode, MODES, n=1)
        hint = f"; the nearest is {near[0]}" if near else ""
        raise InputError(f"Expected a rounding mode of Verrou among {', '.join(MODES)}, got {mode!r}{hint}.")


def sample_seed(seed: int, run: str) -> int:
    """Return Verrou's seed of a run: of a sample a 32-bit hash of (seed, sample), of the baselines 0."""
    if run in (REFERENCE, AGAIN):
        return 0
    sequence = np.random.SeedSequence(entropy=seed, spawn_key=(int(run),))
    return int(sequence.generate_state(1, np.uint32)[0])


def runs_of(samples: int) -> list[str]:
    """Return the names of the runs of a campaign in the order in which they start."""
    return [REFERENCE, AGAIN, *map(str, range(samples))]


# One thread, since Valgrind runs one at a time and a sum depends on their number; malloc, since Valgrind replaces it.
VARIABLES = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "PYTHONMALLOC": "malloc",
    "PYTHONHASHSEED": "0",
}
# Options of Verrou and torch may come from variables as well: a run has those of its command line alone.
_FOREIGN = ("VERROU_", "VALGRIND_OPTS", "ATEN_CPU_CAPABILITY", "MKL_ENABLE_INSTRUCTIONS", "ONEDNN_MAX_CPU_ISA")


def native_variables(of_this_process: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a native run: this process's, less what would change the arithmetic."""
    kept = {name: value for name, value in of_this_process.items() if not name.startswith(_FOREIGN)}
    return kept | VARIABLES


def valgrind(options: Verrou, mode: str, seed: int, run: str, folder: Path | str) -> list[str]:
    """Return the command of Valgrind for one run, up to the program that it runs.

    Args:
        seed: The campaign's.
        folder: Where the program finds the lists.
    """
    rounding = NEAREST if run in (REFERENCE, AGAIN) else mode
    return [
        "valgrind",
        "--command-line-only=yes",  # no ~/.valgrindrc
        "--tool=verrou",
        "--vgdb=no",
        "--check-nan=no",  # the recorder counts them; Verrou would print the stack of each
        "--check-inf=no",
        "--instr-atstart-soft=no",
        f"--rounding-mode={rounding}",
        f"--vr-seed={sample_seed(seed, run)}",
        *(f"--{option}={folder}/{name}" for name, option in options.lists().items()),
    ]


def worker(python: str, folder: Path | str, run: str) -> list[str]:
    """Return the command of the program that is one run."""
    return [python, "-m", WORKER, str(folder), run]
