"""Where are the stored tensors of each layer: in memory, or one safetensors file a layer?"""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from torch import Tensor

from mcaprobe.storage import file_name, layer_name, read_metadata, read_tensors, write_tensors

SUFFIX = ".safetensors"


class Store(Protocol):
    """The tensors and a few strings of each layer, by layer name."""

    def put(self, name: str, tensors: Mapping[str, Tensor], about: Mapping[str, str]) -> None:
        """Store a layer, replacing it."""

    def tensors(self, name: str) -> dict[str, Tensor]:
        """Return the tensors of a layer; raise DamagedFile where they cannot be read."""

    def about(self, name: str) -> dict[str, str]:
        """Return the strings of a layer; raise DamagedFile where they cannot be read."""

    def names(self) -> set[str]:
        """Return the names of the stored layers."""

    def clear(self) -> None:
        """Remove all layers."""


class MemoryStore:
    """Layers in memory."""

    def __init__(self) -> None:
        self._layers: dict[str, tuple[dict[str, Tensor], dict[str, str]]] = {}

    def put(self, name: str, tensors: Mapping[str, Tensor], about: Mapping[str, str]) -> None:
        self._layers[name] = (dict(tensors), dict(about))

    def tensors(self, name: str) -> dict[str, Tensor]:
        return self._layers[name][0]

    def about(self, name: str) -> dict[str, str]:
        return self._layers[name][1]

    def names(self) -> set[str]:
        return set(self._layers)

    def clear(self) -> None:
        self._layers.clear()


class FolderStore:
    """Layers as files `<layer>.safetensors` of one folder; the layer's name is escaped by `storage.file_name`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def _path(self, name: str) -> Path:
        return self.folder / (file_name(name) + SUFFIX)

    def put(self, name: str, tensors: Mapping[str, Tensor], about: Mapping[str, str]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        write_tensors(self._path(name), tensors, about)

    def tensors(self, name: str) -> dict[str, Tensor]:
        return read_tensors(self._path(name))

    def about(self, name: str) -> dict[str, str]:
        return read_metadata(self._path(name))

    def names(self) -> set[str]:
        if not self.folder.is_dir():
            return set()
        return {layer_name(path.name.removesuffix(SUFFIX)) for path in self.folder.glob("[!.]*" + SUFFIX)}

    def clear(self) -> None:
        for path in self.folder.glob("*" + SUFFIX) if self.folder.is_dir() else []:
            path.unlink()
