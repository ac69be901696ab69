"""What did a campaign find? Rows, maps and moments of each layer, from memory or from a run directory."""

from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from mcaprobe.chunks import activation_path
from mcaprobe.errors import InputError
from mcaprobe.layer_result import LayerResult
from mcaprobe.manifest import MANIFEST
from mcaprobe.metrics import PREFIX
from mcaprobe.models import nearest
from mcaprobe.place import ANATOMY, Place
from mcaprobe.plots import LayerPicture, heatmap
from mcaprobe.routes import VERROU
from mcaprobe.settings import expect_matches, matches
from mcaprobe.statistics import Estimator
from mcaprobe.storage import DamagedFile, read_csv, read_json, read_tensors
from mcaprobe.stores import FolderStore, Store
from mcaprobe.summary import Row
from mcaprobe.table import TABLE, row_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Result:
    """A finished campaign: `result[layer]`, `result.table()`, `result.heatmap()`, `result.manifest`."""

    def __init__(
        self,
        manifest: dict[str, Any],
        rows: Sequence[Row],
        store: Store,
        place: Place | None,
        path: Path | None = None,
        samples: dict[tuple[str, int | None], Tensor] | None = None,
    ) -> None:
        self.manifest = manifest
        self.rows = list(rows)
        self.store = store
        self.place = place
        self.path = path
        self._samples = samples or {}

    def __repr__(self) -> str:
        where = "in memory" if self.path is None else str(self.path)
        return f"Result({len(self.layers)} layers, {self.samples} samples, {self.manifest['mode']}, {where})"

    @property
    def layers(self) -> list[str]:
        """Names of the layers, in execution order; metrics last."""
        names = list(self.manifest["layers"])
        return names + sorted(name for name in self.store.names() if name.startswith(PREFIX))

    @property
    def samples(self) -> int:
        """Number of perturbed runs."""
        return int(self.manifest["samples"])

    @property
    def estimator(self) -> Estimator:
        """The estimator of the rows and maps."""
        known = {f.name for f in fields(Estimator)}
        return Estimator(**{key: value for key, value in self.manifest["identity"].items() if key in known})

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Image axes of the input tensor (N, C, *spatial)."""
        return tuple(self.manifest["input"]["shape"][2:])

    @property
    def most_bits(self) -> int:
        """Where a scale of bits ends: 53 where a layer is float64, else 24."""
        return 53 if any(about["dtype"] == "float64" for about in self.manifest["layers"].values()) else 24

    def __contains__(self, name: object) -> bool:
        return name in self.layers or name in self.manifest["aliases"]

    def __iter__(self) -> Iterator[str]:
        return iter(self.layers)

    def __len__(self) -> int:
        return len(self.layers)

    def __getitem__(self, name: str) -> LayerResult:
        """Return a layer by its name or an alias; InputError with the nearest names where there is none."""
        name = self.manifest["aliases"].get(name, name)
        if name not in self.layers:
            raise InputError(f"There is no layer {name}: {nearest(name, self.layers)}.")
        return LayerResult(self, name)

    def table(self, layers: str | Sequence[str] = "*") -> list[Row]:
        """Return the rows of the layers that match the globs, in execution order."""
        globs = [layers] if isinstance(layers, str) else list(layers)
        expect_matches("The layer glob", globs, self.layers)
        return [row for row in self.rows if matches(row.layer, globs)]

    def activation(self, name: str, sample: int | None) -> Tensor:
        """Return a kept activation; sample None is the unperturbed run. InputError where it was not kept."""
        layer = self[name].name
        if self.path is not None:
            path = activation_path(self.path / "samples", layer, sample)
            if path.is_file():
                return read_tensors(path)["activation"]
        elif (layer, sample) in self._samples:
            return self._samples[layer, sample]
        raise InputError(
            f"The activations of {layer} were not kept for sample {sample}: run with --keep-samples '{layer}'."
        )

    def heatmap(self, layers: str | Sequence[str] = "*") -> "Figure":
        """Return a figure of the maps, from the first layer to the last, beside the anatomy."""
        globs = [layers] if isinstance(layers, str) else list(layers)
        expect_matches("The layer glob", globs, self.layers)
        chosen = [LayerResult(self, name) for name in self.layers if matches(name, globs)]
        pictures = [LayerPicture(x.name, x.bits, x.majority, x.shape) for x in chosen if x.has_map and x.bits.ndim == 2]
        if not pictures:
            raise InputError(f"None of the {len(chosen)} chosen layers has a two-dimensional map to draw.")
        manifest = self.manifest
        title = f"Significant bits of {manifest['identity']['model']} on {Path(manifest['input']['name']).name}"
        machine = manifest["machine"]
        footer = (
            f"n = {self.samples} and the IEEE run, mode {manifest['mode']}, {arithmetic_of(manifest)}, "
            f"seed {manifest['seed']}; "
            f"{self.estimator}; torch {manifest['versions']['torch']}, {machine['processor']}, "
            f"{machine['torch_cpu_capability']}, one thread a kernel"
        )
        if manifest["model_note"]:
            footer += f". {manifest['model_note']}"
        if self.place is None:
            return heatmap(pictures, None, title, footer, most_bits=self.most_bits)
        place = self.place
        return heatmap(
            pictures,
            place.anatomy,
            title,
            footer,
            plane=place.plane,
            voxel_size=place.voxel_size,
            most_bits=self.most_bits,
        )

    def with_rows(self, rows: Sequence[Row], estimator: Estimator) -> "Result":
        """Return the same result with the rows of another estimator."""
        identity = {
            **self.manifest["identity"],
            **{f.name: getattr(estimator, f.name) for f in fields(Estimator)},
        }
        return Result({**self.manifest, "identity": identity}, rows, self.store, self.place, self.path, self._samples)


def arithmetic_of(manifest: dict[str, Any]) -> str:
    """Return what did the rounding, as a picture states it."""
    if manifest["route"] == VERROU:
        return f"under Verrou ({manifest['verrou']['version']})"
    return f"emulated (route {manifest['route']})"


def load(path: str | Path) -> Result:
    """Return the result in a run directory.

    Raises:
        InputError: it is no run directory, the run is not complete, or a file is missing or damaged.
    """
    folder = Path(path)
    if not (folder / MANIFEST).is_file():
        raise InputError(f"{folder} is no run directory: it has no {MANIFEST}.")
    try:
        manifest = read_json(folder / MANIFEST)
        if manifest.get("status") != "complete":
            raise InputError(
                f"The run in {folder} is not complete ({manifest.get('status')}): give its mcaprobe run command again."
            )
        rows = [row_of(record) for record in read_csv(folder / TABLE)]
        place = Place.from_state(read_tensors(folder / ANATOMY)) if (folder / ANATOMY).exists() else None
    except DamagedFile as error:
        raise InputError(f"The run in {folder} is damaged: {error}.") from error
    return Result(manifest, rows, FolderStore(folder / "layers"), place, folder)
