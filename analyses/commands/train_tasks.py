"""What can be trained: for each task its options, its settings, and where its checkpoint goes."""

import argparse
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from analyses import trained
from analyses.brains import LEARNT
from analyses.models.checkpoint import Hyperparameters, save_network, write_tensors
from analyses.models.demo import WEIGHTS
from analyses.preprocessing.planes import AXES
from analyses.structures import CLASSES
from analyses.training.denoiser import FILTERS, Denoise, DenoiserSettings
from analyses.training.digits import NETWORKS, ClassifyDigits, DigitsSettings
from analyses.training.loop import Settings, Task
from analyses.training.structures import Structures, StructuresSettings
from analyses.training.template import SOURCE, load_template
from analyses.training.tissue import Tissue, TissueSettings
from mcaprobe.errors import InputError


@dataclass(frozen=True)
class Job:
    """One training.

    Attributes:
        own_options: Of the command, those that only this task has.
        data: What is learnt from, in words.
        out: Where the checkpoint goes by default.
        save: Writes weights and a record to a path.
    """

    settings: Settings
    task: Task
    own_options: str
    data: str
    out: Path
    save: Callable[[Path, Mapping[str, Tensor], Mapping[str, object]], None]


@dataclass(frozen=True)
class Kind:
    """A task as the command knows it: what it says of itself, its defaults and options, and how a job is made."""

    about: str
    defaults: Settings
    add_options: Callable[[argparse.ArgumentParser], None]
    job: Callable[[argparse.Namespace, dict[str, Any]], Job]


TISSUE = """\
the demo's network: tissues of any T1 image
FastSurferVINN (reduced width) learns to segment background, CSF, grey and white matter. The only training image is
the MNI152 template that nilearn ships; shapes and contrasts are randomised."""

STRUCTURES = """\
a FastSurferVINN for the structures of real brains, one plane
FastSurferVINN (reduced width) learns 15 structures from nine manually labelled brains (MICCAI 2012 multi-atlas
challenge, CC BY-NC 3.0, not part of this repository). The network stays on this machine."""

DENOISER = """\
a FONDUE of reduced width that removes noise from real brains
FONDUE learns to remove Rician noise from slices of the same nine brains, in all three planes. The network stays on
this machine."""

DIGITS = {
    "mnist": """\
the paper's digit classifier
Four convolutions learn the MNIST digits; the last 5,000 training images are held out to choose the best step.""",
    "mnist_nan": """\
the paper's digit classifier, trained through aggressive NaNs
The network of the task mnist goes on learning; each forward pools with aggressive NaNs (threshold 1, approach A), and
the gradients go through them. (From random weights, or with approach B, it did not learn.)""",
    "separable": """\
a small network of Xception's structure, for digits
Xception at a quarter of its width, with two blocks in its middle flow, learns the MNIST digits, enlarged to 71 x 71;
the last 5,000 training images are held out to choose the best step.""",
}


def _sizes(p: argparse.ArgumentParser, filters: int, interpolation: int) -> None:
    p.add_argument("--filters", type=int, default=filters, help="width (%(default)s)")
    p.add_argument(
        "--interpolation-filters", type=int, default=interpolation, help="width of the input block (%(default)s)"
    )


def _sizes_of(args: argparse.Namespace, classes: int) -> Hyperparameters:
    for name in ("filters", "interpolation_filters"):
        if getattr(args, name) < 1:
            raise InputError(f"Expected --{name.replace('_', '-')} of at least 1, got {getattr(args, name)}.")
    return Hyperparameters(7, args.filters, args.interpolation_filters, classes)


def _widths(sizes: Hyperparameters) -> str:
    return f"--filters {sizes.filters} --interpolation-filters {sizes.interpolation_filters}"


def _tissue(args: argparse.Namespace, common: dict[str, Any]) -> Job:
    settings = TissueSettings(**common, sizes=_sizes_of(args, 4))
    return Job(
        settings,
        Tissue(settings, load_template()),
        _widths(settings.sizes),
        SOURCE.format("t1") + " with its gm and wm maps, the only image",
        WEIGHTS,
        lambda path, weights, record: save_network(path, weights, settings.sizes, record),
    )


def _structures(args: argparse.Namespace, common: dict[str, Any]) -> Job:
    settings = StructuresSettings(**common, plane=args.plane, sizes=_sizes_of(args, len(CLASSES)))
    return Job(
        settings,
        Structures(settings),
        f"--plane {args.plane} {_widths(settings.sizes)}",
        LEARNT,
        trained.structures_path(args.plane),
        lambda path, weights, record: save_network(path, weights, settings.sizes, record),
    )


def _structures_options(p: argparse.ArgumentParser) -> None:
    p.add_argument("--plane", choices=list(AXES), default="axial", help="of the slices (%(default)s)")
    _sizes(p, 32, 14)


def _write(path: Path, weights: Mapping[str, Tensor], record: Mapping[str, object]) -> None:
    write_tensors(path, weights, {"training": json.dumps(dict(record))})


def _denoiser(args: argparse.Namespace, common: dict[str, Any]) -> Job:
    if args.filters < 1:
        raise InputError(f"Expected --filters of at least 1, got {args.filters}.")
    settings = DenoiserSettings(**common, filters=args.filters)
    return Job(settings, Denoise(settings), f"--filters {args.filters}", LEARNT, trained.DENOISER, _write)


def _denoiser_options(p: argparse.ArgumentParser) -> None:
    p.add_argument("--filters", type=int, default=FILTERS, help="width (%(default)s)")


def _digits(network: str) -> Kind:
    def job(args: argparse.Namespace, common: dict[str, Any]) -> Job:
        settings = DigitsSettings(**common, network=network)
        data = "MNIST, the first 55,000 training images; validation the last 5,000"
        start = None
        if network == "mnist_nan":
            data += "; started from the network of the task mnist"
            start = trained.load_digits_network("mnist")[0].state_dict
        return Job(settings, ClassifyDigits(settings, start=start), "", data, trained.digits_path(network), _write)

    steps, batch, rate = {
        "mnist": (2000, 128, 3e-3), "mnist_nan": (400, 64, 1e-3), "separable": (1000, 128, 3e-3),
    }[network]  # fmt: skip
    defaults = DigitsSettings(
        steps=steps, batch=batch, learning_rate=rate, check_every=100, patience=0, threads=2, network=network
    )
    return Kind(DIGITS[network], defaults, lambda p: None, job)


TASKS = {
    "tissue": Kind(TISSUE, TissueSettings(), lambda p: _sizes(p, 24, 12), _tissue),
    "structures": Kind(
        STRUCTURES,
        StructuresSettings(steps=2500, batch=4, check_every=250, patience=8),
        _structures_options,
        _structures,
    ),
    "denoiser": Kind(
        DENOISER,
        DenoiserSettings(steps=1000, batch=6, learning_rate=1e-3, check_every=125, patience=4),
        _denoiser_options,
        _denoiser,
    ),
    **{network: _digits(network) for network in NETWORKS},
}
