"""Does a campaign over labelled brains, as a BIDS dataset on several workers, survive a kill?"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analyses.brains import FOLDER, TEST
from analyses.labels import NUMBER, TABLE, label_rows
from mcaprobe.errors import InputError, RunFailure

SEGMENTATION = "derivatives/manual"
DONE, PIECES = "*.done.json", "*/pieces/[0-9]*"
POLL = 0.02  # seconds between two looks


@dataclass(frozen=True)
class Config:
    """What is run.

    Attributes:
        folder: For the dataset and the derivatives; must not be there yet.
        brains: Numbers of labelled brains.
        slices, voxel_size: As of `mcaprobe bids`.
        layers: Globs of what is recorded.
        compare: Whether the campaign also runs without being killed, to be compared file by file.
    """

    folder: Path
    brains: Sequence[str] = TEST
    model: str = "demo"
    slices: str = "all"
    voxel_size: float | None = None
    samples: int = 10
    workers: int = 2
    threads: int = 1
    layers: Sequence[str] = ("*pool", ":output*")
    compare: bool = False
    source: Path = FOLDER

    @property
    def dataset(self) -> Path:
        """The raw dataset."""
        return self.folder / "dataset"


def make_set(config: Config) -> Path:
    """Write a BIDS dataset of links to the brains and, as a derivative set, to their manual labels."""
    if config.folder.exists():
        raise InputError(f"{config.folder} is there already: choose another folder.")
    derived = {"DatasetType": "derivative", "GeneratedBy": [{"Name": "manual"}]}
    for folder, more in ((config.dataset, {}), (config.dataset / SEGMENTATION, derived)):
        folder.mkdir(parents=True)
        about = {"Name": "MICCAI 2012 multi-atlas challenge", "BIDSVersion": "1.10.0", "License": "CC BY-NC 3.0"}
        (folder / "dataset_description.json").write_text(json.dumps(about | more, indent=2))
    for name in config.brains:
        links = {config.dataset: ("SS", "T1w"), config.dataset / SEGMENTATION: ("glm", "dseg")}
        for folder, (kind, suffix) in links.items():
            source = config.source / f"{name}_{kind}.nii.gz"
            if not source.is_file():
                raise InputError(f"Expected the labelled brain {name} at {source}, found no file.")
            place = folder / f"sub-{name}" / "anat"
            place.mkdir(parents=True)
            (place / f"sub-{name}_{suffix}.nii.gz").symlink_to(source.resolve())
    lines = [f"{number}\t{name}\n" for number, name in label_names(config.source / TABLE).items()]
    (config.dataset / SEGMENTATION / "dseg.tsv").write_text("index\tname\n" + "".join(lines))
    return config.dataset


def label_names(path: Path) -> dict[str, str]:
    """Return the names of the labels, by number; InputError as `labels.label_rows`."""
    return {row[NUMBER]: row["Label Name"] for row in label_rows(path, "Label Name")}


def command(config: Config, out: Path, level: str) -> list[str]:
    """Return the arguments of mcaprobe for one level."""
    start = ["bids", str(config.dataset), str(out), level]
    if level == "group":
        return start
    resampled = [] if config.voxel_size is None else ["--voxel-size", str(config.voxel_size)]
    return [
        *start, "--model", config.model, "--slices", config.slices, *resampled, "--samples", str(config.samples),
        "--executor", "processes", "--workers", str(config.workers), "--threads", str(config.threads),
        "--layers", *config.layers, "--segmentation", str(config.dataset / SEGMENTATION),
    ]  # fmt: skip


def run(config: Config, say: Callable[[str], None] = lambda _: None) -> dict[str, Any]:
    """Make the set, start the campaign, kill it between two subjects and inside of one, resume it, sum it up.

    Returns:
        Seconds of each part, and what was done at the kill.
    Raises:
        RunFailure: a command failed, or an interrupted campaign has other files than an uninterrupted one.
    """
    make_set(config)
    out = config.dataset / "derivatives" / "mcaprobe"
    start = time.monotonic()
    say(f"mcaprobe {' '.join(command(config, out, 'participant'))}")
    done = start_and_kill(config, out)
    killed = time.monotonic()
    say(f"Killed after {killed - start:.0f} s with {done['images']} images and {done['pieces']} pieces of the next "
        "done; the same command again.")  # fmt: skip
    mcaprobe(command(config, out, "participant"))
    resumed = time.monotonic()
    mcaprobe(command(config, out, "group"))
    found: dict[str, Any] = {"killed_after": killed - start, "resumed_for": resumed - killed, **done}
    if config.compare:
        other = config.folder / "uninterrupted"
        say("Once more without a kill, to compare.")
        mcaprobe(command(config, other, "participant"))
        found["compared"] = expect_same(out, other)
    return found


def start_and_kill(config: Config, out: Path) -> dict[str, int]:
    """Start the participant level and kill it when the first image is complete and the next one has begun."""
    images = 1 if len(config.brains) > 1 else 0
    process = subprocess.Popen([sys.executable, "-m", "mcaprobe", *command(config, out, "participant"), "--quiet"])
    try:
        while True:
            done = {"images": len(list((out / "work").glob(DONE))), "pieces": len(list((out / "work").glob(PIECES)))}
            if process.poll() is not None:
                raise RunFailure(f"The campaign ended with exit code {process.returncode} before it could be killed.")
            if done["images"] >= images and done["pieces"]:
                return done
            time.sleep(POLL)
    finally:
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
        process.wait()


def mcaprobe(arguments: Sequence[str]) -> None:
    """Run a command of mcaprobe to its end."""
    code = subprocess.run([sys.executable, "-m", "mcaprobe", *arguments]).returncode
    if code:
        raise RunFailure(f"mcaprobe {arguments[0]} ... {arguments[3]} ended with exit code {code}.")


def expect_same(one: Path, other: Path) -> int:
    """Return how many tables and maps two derivative sets have, each with the same bytes in both."""
    files = [path.relative_to(one) for path in sorted(one.glob("sub-*/**/*")) if path.suffix in (".tsv", ".gz")]
    differ = [path for path in files if not same(one / path, other / path)]
    if differ or not files:
        raise RunFailure(f"{len(differ)} of {len(files)} files differ from the uninterrupted campaign: {differ[:1]}.")
    return len(files)


def same(one: Path, other: Path) -> bool:
    """Return whether two files have the same bytes."""
    return other.is_file() and one.read_bytes() == other.read_bytes()
