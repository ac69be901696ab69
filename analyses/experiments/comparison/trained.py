"""Where do the networks of a comparison come from? Each is trained when it is first asked for, and kept in a file."""

import json
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from analyses import provenance
from analyses.compress.saved import load_pruned, save_pruned
from analyses.experiments.comparison.networks import FAMILIES, Entry, Learning
from analyses.kept import key_of
from analyses.paths import CACHE
from analyses.results_files import write_json
from analyses.training.budget import built, train

CALIBRATED = 8  # batches that int8 sees


class Trained:
    """The networks of one `Learning`; the same seed, the same network.

    Args:
        folder: Where they are kept, each beside a JSON file that says how it came about.
        say: Told what is being trained.

    Attributes:
        scored: Scores of the rows' networks and what these made, by name, which rows fill and share.
    """

    def __init__(
        self, learning: Learning, folder: Path = CACHE / "compare", say: Callable[[str], None] = lambda words: None
    ) -> None:
        self.learning, self.folder, self.say = learning, folder, say
        self._networks: dict[str, nn.Module] = {}
        self.scored: dict[str, tuple[list[list[float]], dict[str, Any]]] = {}

    def network(self, family: str) -> nn.Module:
        """Return the trained network of a family, in eval mode."""
        if family not in self._networks:
            made = FAMILIES[family]
            network = built(lambda: made.build(self.learning), self.learning.budget)
            path = self.path(family)
            if path.is_file():
                load_pruned(path, network)
            else:
                self._train(family, network, path)
            self._networks[family] = network.eval()
        return self._networks[family]

    def path(self, family: str) -> Path:
        """Return the file of a family's network."""
        return self.folder / f"{family}-{key_of(asdict(self.learning) | {'family': family})}.safetensors"

    def record(self, family: str) -> dict[str, Any]:
        """Return how the network of a family came about."""
        found: dict[str, Any] = json.loads(self.path(family).with_suffix(".json").read_text())
        return found

    def _train(self, family: str, network: nn.Module, path: Path) -> None:
        self.say(f"training {family}")
        task, budget, start = self.learning.task, self.learning.budget, time.monotonic()
        attach = FAMILIES[family].attach(self.learning)
        losses = train(network, lambda step: task.batch(budget.seed, step), task.loss, budget, attach)
        few = max(1, len(losses) // 20)
        about = provenance.stamp() | {
            "family": family, "learning": asdict(self.learning), "threads": torch.get_num_threads(),
            "seconds": round(time.monotonic() - start, 1), "last_loss": sum(losses[-few:]) / few,
        }  # fmt: skip
        write_json(path.with_suffix(".json"), about)
        save_pruned(path, network)

    def shaped(self, entry: Entry) -> nn.Module:
        """Return the float network of an entry, on which it is counted."""
        return entry.shape(self.network(entry.family), self.learning)

    def computing(
        self, entry: Entry, formatted: Callable[[nn.Module], nn.Module] = lambda network: network
    ) -> nn.Module:
        """Return the network of an entry that runs, in eval mode.

        Args:
            formatted: Makes of the float network one in another memory format.
        """
        return entry.compute(formatted(self.shaped(entry)), self._calibration()).eval()

    def _calibration(self) -> list[Tensor]:
        task, budget = self.learning.task, self.learning.budget
        return [task.batch(budget.seed, step)[0] for step in range(CALIBRATED)]
