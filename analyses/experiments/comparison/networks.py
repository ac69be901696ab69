"""Which networks are compared, how does each come from one that is trained, and what does it compute in the end?"""

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

import nanops
from analyses.compress.dsff import Masks, Schedule
from analyses.compress.fasterfusion.fusing import fuse
from analyses.compress.fasterfusion.joint import pool_nans
from analyses.compress.fasterfusion.placing import place
from analyses.compress.halves import bfloat16, half_width
from analyses.compress.int8 import quantized_int8
from analyses.compress.sauron import Sauron
from analyses.compress.sauron import Settings as SauronSettings
from analyses.compress.thresholds import Schedule as Rising
from analyses.compress.weakest import prune_weakest
from analyses.experiments.comparison.companions import Cut, Masked, Sauronic
from analyses.experiments.comparison.tasks.heads import SyntheticHeads
from analyses.experiments.comparison.tasks.task import Task
from analyses.models.e2enet import FUSION
from analyses.training.budget import Attach, Budget, Companion
from mcaprobe.errors import InputError
from nanops.errors import nearest

BFLOAT16 = "the emulator perturbs float32 and float64 only"
INT8 = "integer kernels have no noise model"


@dataclass(frozen=True, slots=True)
class Learning:
    """What decides the weights of the networks.

    Args:
        features: Of the plain U-Net; E2ENet has 3/4 of them (its fusion nodes see three scales).
        constant: Width of every stage of the U-Net whose width does not grow, as FastSurfer's.
        share: Of the channels that magnitude pruning takes; (1 - share)^2 of the products are left.
        cut: Share of the steps after which the fine-tuned one is pruned.
        sparsity: Of E2ENet.
        epochs: Of Sauron, into which the steps fall; schedule: of its thresholds, steeper than the paper's, which has
            hundreds of epochs.
    """

    task: Task = field(default_factory=SyntheticHeads)
    budget: Budget = field(default_factory=Budget)
    features: tuple[int, ...] = (8, 16, 32)
    constant: int = 12
    share: float = 0.163
    cut: float = 2 / 3
    sparsity: float = 0.8
    epochs: int = 30
    schedule: Rising = field(default_factory=lambda: Rising(steps=4, patience=0))


@dataclass(frozen=True, slots=True)
class Family:
    """A network that is trained: how it is built, and what accompanies its training."""

    build: Callable[[Learning], nn.Module]
    attach: Callable[[Learning], Attach | None] = lambda learning: None


@dataclass(frozen=True, slots=True)
class Entry:
    """A row of the comparison.

    Args:
        name: Of the row.
        family: What it is made of.
        shape: Makes of the trained network a float one, on which parameters and products are counted.
        compute: Makes of that the network that runs; also gets images to calibrate with.
        unprobed: Why the emulator cannot see it, "" where it can.
    """

    name: str
    family: str
    shape: Callable[[nn.Module, Learning], nn.Module] = lambda network, learning: network
    compute: Callable[[nn.Module, list[Tensor]], nn.Module] = lambda network, images: network
    unprobed: str = ""


def _plain(learning: Learning, downsampling: str = "pool", norm: str = "batch") -> nn.Module:
    return learning.task.plain(learning.features, downsampling, norm)


def _e2enet(learning: Learning) -> nn.Module:
    return learning.task.e2enet(learning.features)


def _half(learning: Learning) -> nn.Module:
    return half_width(lambda features: learning.task.plain(tuple(features)), learning.features)


def _constant(learning: Learning) -> nn.Module:
    return learning.task.plain((learning.constant,) * len(learning.features))


def _fusion(learning: Learning) -> nn.Module:
    return place(_plain(learning), at_least=learning.features[1])  # wide: all but the finest level


