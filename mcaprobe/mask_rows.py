"""How much of a layer is masked? One line of the table for each region."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from mcaprobe.layer_masks import Mask
from mcaprobe.layer_result import LayerResult
from mcaprobe.regions import positions, select


@dataclass(frozen=True, slots=True)
class MaskRow:
    """One layer in one region; None where a value does not apply.

    Attributes:
        shape: Of the whole layer. elements: those in the region, or its decisions.
        masked, undefined: How many of them.
        positions: Of the image axes in the region; None without any, and all below it.
        positions_any, positions_all: Those where at least one, every channel is marked.
    """

    layer: str
    operator: str
    region: str
    shape: tuple[int, ...]
    elements: int
    masked: int
    undefined: int
    positions: int | None = None
    positions_any: int | None = None
    positions_all: int | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the columns as plain JSON values, `shape` as a list."""
        return dataclasses.asdict(self) | {"shape": list(self.shape)}

    def record(self) -> dict[str, Any]:
        """Return the fields of a CSV line: the shape as 1x64x32x32, None as an empty field."""
        return self.as_dict() | {"shape": "x".join(map(str, self.shape))}


COLUMNS = tuple(field.name for field in dataclasses.fields(MaskRow))


def rows_of(mask: Mask, layer: LayerResult) -> list[MaskRow]:
    """Return the counts of a mask: in the whole layer, and in the brain and the background where a mask was kept."""
    regions = layer.masks
    flat = {"masked": mask.values, "undefined": mask.undefined}
    maps = {f"positions_{how}": mask.reduced(how) for how in ("any", "all")} if layer.spatial else {}
    rows = []
    for region, where in positions(mask.values.shape, regions).items():
        parts = {key: select(values, regions, region, where) for key, values in {**flat, **maps}.items()}
        rows.append(
            MaskRow(
                layer.name,
                layer.operator,
                region,
                mask.shape,
                elements=parts["masked"].numel(),
                positions=parts["positions_any"].numel() if maps else None,
                **{key: int(part.sum()) for key, part in parts.items()},
            )
        )
    return rows
