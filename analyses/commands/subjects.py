"""How does a command look at subjects one after the other, keep what is finished, and write what it found?"""

from __future__ import annotations

import argparse
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import nn

from analyses import provenance
from analyses.commands.draw import write
from analyses.commands.printing import print_lines
from analyses.commands.validation_drawings import PREFIXES, drawn
from analyses.experiments.counting import Row, Tables, merge
from analyses.kept import Kept
from analyses.models.demo import WEIGHTS
from analyses.paths import RESULTS
from analyses.preprocessing.planes import AXES
from analyses.results_files import texts, write_json, write_table
from analyses.trained import load_structures
from analyses.validation.instability import Sampling
from analyses.validation.study import Say
from analyses.validation.views import file_of, name_of
from mcaprobe.errors import InputError
from mcaprobe.folders import file_hash
from mcaprobe.models import load_model
from mcaprobe.volumes import existing

STRUCTURES = "structures"
LEAST = {"slices": 1, "samples": 2, "threads": 1, "seed": 0}


def add_options(p: argparse.ArgumentParser, command: str, campaign: str = "of the campaign") -> None:
    """Add the options that every such command has.

    Args:
        campaign: Whose the samples are, where there are others.
    """
    p.add_argument("model", help=f"demo, {STRUCTURES} (trained by `train {STRUCTURES}`), or package.module:build_model")
    p.add_argument("inputs", nargs="+", metavar="INPUT", help="an image, mni152, or malc:NUMBER, a labelled brain")
    p.add_argument("--slices", type=int, default=1, help="of each subject, evenly spaced (%(default)s)")
    p.add_argument("--plane", choices=list(AXES), default="axial", help=f"of {STRUCTURES} (%(default)s)")
    p.add_argument("--samples", type=int, default=30, help=f"{campaign} (%(default)s)")
    p.add_argument("--threads", type=int, default=1, help="of torch, and samples side by side (%(default)s)")
    p.add_argument("--seed", type=int, default=0, help="of the campaign (%(default)s)")
    p.add_argument("--name", help=f"of the results: {PREFIXES[command]}_NAME_*.csv (default: the model's)")
    p.add_argument("--out", type=Path, default=RESULTS, help="folder of the results (%(default)s)")


def expect_at_least(args: argparse.Namespace, least: Mapping[str, int]) -> None:
    """Raise InputError where an option, by name, is a smaller number."""
    for option, smallest in least.items():
        if getattr(args, option) < smallest:
            raise InputError(f"Expected --{option} of at least {smallest}, got {getattr(args, option)}.")


def sampling_of(args: argparse.Namespace) -> Sampling:
    """Return the campaign that was asked for; InputError where a number makes no sense, or an input stands twice."""
    expect_at_least(args, LEAST)
    repeated = sorted({source for source in args.inputs if args.inputs.count(source) > 1})
    if repeated:
        raise InputError(f"Expected each input once, got {repeated[0]} twice.")
    return Sampling(args.samples, seed=args.seed, threads=args.threads)


@dataclass(frozen=True)
class Study:
    """What a command finds in its subjects, and where that is kept and written.

    Attributes:
        command: Its name.
        args: Its options, those of `add_options` among them.
        name: Of the results.
        asked: The options that rows depend on, as JSON has them.
        network, identity: In eval mode, and what it is.
        kept: The subjects that are finished.
        start: When the looking began, seconds of the monotonic clock.
    """

    command: str
    args: argparse.Namespace
    name: str
    asked: Mapping[str, Any]
    network: nn.Module
    identity: Mapping[str, Any]
    kept: Kept
    console: Console = field(default_factory=Console)
    start: float = field(default_factory=time.monotonic)

    @classmethod
    def of(cls, command: str, args: argparse.Namespace, **settings: Any) -> Study:
        """Load the network and set torch's threads.

        Args:
            settings: Dataclasses that say what is looked for.
        """
        name = name_for(args)
        asked = {key: asdict(value) for key, value in settings.items()} | {"slices": args.slices, "plane": args.plane}
        torch.set_num_threads(args.threads)
        network, identity = network_of(args.model, args.plane)
        kept = Kept(command, {"network": identity, "commit": provenance.commit(), **asked})
        return cls(command, args, name, asked, network, identity, kept)

    @property
    def stem(self) -> Path:
        """What the paths of the results begin with."""
        return self.args.out / f"{PREFIXES[self.command]}_{self.name}"

    def tables(self, compute: Callable[[str, Say], Tables], others: Mapping[str, str] | None = None) -> Tables:
        """Return the tables of all subjects, each kept or new, and print which are there.

        Args:
            compute: What makes the tables of a source, and says where it is.
            others: Ends of the keys of sources whose parts hold more than those of the rest.
        """
        tables: Tables = {}
        with self.console.status("") as status:
            for source in self.args.inputs:
                key = f"{self.key_of(source)}{(others or {}).get(source, '')}"
                found = self.kept.part(key, partial(compute, source, status.update))
                merge(tables, found)
                self.console.print(f"{provenance.now()} {name_of(source)}: {sum(map(len, found.values()))} rows")
        return tables

    def key_of(self, source: str) -> str:
        """Return the name of a subject's kept part: of the network's, the subject's and the content of its file."""
        content = file_hash(existing(file_of(source)))[:8]
        return f"{self.name}-{re.sub('[^A-Za-z0-9]+', '-', name_of(source))}-{content}"

    def manifest(self, about: str) -> Row:
        """Return what, when, where and how; `about` says what the columns are."""
        return provenance.stamp() | {
            "experiment": self.command, "network": self.identity, **self.asked,
            "subjects": [name_of(source) for source in self.args.inputs], "threads": self.args.threads,
            "mode": "random, emulated", "about": about, "seconds": round(time.monotonic() - self.start, 1),
        }  # fmt: skip

    def write(self, tables: Tables, manifest: Row) -> None:
        """Write the rows and the manifest."""
        for table, rows in tables.items():
            write_table(self.stem.with_name(f"{self.stem.name}_{table}.csv"), texts(rows))
        write_json(self.stem.with_suffix(".json"), manifest)

    def draw(self) -> None:
        """Write what is made of the rows that are written, and print the pages."""
        for path, made in drawn(self.args.out, self.command, self.name):
            write(path, made)
            if isinstance(made, str):
                print_lines(self.console, made.splitlines()[4:])


def name_for(args: argparse.Namespace) -> str:
    """Return the name of the results: letters, digits, - and _."""
    name: str = args.name or re.sub(r"[^A-Za-z0-9]+", "_", args.model).strip("_")
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        raise InputError(f"Expected a --name of letters, digits, - and _, got {name!r}.")
    return name


def network_of(model: str, plane: str) -> tuple[nn.Module, dict[str, Any]]:
    """Return a network in eval mode, and what it is."""
    if model == STRUCTURES:
        network, path = load_structures(plane)
        return network, {"name": model, "file": path.name, "sha256": provenance.sha256(path)}
    loaded = load_model(model)
    about = {"name": model, "sha256": loaded.sha256}
    return loaded.module, about | ({"file": WEIGHTS.name} if model == "demo" else {})
