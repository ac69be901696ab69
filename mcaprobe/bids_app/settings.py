"""What is asked of every image of a dataset?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mcaprobe.errors import InputError
from mcaprobe.executors import Engine
from mcaprobe.models import load_model
from mcaprobe.routes import AUTO
from mcaprobe.settings import BLOCK, Settings
from mcaprobe.statistics import Estimator
from mcaprobe.whole import check_pieces


@dataclass(frozen=True, slots=True)
class Questions:
    """What the results depend on: the same for all images of one derivative dataset.

    Attributes:
        model: `package.module:build_model`, or `demo`.
        samples, mode, precision, seed, route, block, layers, estimator, device: As of `mcaprobe.run`.
        keep_moments: Globs of the layers that keep the moments of their elements; masks need them.
        input_options: Fields of SliceOptions, apart from the index.
        numbers: Single slices of each image, each a run of its own; empty: the one with the most non-zero voxels.
        slices, patches: The whole volume of each image instead, as of `mcaprobe.run`.
        maps: Globs of the layers whose maps become derivatives; None: the main layers.
        mask_below: Significant bits below which an element is marked in a mask; None: no masks.
        segmentation: Folder of a BIDS dataset whose `*_dseg` images name regions; None: no regions.
        segmentation_desc: The `desc` of these images; None: there is one image only.
        regions: Globs of the names of their labels.
    """

    model: str
    samples: int = 10
    mode: str = "random"
    precision: int | None = None
    seed: int = 0
    route: str = AUTO
    block: int = BLOCK
    layers: tuple[str, ...] = ("*",)
    keep_moments: tuple[str, ...] = ()
    estimator: Estimator = field(default_factory=Estimator)
    device: str = "cpu"
    input_options: Mapping[str, Any] = field(default_factory=dict)
    numbers: tuple[int, ...] = ()
    slices: str | None = None
    patches: str | None = None
    maps: tuple[str, ...] | None = None
    mask_below: float | None = None
    segmentation: Path | None = None
    segmentation_desc: str | None = None
    regions: tuple[str, ...] = ("*",)

    def __post_init__(self) -> None:
        if len(set(self.numbers)) != len(self.numbers) or any(index < 0 for index in self.numbers):
            raise InputError(f"Expected different slices of 0 or more, got {' '.join(map(str, self.numbers))}.")
        check_pieces(self.slices, self.patches)
        if self.numbers and self.whole:
            raise InputError("Expected single slices (--slice) or the whole volume (--slices, --patches), not both.")
        if self.mask_below is not None and not self.keep_moments:
            raise InputError("Masks are made from the moments of the elements: --mask-below needs --keep-moments.")
        if self.segmentation_desc is not None and self.segmentation is None:
            raise InputError("--segmentation-desc chooses among the images of --segmentation: give that, too.")

    @property
    def whole(self) -> bool:
        """Whether the whole volume of each image is asked for."""
        return self.slices is not None or self.patches is not None

    def check(self) -> None:
        """Raise InputError for what no image can change: the model, the arithmetic, the folder of segmentations."""
        load_model(self.model, self.device)
        Settings(
            samples=self.samples, mode=self.mode, precision=self.precision, seed=self.seed, route=self.route,
            block=self.block, estimator=self.estimator, device=self.device,
        )  # fmt: skip
        if self.segmentation is not None and not self.segmentation.is_dir():
            raise InputError(f"There is no folder {self.segmentation} with segmentations.")

    def record(self) -> dict[str, Any]:
        """Return them as JSON, to be compared with those of an earlier call."""
        plain = asdict(self) | {"segmentation": None if self.segmentation is None else str(self.segmentation.resolve())}
        plain["slice"] = plain.pop("numbers")  # as the option is called
        return {key: list(value) if isinstance(value, tuple) else value for key, value in plain.items()}


@dataclass(frozen=True, slots=True)
class Machine:
    """Where, how fast and with how much memory; changes no bit. As of `mcaprobe.run`."""

    threads: int | None = None
    memory: str | None = None
    chunk: int | None = None
    engine: Engine = field(default_factory=Engine)