def _sparse(learning: Learning) -> Attach:
    def attach(network: nn.Module, optimizer: Optimizer) -> Companion:
        steps = learning.budget.steps
        schedule = Schedule(iterations=steps, every=max(1, steps // 20))
        generator = torch.Generator().manual_seed(learning.budget.seed)
        fusion = [f"*{glob}" for glob in FUSION]  # the network may be part of another
        return Masked(Masks(network, optimizer, fusion, learning.sparsity, schedule, generator))

    return attach


def _sauron(learning: Learning) -> Attach:
    def attach(network: nn.Module, optimizer: Optimizer) -> Companion:
        task, generator = learning.task, torch.Generator().manual_seed(learning.budget.seed)
        core, example = task.core(network)
        sauron = Sauron(core, optimizer, example, generator, SauronSettings(schedule=learning.schedule))
        return Sauronic(network, sauron, learning.budget.steps, learning.epochs, task.validation, task.loss)

    return attach


def _cut(learning: Learning) -> Attach:
    def attach(network: nn.Module, optimizer: Optimizer) -> Companion:
        core, example = learning.task.core(network)
        return Cut(core, example, optimizer, max(1, round(learning.cut * learning.budget.steps)), learning.share)

    return attach


def _pruned(network: nn.Module, learning: Learning) -> nn.Module:
    copy = deepcopy(network)
    prune_weakest(*learning.task.core(copy), learning.share)
    return copy.eval()


def _nans(pooling: str, uniform: bool = False) -> Callable[[nn.Module, list[Tensor]], nn.Module]:
    return lambda network, images: nanops.convert(network, pooling, 0.5, uniform=uniform)


def _fused(network: nn.Module, learning: Learning) -> nn.Module:
    return fuse(network)


def _joint_nans(network: nn.Module, images: list[Tensor]) -> nn.Module:
    return nanops.convert(pool_nans(network, 0.5), "conservative", 0.5)


def _int8(network: nn.Module, images: list[Tensor]) -> nn.Module:
    return quantized_int8(network, images)


def _bfloat16(network: nn.Module, images: list[Tensor]) -> nn.Module:
    return bfloat16(network)


def _bfloat16_nans(network: nn.Module, images: list[Tensor]) -> nn.Module:
    return nanops.convert(bfloat16(network), "conservative", 0.5)


STOCK = "plain U-Net, pooled"
FAMILIES: Mapping[str, Family] = {
    "pool": Family(_plain),
    "stride": Family(lambda learning: _plain(learning, "stride")),
    "instance": Family(lambda learning: _plain(learning, norm="instance")),
    "half": Family(_half),
    "constant": Family(_constant),
    "fusion": Family(_fusion),
    "e2enet": Family(_e2enet),
    "sparse": Family(_e2enet, _sparse),
    "sauron": Family(_plain, _sauron),
    "cut": Family(_plain, _cut),
}
CONSERVATIVE, UNIFORM = "NaN, conservative", "NaN, conservative, uniform windows"
ENTRIES = (
    Entry(STOCK, "pool"),
    Entry("plain U-Net, strided", "stride"),
    Entry("plain U-Net, instance norm", "instance"),
    Entry("half width", "half"),
    Entry("constant width", "constant"),
    Entry("FasterFusion, training form", "fusion"),
    Entry("FasterFusion, fused", "fusion", _fused),
    Entry("E2ENet, dense", "e2enet"),
    Entry("E2ENet, sparse", "sparse"),
    Entry("Sauron", "sauron"),
    Entry("magnitude pruning", "pool", _pruned),
    Entry("magnitude pruning, fine-tuned", "cut"),
    Entry("int8", "pool", compute=_int8, unprobed=INT8),
    Entry("bfloat16", "pool", compute=_bfloat16, unprobed=BFLOAT16),
    Entry(CONSERVATIVE, "pool", compute=_nans("conservative")),
    Entry(UNIFORM, "pool", compute=_nans("conservative", uniform=True)),
    Entry("NaN, aggressive", "pool", compute=_nans("aggressive")),
    Entry("NaN, hybrid, uniform windows", "pool", compute=_nans("hybrid", uniform=True)),
    Entry(f"instance norm + {CONSERVATIVE}", "instance", compute=_nans("conservative")),
    Entry(f"constant width + {CONSERVATIVE}", "constant", compute=_nans("conservative")),
    Entry(f"constant width + {UNIFORM}", "constant", compute=_nans("conservative", uniform=True)),
    Entry(f"half width + {CONSERVATIVE}", "half", compute=_nans("conservative")),
    Entry(f"FasterFusion, fused + {CONSERVATIVE}", "fusion", _fused, _joint_nans),
    Entry(f"Sauron + {CONSERVATIVE}", "sauron", compute=_nans("conservative")),
    Entry(f"magnitude pruning, fine-tuned + {CONSERVATIVE}", "cut", compute=_nans("conservative")),
    Entry(f"bfloat16 + {CONSERVATIVE}", "pool", compute=_bfloat16_nans, unprobed=BFLOAT16),
)


def entry(name: str) -> Entry:
    """Return the entry of a name; InputError, with the nearest, where there is none."""
    found = {e.name: e for e in ENTRIES}
    if name not in found:
        raise InputError(f"Expected a row of the comparison, got {name!r}{nearest(name, found)}")
    return found[name]
