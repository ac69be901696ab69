"""Where do the digits go on inputs that the demo's network never saw? One campaign for each, the same settings.

The network's only training image is the template, already masked. Beside it: a labelled brain, the paper's own subject,
and a full head with skull and air.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mcaprobe

Row = dict[str, Any]
COLUMNS = (
    "input", "order", "layer", "operator", "region", "elements", "bits_mean", "bits_p05", "share_number", "share_noise",
    "share_zero", "share_exact", "share_shifted", "share_nan", "share_inf", "share_undefined", "share_snr_below_1",
    "index_change_rate", "samples", "estimator",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Input:
    """An image and what may be shown of it."""

    name: str
    path: str
    licence: str


@dataclass(frozen=True, slots=True)
class Config:
    """The images (absent ones are left out by the command), and the campaign."""

    inputs: Sequence[Input]
    runs: Path
    samples: int = 10
    seed: int = 0
    mode: str = "random"
    route: str = "exact"


def inputs_in(data: Path) -> list[Input]:
    """Return the template and those of the other images that are present below `data`."""
    others = [
        Input("labelled brain (MICCAI 2012, subject 1000)", str(data / "malc" / "1000_SS.nii.gz"), "CC BY-NC 3.0"),
        Input("CoRR sub-0025531", str(data / "t1" / "corr_0025531_orig.mgz"), "research"),
        Input("full head (chris_t1)", str(data / "t1" / "chris_t1.nii.gz"), "BSD"),
    ]
    template = Input("MNI152 template (the training image)", "mni152", "MNI")
    return [template, *(i for i in others if Path(i.path).is_file())]


def run(config: Config, progress: Callable[[str], None] = lambda _: None) -> list[Row]:
    """Run (or resume) the campaign on each input; return the rows of its table with the input's name and the order."""
    rows: list[Row] = []
    for item in config.inputs:
        progress(item.name)
        result = mcaprobe.run(
            "demo",
            item.path,
            samples=config.samples,
            mode=config.mode,
            route=config.route,
            seed=config.seed,
            out=config.runs / folder(item),
        )
        order = {layer: i for i, layer in enumerate(result.layers)}
        for row in result.table():
            values = row.as_dict() | {"input": item.name, "order": order[row.layer]}
            rows.append({column: values[column] for column in COLUMNS})
    return rows


def folder(item: Input) -> str:
    """Return the name of the run directory of an input."""
    return Path(item.path).name.split(".")[0]
