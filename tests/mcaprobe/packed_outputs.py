"""What recorded models get and put out: an image, and two outputs in every container that has names for them."""

import dataclasses
from collections import OrderedDict
from typing import NamedTuple

import torch


def image(*shape: int) -> torch.Tensor:
    """Return normal numbers, (1, 2, 8, 8) unless a shape is given."""
    return torch.randn(*(shape or (1, 2, 8, 8)), generator=torch.Generator().manual_seed(0))


class Pair(NamedTuple):
    mean: torch.Tensor
    spread: torch.Tensor


@dataclasses.dataclass
class Fields:
    logits: torch.Tensor
    extra: list


PACKED = {  # what puts them in, and what their names end in
    "tuple": (lambda a, b: (a, b), [".0", ".1"]),
    "list": (lambda a, b: [a, b], [".0", ".1"]),
    "dict": (lambda a, b: {"x": a, "y": b}, [".x", ".y"]),
    "ordered dict": (lambda a, b: OrderedDict(x=a, y=b), [".x", ".y"]),
    "named tuple": (lambda a, b: Pair(a, b), [".mean", ".spread"]),
    "dataclass": (lambda a, b: Fields(a, [b, None, "text"]), [".logits", ".extra.0"]),
    "nested": (lambda a, b: {"x": (a, {"deep": [b]})}, [".x.0", ".x.1.deep.0"]),
    "one in a tuple": (lambda a, b: (a,), [".0"]),
}
