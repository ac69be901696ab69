"""Which networks are compared, how does each come from one that is trained, and what does it compute in the end?"""

from collections.abc import Callable, Mapping
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
from analyses.compress.magnitude import magnitude_pruned
from analyses.models.e2enet import FUSION, E2ENet
from analyses.models.nnunet import PlainUNet
from analyses.training.budget import After, Attach, Budget, built, train
from analyses.training.synthetic_heads import CLASSES, LEARNT, UNSEEN, Heads, load_heads
from mcaprobe.errors import InputError
from nanops.errors import nearest

BFLOAT16 = "the emulator perturbs float32 and float64 only"
INT8 = "integer kernels have no noise model"


@dataclass(frozen=True, slots=True)
class Config:
    """What decides the rows, apart from the machine.

    Args:
        features: Of the plain U-Net; E2ENet has 3/2 of them.
        learnt, unseen: Heads to learn from and to test on.
        probed: Voxels an axis of the head that the emulator sees.
        samples: n, perturbed runs, mode random.
        share: Of the channels that magnitude pruning takes; sparsity: of E2ENet; threshold: of skipped windows.
        repetitions: Of the timing, each with stock before and after; seconds: how long a call is repeated at a time.
    """

    heads: Heads = field(default_factory=Heads)
    budget: Budget = field(default_factory=Budget)
    features: tuple[int, ...] = (8, 16, 32)
    learnt: int = 24
    unseen: int = 8
    probed: int = 16
    samples: int = 10
    share: float = 0.3
    sparsity: float = 0.8
    threshold: float = 0.5
    repetitions: int = 5
    seconds: float = 0.1
    threads: int = 1


@dataclass(frozen=True, slots=True)
class Family:
    """A network that is trained: how it is built, and what accompanies its training."""

    build: Callable[[Config], nn.Module]
    attach: Callable[[Config], Attach | None] = lambda config: None


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
    shape: Callable[[nn.Module, Config], nn.Module] = lambda network, config: network
    compute: Callable[[nn.Module, Config, Tensor], nn.Module] = lambda network, config, images: network
    unprobed: str = ""


def _plain(config: Config, downsampling: str = "pool") -> nn.Module:
    return PlainUNet(3, 1, CLASSES, config.features, downsampling=downsampling)


def _e2enet(config: Config) -> nn.Module:
    return E2ENet(1, CLASSES, tuple(3 * n // 2 for n in config.features))


def _half(config: Config) -> nn.Module:
    return half_width(lambda features: PlainUNet(3, 1, CLASSES, features, downsampling="pool"), config.features)


def _fusion(config: Config) -> nn.Module:
    return place(_plain(config), at_least=config.features[1])  # wide: all but the finest level


def _sparse(config: Config) -> Attach:
    def attach(network: nn.Module, optimizer: Optimizer) -> After:
        steps = config.budget.steps
        schedule = Schedule(iterations=steps, every=max(1, steps // 20))
        generator = torch.Generator().manual_seed(config.budget.seed)
        return Masks(network, optimizer, FUSION, config.sparsity, schedule, generator).step

    return attach


def _pruned(network: nn.Module, config: Config) -> nn.Module:
    return magnitude_pruned(network, config.share, keep=["classifier"])


def _nans(pooling: str) -> Callable[[nn.Module, Config, Tensor], nn.Module]:
    return lambda network, config, images: nanops.convert(network, pooling, config.threshold)


def _joint_nans(network: nn.Module, config: Config, images: Tensor) -> nn.Module:
    return nanops.convert(pool_nans(network, config.threshold), "conservative", config.threshold)


STOCK = "plain U-Net, pooled"
FAMILIES: Mapping[str, Family] = {
    "pool": Family(_plain),
    "stride": Family(lambda config: _plain(config, "stride")),
    "half": Family(_half),
    "fusion": Family(_fusion),
    "e2enet": Family(_e2enet),
    "sparse": Family(_e2enet, _sparse),
}
ENTRIES = (
    Entry(STOCK, "pool"),
    Entry("plain U-Net, strided", "stride"),
    Entry("half width", "half"),
    Entry("FasterFusion, training form", "fusion"),
    Entry("FasterFusion, fused", "fusion", lambda network, config: fuse(network)),
    Entry("E2ENet, dense", "e2enet"),
    Entry("E2ENet, sparse", "sparse"),
    Entry("magnitude pruning", "pool", _pruned),
    Entry("int8", "pool", compute=lambda network, config, images: quantized_int8(network, images.split(4)),
          unprobed=INT8),
    Entry("bfloat16", "pool", compute=lambda network, config, images: bfloat16(network), unprobed=BFLOAT16),
    Entry("NaN, conservative", "pool", compute=_nans("conservative")),
    Entry("NaN, aggressive", "pool", compute=_nans("aggressive")),
    Entry("FasterFusion, fused + NaN, conservative", "fusion", lambda network, config: fuse(network), _joint_nans),
    Entry("magnitude pruning + NaN, conservative", "pool", _pruned, _nans("conservative")),
    Entry("bfloat16 + NaN, conservative", "pool",
          compute=lambda network, config, images: nanops.convert(bfloat16(network), "conservative", config.threshold),
          unprobed=BFLOAT16),
)  # fmt: skip


def entry(name: str) -> Entry:
    """Return the entry of a name; InputError, with the nearest, where there is none."""
    found = {e.name: e for e in ENTRIES}
    if name not in found:
        raise InputError(f"Expected a row of the comparison, got {name!r}{nearest(name, found)}")
    return found[name]


class Trained:
    """The families' networks of one configuration, each trained when it is first asked for; the same seed, the same.

    Attributes:
        learnt, unseen: Images and classes.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.learnt = load_heads(config.heads, LEARNT, config.learnt)
        self.unseen = load_heads(config.heads, UNSEEN, config.unseen)
        self._networks: dict[str, nn.Module] = {}

    def network(self, family: str) -> nn.Module:
        """Return the trained network of a family, in eval mode."""
        if family not in self._networks:
            made = FAMILIES[family]
            network = built(lambda: made.build(self.config), self.config.budget)
            train(network, *self.learnt, self.config.budget, made.attach(self.config))
            self._networks[family] = network
        return self._networks[family]

    def shaped(self, entry: Entry) -> nn.Module:
        """Return the float network of an entry, on which it is counted."""
        return entry.shape(self.network(entry.family), self.config)

    def computing(self, entry: Entry) -> nn.Module:
        """Return the network of an entry that runs, in eval mode."""
        return entry.compute(self.shaped(entry), self.config, self.learnt[0]).eval()
