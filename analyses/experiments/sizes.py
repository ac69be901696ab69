"""Which of the papers' figures about size do their descriptions give? FasterFusion, E2ENet, Sauron's nnU-Nets.

Counted on shapes alone: nothing is trained. Operations: the convention of E2ENet's paper (two for each product, a
transposed convolution at its outputs), for an input of 1 x 128^3 unless the row says another.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import floor
from typing import Any

import torch
from torch import nn

from analyses.compress import baseline
from analyses.compress.counting import LayerCost, costs, paper_flops, parameters, true_flops
from analyses.compress.dsff import Masks, Schedule
from analyses.compress.fasterfusion.published import claims
from analyses.experiments.counting import Row, Tables
from analyses.models.e2enet import FUSION, E2ENet
from analyses.models.nnunet import HeadedUNet

UNIFORM = "uniform density in all masked tensors; the paper's figure needs .2 in the 48-channel convolutions"
HEADS = "counted with the heads of deep supervision; 30.80 with a last pooling of (1, 2, 2)"
WITH = "with one operation for each output of the second half's convolutions"
CUT = "cut after two digits, not rounded"


@dataclass(frozen=True, slots=True)
class Published:
    """A network of E2ENet's tables: its parameters in millions and its operations in 10^9.

    Args:
        sparsity: Of the fusion; None of nnU-Net.
        reading: What could explain a difference in the parameters, or in both where the network is sparse.
    """

    name: str
    channels: int
    classes: int
    sparsity: float | None
    size: int
    parameters: float
    operations: float
    reading: str = ""

    def build(self) -> nn.Module:
        """Return the network, without memory for its weights."""
        with torch.device("meta"):
            if self.sparsity is None:
                return HeadedUNet(3, self.channels, self.classes)
            return E2ENet(self.channels, self.classes)


E2ENETS = (
    Published("nnU-Net, AMOS", 1, 16, None, 128, 30.76, 1067.89, HEADS),
    Published("nnU-Net, BraTS", 4, 4, None, 128, 31.20, 1076.62),
    Published("E2ENet, dense, AMOS", 1, 16, 0.0, 128, 23.90, 3069.55),
    Published("E2ENet, S = .7, AMOS", 1, 16, 0.7, 128, 11.23, 969.32, UNIFORM),
    Published("E2ENet, S = .7, BraTS", 4, 4, 0.7, 128, 11.24, 1067.06),
    Published("E2ENet, S = .8, AMOS", 1, 16, 0.8, 128, 9.44, 778.74),
    Published("E2ENet, S = .9, AMOS", 1, 16, 0.9, 128, 7.64, 492.29),
    Published("E2ENet, S = .7, BTCV, 96^3", 1, 14, 0.7, 96, 11.25, 449.00),
)
SAURONS = {"Rats": 7_367_686, "ATLAS": 12_699_750, "KiTS": 12_699_921}


def run() -> Tables:
    """Return the table `rows`: the paper's figure, ours, and whether ours rounds to it."""
    return {"rows": [*_fasterfusion(), *_e2enet(), *_sauron()]}


def _fasterfusion() -> Iterator[Row]:
    weights = "per pair of channels a plain unit has 27 weights, the training form 6.5, the fused one 7.5"
    for claim in claims():
        paper = f"{claim.least:g} or more" if claim.most == float("inf") else f"{claim.least:g} to {claim.most:g}"
        yield {
            "system": "FasterFusion", "quantity": claim.figure, "paper": paper, "here": claim.here,
            "reproduced": claim.reproduced, "reading": "" if claim.reproduced else weights,
        }  # fmt: skip


def _e2enet() -> Iterator[Row]:
    for published in E2ENETS:
        network, sparsity = published.build(), published.sparsity or 0.0
        active = parameters(network, _masks(network, sparsity))[1] if sparsity else parameters(network)[0]
        shares = dict.fromkeys(FUSION, 1 - sparsity) if sparsity else {}
        found = costs(network, (1, published.channels, *(published.size,) * 3), shares)
        about: dict[str, Any] = {"system": "E2ENet"}
        yield about | _figure(
            f"parameters, millions: {published.name}", published.parameters, active / 1e6, published.reading
        )
        yield about | _operations(published, network, found) | {"each_product_once": true_flops(found) / 1e9}


def _operations(published: Published, network: nn.Module, found: list[LayerCost]) -> Row:
    """Return the row of the operations; of a dense network also with one for each output of the second half."""
    quantity, here = f"operations, 10^9: {published.name}", paper_flops(found) / 1e9
    row = _figure(quantity, published.operations, here, published.reading if published.sparsity else "")
    if row["reproduced"] or published.sparsity:
        return row
    second = "nodes" if isinstance(network, E2ENet) else "decoder"
    more = paper_flops(found, lambda cost: cost.sums * (cost.bias and cost.layer.startswith(second))) / 1e9
    return _figure(quantity, published.operations, more, how=f"{WITH}; {here:.2f} without")


def _masks(network: nn.Module, sparsity: float) -> dict[str, torch.Tensor]:
    optimizer = torch.optim.SGD(network.parameters(), 0.01)
    return Masks(network, optimizer, FUSION, sparsity, Schedule(1), torch.Generator().manual_seed(0)).masks


def _sauron() -> Iterator[Row]:
    for name, expected in SAURONS.items():
        with torch.device("meta"):
            found = parameters(baseline.baseline(name))[0]
        yield {
            "system": "Sauron", "quantity": f"parameters of its nnU-Net: {name}", "paper": str(expected),
            "here": found, "reproduced": found == expected,
            "reading": "the published code's; the paper prints none",
        }  # fmt: skip


def _figure(quantity: str, paper: float, here: float, why_not: str = "", how: str = "") -> Row:
    """Return a row.

    Args:
        why_not: What could explain a difference; told where the paper's figure does not come out.
        how: In which way ours is counted; told whether it comes out or not.
    """
    rounds, cut = round(here, 2) == paper, floor(100 * here) / 100 == paper
    reading = CUT if cut and not rounds else how or ("" if rounds else why_not)
    return {
        "quantity": quantity, "paper": f"{paper:.2f}", "here": here, "difference": 100 * (here / paper - 1),
        "reproduced": rounds or cut, "reading": reading,
    }  # fmt: skip
