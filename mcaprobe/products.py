"""What becomes of a layer's moments? Rows, a map, a histogram, and what was asked to be kept."""

import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from mcaprobe.chunks import write_activation
from mcaprobe.collecting import AnyMoments
from mcaprobe.folders import remove
from mcaprobe.geometry import LayerInfo
from mcaprobe.images import Slice
from mcaprobe.lane_blocks import LaneBlocks
from mcaprobe.maps import layer_mask
from mcaprobe.metrics import PREFIX, moments_of
from mcaprobe.place import ANATOMY, Place
from mcaprobe.planning import Survey
from mcaprobe.result import Result
from mcaprobe.settings import Settings, matches
from mcaprobe.statistics import Moments
from mcaprobe.storage import file_name, replacing, write_csv, write_tensors
from mcaprobe.stores import FolderStore, MemoryStore, Store
from mcaprobe.summary import Row, digest
from mcaprobe.table import COLUMNS, TABLE, row_record

if TYPE_CHECKING:
    from mcaprobe.campaign import Campaign

HEATMAP = "heatmap.png"
METRICS = "metrics.csv"
MASKS = "masks"  # not made by a run, but of one: gone with it when it is started again
PIECES = "pieces.csv"
PRODUCTS = ("layers", "maps", "samples", TABLE, PIECES, METRICS, HEATMAP, ANATOMY, MASKS)


class Products:
    """Takes the layers of a whole campaign and makes its products, in a folder or in memory.

    Args:
        folder: A temporary folder; None keeps everything in memory.
    """

    def __init__(self, campaign: "Campaign", seen: Survey, folder: Path | None) -> None:
        self.settings: Settings = campaign.settings
        self.picture: Slice | None = campaign.input.picture
        self.regions: Mapping[str, Tensor] = campaign.input.regions
        self.seen = seen
        self.folder = folder
        self.store: Store = MemoryStore() if folder is None else FolderStore(folder / "layers")
        self.rows: list[Row] = []
        self.metric_values: dict[str, dict[str, float]] = {}
        self.kept: dict[tuple[str, int | None], Tensor] = {}

    def clear(self) -> None:
        """Forget what was taken."""
        self.rows.clear()
        self.kept.clear()
        self.store.clear()
        if self.folder is not None and (self.folder / "samples").exists():
            remove(self.folder / "samples")

    def layer(self, name: str, operator: str, blocks: Iterable[AnyMoments]) -> None:
        """Merge the blocks of a layer in index order and store what follows from them."""
        masks = self._masks(self.seen.layers[name])
        self._store(name, operator, blocks if isinstance(blocks, LaneBlocks) else _merged(blocks), masks)

    def _masks(self, info: LayerInfo) -> dict[str, Tensor]:
        """Return the regions of a layer apart from all of it: brain, background, those of a segmentation."""
        if self.picture is None or self.picture.mask is None or not info.spatial:
            return {}
        grid = info.placed(tuple(self.picture.mask.shape))
        brain = layer_mask(self.picture.mask, grid, info.shape)
        parts = {name: layer_mask(region, grid, info.shape) for name, region in self.regions.items()}
        return {"brain": brain, "background": ~brain, **parts}

    def _store(
        self, name: str, operator: str, source: AnyMoments | LaneBlocks, masks: Mapping[str, Tensor]
    ) -> None:
        info = self.seen.layers.get(name)
        floating = isinstance(source, Moments) or (
            isinstance(source, LaneBlocks) and source.reference.is_floating_point()
        )
        found = digest(
            source,
            self.settings.estimator,
            masks,
            layer=name,
            operator=operator,
            picture=floating and info is not None and bool(info.spatial) and info.shape[0] == 1,
            keep=matches(name, self.settings.keep_moments) or name.startswith(PREFIX),
            threads=self.settings.thread_count(),
        )
        self.rows.extend(found.rows)
        tensors = _prefixed("histogram", found.histogram.state())
        if found.picture is not None:
            tensors.update(zip(("bits", "majority", "shares"), found.picture, strict=True))
        if found.moments is not None:
            tensors.update(_prefixed("moments", found.moments.state()))
            tensors.update(_prefixed("mask", masks))
        self.store.put(
            name, {key: value.cpu() for key, value in tensors.items()}, {"layer": name, "operator": operator}
        )

    def activation(self, name: str, sample: int | None, tensor: Tensor) -> None:
        """Keep one activation of one run."""
        if self.folder is None:
            self.kept[name, sample] = tensor.detach().clone()
        else:
            write_activation(self.folder / "samples", name, sample, tensor)

    def adopt_samples(self, chunk: Path) -> None:
        """Take over the activations that a chunk kept, without a second copy where the file system can link."""
        if self.folder is None or not chunk.is_dir():
            return
        for path in sorted(chunk.rglob("*.safetensors")):
            target = self.folder / "samples" / path.relative_to(chunk)
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.exists():
                continue  # the unperturbed run, which every chunk has
            try:
                os.link(path, target)
            except OSError:
                shutil.copyfile(path, target)

    def metrics(self, values: Mapping[str, Mapping[str, float]]) -> None:
        """Take the metrics of the output: a row of the table for each."""
        for name, runs in values.items():
            # In the order of the samples, whatever the order in which their chunks arrived.
            ordered = sorted(runs, key=lambda run: -1 if run == "reference" else int(run))
            self.metric_values[name] = {run: runs[run] for run in ordered}
            self._store(PREFIX + name, "metric", moments_of(runs, self.settings.blocks()), {})

    def result(self, manifest: dict[str, Any], path: Path | None = None) -> Result:
        """Return what was taken as a result."""
        place = Place.of(self.picture)
        return Result(manifest, self.rows, self.store, place, path, self.kept)

    def write(self, manifest: dict[str, Any], pictures: bool = True) -> None:
        """Write the table, and where they are wanted the maps and the picture, into the folder."""
        if self.folder is None:
            raise ValueError("Expected products with a folder.")
        result = self.result(manifest)
        write_csv(self.folder / TABLE, [row_record(row) for row in self.rows], COLUMNS)
        if self.metric_values:
            lines = [{"metric": name, "run": run, "value": repr(value)}
                     for name, runs in self.metric_values.items() for run, value in runs.items()]  # fmt: skip
            write_csv(self.folder / METRICS, lines, ("metric", "run", "value"))
        if result.place is not None:
            write_tensors(self.folder / ANATOMY, result.place.state())
        if not pictures:
            return
        (self.folder / "maps").mkdir(exist_ok=True)
        drawable = 0
        for name in result.layers:
            layer = result[name]
            if layer.has_map:
                layer.to_nifti(self.folder / "maps" / f"{file_name(name)}.nii.gz")
                drawable += layer.bits.ndim == 2
        if drawable:
            save_figure(result.heatmap(), self.folder / HEATMAP)


def save_figure(figure: Any, path: Path, dpi: float | str = "figure") -> None:
    """Write a figure as PNG (or what the suffix says) atomically, with the same bytes every time, and close it.

    Args:
        dpi: Dots an inch; "figure" for the figure's own.
    """
    import matplotlib.pyplot as plt

    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=dpi, metadata={"Software": None} if path.suffix.lower() == ".png" else None)
    plt.close(figure)


def _merged(blocks: Iterable[AnyMoments]) -> AnyMoments:
    rest = iter(blocks)
    total: Any = next(rest)
    for block in rest:
        total.merge(block)
    return total


def _prefixed(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}.{key}": value for key, value in tensors.items()}
