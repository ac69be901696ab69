"""What does every run of a campaign do? Survey, plan, fall back to one sample at a time, and write its manifest."""

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from torch import nn

from mcaprobe import kernels
from mcaprobe.collecting import UnitReport
from mcaprobe.errors import InputError, RunFailure
from mcaprobe.lanes import LockstepError
from mcaprobe.manifest import FORMAT, commit, machine, versions
from mcaprobe.memory import give_back, peak_memory
from mcaprobe.observer import Observer
from mcaprobe.planning import Needs, Survey, look
from mcaprobe.reference import difference_from_stock
from mcaprobe.routes import EXACT
from mcaprobe.settings import expect_matches
from mcaprobe.summary import Row

if TYPE_CHECKING:
    from mcaprobe.campaign import Campaign


class Run:
    """What runs in memory and in a directory share: the survey, the plan, the fall back to one sample at a time."""

    def __init__(self, campaign: "Campaign", observer: Observer) -> None:
        self.campaign = campaign
        self.settings = campaign.settings
        self.observer = observer
        self.report = UnitReport()
        self.notes: list[str] = list(campaign.model.notes)
        self.alone: str | None = None
        self.reference: dict[str, float] | None = None
        self.started = time.perf_counter()
        for note in self.notes:
            observer.say(note)

    def look(self) -> Survey:
        """Survey the model and check the globs; whatever the model raises is named."""
        try:
            seen = look(self.campaign.model.module, self.campaign.input.tensor, self.settings.layers)
            self.reference = difference_from_stock(
                self.settings, self.campaign.model.module, self.campaign.input.tensor
            )
        except (InputError, RunFailure):
            raise
        except Exception as error:
            first = (str(error).splitlines() or [""])[0]
            shape = tuple(self.campaign.input.tensor.shape)
            raise RunFailure(
                f"The model raised {type(error).__name__} in a plain, unperturbed forward of the input {shape}: {first}"
            ) from error
        give_back()
        expect_matches("--keep-moments", self.settings.keep_moments, seen.layers)
        expect_matches("--keep-samples", self.settings.keep_samples, seen.layers)
        return seen

    def say(self, sentence: str) -> None:
        """Tell the user once, and the manifest."""
        if sentence not in self.notes:
            self.notes.append(sentence)
            self.observer.say(sentence)

    def go_alone(self, error: LockstepError) -> None:
        self.alone = str(error)
        self.say(f"The samples run one at a time, since this model cannot run them side by side: {self.alone}")

    def absorb(self, report: UnitReport) -> None:
        """Add what a chunk tells; every chunk must have recorded the same layers."""
        if self.report.layers and self.report.layers != report.layers:
            raise RunFailure(
                "Two chunks recorded different layers: the model's code changed in between, or it is random."
            )
        self.report.layers = report.layers
        self.report.aliases.update(report.aliases)
        self.report.operators.update(report.operators)
        self.alone = self.alone or report.one_at_a_time
        for name, values in report.metrics.items():
            self.report.metrics.setdefault(name, {}).update(values)

    def say_modelled(self) -> None:
        """Name the operators that the route exact could not take."""
        modelled = sorted(name for name, kind in self.report.operators.items() if kind == "modelled")
        if self.settings.taken_route() == EXACT and modelled:
            self.say(f"Calls without a compiled kernel ran by the route model: {', '.join(modelled)}.")

    def check_perturbed(self, rows: Iterable[Row]) -> None:
        """Say so when no element of any layer differs from the unperturbed run: then nothing was perturbed."""
        self.say_modelled()
        whole = [
            row for row in rows if row.region == "all" and row.share_exact is not None and row.share_zero is not None
        ]
        if whole and all((row.share_exact or 0) + (row.share_zero or 0) == 1 for row in whole):
            self.say(
                "No sample differs from the unperturbed run in any element: the model's arithmetic is exact, "
                "or not torch's."
            )

    def manifest(self, status: str, seen: Survey, needs: Needs, chunks: list[str]) -> dict[str, Any]:
        """Return the manifest of the run as it stands."""
        campaign = self.campaign
        picture = campaign.input.picture
        return {
            "format": FORMAT,
            "status": status,
            "identity": campaign.identity(),
            "versions": versions(),
            "commit": commit(),
            "machine": machine(self.settings.device),
            "threads": self.settings.thread_count(),
            "samples": self.settings.samples,
            "mode": self.settings.mode,
            "precision": self.settings.precision,
            "seed": self.settings.seed,
            "route": self.settings.taken_route(),
            "route_asked": self.settings.route,
            "kernels": kernels.about(),
            "reference": {"kernels": "stock" if self.reference is None else "compiled, rounding to nearest",
                          "output_difference_from_stock": self.reference},
            "side_by_side": self.alone is None,
            "chunks": chunks,
            "input": {"name": campaign.input.name, "shape": list(campaign.input.tensor.shape),
                      "file_sha256": campaign.input.file_sha256,
                      "mask_rule": None if picture is None else picture.mask_rule},
            "model_note": _note(campaign.model.module),
            "layers": {name: {"operator": operator, "shape": list(seen.layers[name].shape),
                              "dtype": str(seen.layers[name].dtype).removeprefix("torch."),
                              "grid": seen.layers[name].grid, "grid_assumed": seen.layers[name].assumed,
                              "step": seen.layers[name].step}
                       for name, operator in self.report.layers.items()},
            "output": seen.output,
            "aliases": self.report.aliases,
            "operators": dict(sorted(self.report.operators.items())),
            "memory": {"predicted": needs.memory, "allowed": needs.allowed,
                       "measured": peak_memory(self.settings.device)},
            "disk": {"predicted": needs.disk},
            "notes": self.notes,
            "failures": [],
        }  # fmt: skip


def _note(module: nn.Module) -> str | None:
    """Return what the model says of itself (`model.mcaprobe_note`), which stands below every picture of its digits."""
    note = getattr(module, "mcaprobe_note", None)
    return note if isinstance(note, str) else None
