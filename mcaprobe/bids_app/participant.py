"""How does each image of a dataset get its digits? One after the other; what fails does not stop the rest."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path

from mcaprobe.api import run
from mcaprobe.bids_app.dataset import Image
from mcaprobe.bids_app.derivatives import prefix_of, write_derivatives
from mcaprobe.bids_app.folder import SEGMENTATION_LINK, Folder
from mcaprobe.bids_app.segmentations import segmentation_of
from mcaprobe.bids_app.settings import Machine, Questions
from mcaprobe.errors import InputError, RunFailure
from mcaprobe.failures import UnitsFailed
from mcaprobe.folders import remove
from mcaprobe.html_report.report import report
from mcaprobe.observer import Observer
from mcaprobe.result import Result

Observers = Callable[[], Observer]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of the images.

    Attributes:
        finished, skipped: Names of images that were computed now, and of those that were complete before.
        failed: Images that are not complete, and why.
        reports: Files, of the subjects whose images changed.
        report_failures: Subjects without a report, and why.
    """

    finished: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    failed: list[tuple[Image, str]] = field(default_factory=list)
    reports: list[Path] = field(default_factory=list)
    report_failures: list[tuple[str, str]] = field(default_factory=list)


def run_participants(
    folder: Folder, images: Sequence[Image], questions: Questions, machine: Machine, observers: Observers,
    overwrite: bool = False,
) -> Outcome:  # fmt: skip
    """Compute what is not complete yet; images by subject, and a report behind the last image of each.

    The work of one image at a time is spread over the workers, which stay for all images.

    Raises:
        InputError: the folder cannot be used, or holds derivatives of other settings; nothing was started.
    """
    questions.check()
    folder.prepare(questions)
    folder.agree(questions, images, overwrite)
    outcome = Outcome()
    with machine.engine.kept(folder.executor) as engine:
        machine = replace(machine, engine=engine)
        for subject, own in groupby(images, key=lambda image: image.subject):
            changed = [_one(folder, image, questions, machine, observers(), overwrite, outcome) for image in own]
            if any(changed) or not report_path(folder.out, subject).is_file():
                _report(folder, subject, outcome)
    if not outcome.failed and folder.executor.is_dir():
        remove(folder.executor)  # the logs of workers, which only tell why something failed
    return outcome


def start(
    image: Image, index: int | None, questions: Questions, machine: Machine, segmentation: Path | None, out: Path,
    observer: Observer,
) -> Result:  # fmt: skip
    """Run or resume the campaign of an image or of a slice of it: the only place where a subject's run is started."""
    options = dict(questions.input_options) | ({} if index is None else {"index": index})
    return run(
        questions.model, image.path, samples=questions.samples, mode=questions.mode, seed=questions.seed,
        precision=questions.precision, route=questions.route, out=out, layers=questions.layers,
        keep_moments=questions.keep_moments, estimator=questions.estimator, input_options=options,
        segmentation=segmentation, regions=questions.regions, slices=questions.slices, patches=questions.patches,
        memory=machine.memory, threads=machine.threads, block=questions.block, chunk=machine.chunk,
        device=questions.device, executor=machine.engine, observer=observer,
    )  # fmt: skip


def _one(
    folder: Folder, image: Image, questions: Questions, machine: Machine, observer: Observer, overwrite: bool,
    outcome: Outcome,
) -> bool:  # fmt: skip
    """Complete one image and return whether anything changed."""
    if not overwrite and folder.is_complete(image):
        outcome.skipped.append(image.name)
        return False
    observer.say(f"{image.name}:")
    folder.forget(image)
    try:
        _complete(folder, image, questions, machine, observer, overwrite)
    except UnitsFailed as error:
        _fail(folder, image, error.summary, None, observer, outcome)
    except (InputError, RunFailure) as error:
        _fail(folder, image, str(error), None, observer, outcome)
    except Exception as error:  # whatever one subject's file or the model raises, the others are computed
        _fail(folder, image, f"{type(error).__name__}: {error}", traceback.format_exc(), observer, outcome)
    else:
        outcome.finished.append(image.name)
    return True


def _fail(folder: Folder, image: Image, why: str, trace: str | None, observer: Observer, outcome: Outcome) -> None:
    observer.stop()
    observer.say(f"{image.name} failed: {why}")
    folder.remember_failure(image, why, trace)
    outcome.failed.append((image, why))


def _complete(
    folder: Folder, image: Image, questions: Questions, machine: Machine, observer: Observer, overwrite: bool
) -> None:
    outs = {index: folder.work / f"{prefix_of(image, index)}_{image.name.rsplit('_', 1)[1]}"
            for index in questions.numbers or (None,)}  # fmt: skip
    for out in outs.values():
        if overwrite and out.exists():
            remove(out)
    segmentation, sources = None, [image.uri]
    if questions.segmentation is not None:
        segmentation = segmentation_of(image, questions.segmentation, questions.segmentation_desc)
        sources.append(f"bids:{SEGMENTATION_LINK}:{segmentation.relative_to(questions.segmentation).as_posix()}")
    results = {index: start(image, index, questions, machine, segmentation, out, observer)
               for index, out in outs.items()}  # fmt: skip
    files = write_derivatives(folder.out, image, results, questions, sources)
    folder.remember(image, [result.path for result in results.values() if result.path is not None], files)


def report_path(out: Path, subject: str) -> Path:
    """Return where the report of a subject is."""
    return out / f"sub-{subject}.html"


def _report(folder: Folder, subject: str, outcome: Outcome) -> None:
    """Write the report of all complete images of a subject; without any there is none."""
    records = [about for about in folder.done().values() if about["subject"] == subject]
    runs = [folder.out / name for about in records for name in about["runs"]]
    path = report_path(folder.out, subject)
    if not runs:
        path.unlink(missing_ok=True)
        return
    masks = [run / "masks" for run in runs if (run / "masks").is_dir()]
    try:
        outcome.reports.append(report(runs, path, masks=masks).path)
    except (InputError, RunFailure) as error:
        outcome.report_failures.append((subject, str(error)))
