"""What does a finished chunk leave on disk? One sealed folder with the moments of each block and layer."""

from collections.abc import Iterable
from pathlib import Path

from torch import Tensor, nn

from mcaprobe.collecting import AnyMoments, UnitReport
from mcaprobe.folders import claim, filling, mine, seal
from mcaprobe.metrics import Metric
from mcaprobe.observer import Observer
from mcaprobe.settings import Settings
from mcaprobe.storage import file_name, write_tensors
from mcaprobe.units import run_unit


class ChunkWriter:
    """Writes the moments of each block and layer of a chunk into a folder."""

    def __init__(self, folder: Path, first_block: int) -> None:
        self.folder = folder
        self.first_block = first_block

    def layer(self, name: str, operator: str, blocks: Iterable[AnyMoments]) -> None:
        for i, moments in enumerate(blocks, self.first_block):
            path = self.folder / "blocks" / str(i) / f"{file_name(name)}.safetensors"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_tensors(path, moments.state())

    def activation(self, name: str, sample: int | None, tensor: Tensor) -> None:
        write_activation(self.folder / "samples", name, sample, tensor)


def activation_path(folder: Path, name: str, sample: int | None) -> Path:
    """Return where the activation of a layer is kept below `folder`; sample None is the unperturbed run."""
    return folder / ("reference" if sample is None else str(sample)) / f"{file_name(name)}.safetensors"


def write_activation(folder: Path, name: str, sample: int | None, tensor: Tensor) -> None:
    """Write one activation of one run as `<sample or reference>/<layer>.safetensors` with the tensor `activation`."""
    path = activation_path(folder, name, sample)
    path.parent.mkdir(parents=True, exist_ok=True)
    if not (sample is None and path.exists()):
        write_tensors(path, {"activation": tensor}, {"layer": name})


def run_chunk(
    settings: Settings, model: nn.Module, x: Tensor, first: int, count: int, metrics: list[Metric],
    parent: Path, observer: Observer, alone: str | None = None,
) -> UnitReport:  # fmt: skip
    """Run blocks `first` .. `first + count - 1` and leave them as one sealed folder `parent / <first>-<last sample>`.

    The folder appears once, whole; on any exception nothing is left. Repeating the call gives the same bytes, apart
    from the seconds in its index; of two workers that make it at once the first one's stays.
    """
    blocks = settings.blocks()[first : first + count]
    name = chunk_name(blocks)
    with filling(parent, mine(name)) as folder:
        report = run_unit(settings, model, x, blocks, metrics, ChunkWriter(folder, first), observer, alone)
        seal(folder, {"blocks": [first, first + count], **vars(report)})
        claim(folder, parent / name)
    return report


def chunk_name(blocks: list[range]) -> str:
    """Return `<first>-<last>` sample of consecutive blocks, both included."""
    return f"{blocks[0].start}-{blocks[-1].stop - 1}"
