"""Where does the randomness of one operator call in one sample come from?

Every draw is a function of (seed, sample, call number) and of the element's place in that sample's tensor, read in
contiguous order, whatever the memory format, the threads or the other samples beside it. The compiled kernels draw from
a counter-based generator whose key is `key`; operations in torch draw tensors.
"""

from functools import cached_property

import numpy as np
import torch
from torch import Tensor


def piece_seed(seed: int, number: int) -> int:
    """Return the seed of piece `number` of a volume (the slice's number in the image, or the patch's), 63 bits.

    A campaign of that slice alone with this seed has the same bits.
    """
    return int(np.random.SeedSequence(entropy=seed, spawn_key=(number,)).generate_state(1, np.uint64)[0]) >> 1


class Stream:
    """Random numbers of one operator call in one sample, as tensors on the device of that call."""

    def __init__(self, seed: int, sample: int, call: int, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        self._sequence = np.random.SeedSequence(entropy=seed, spawn_key=(sample, call))

    @cached_property
    def key(self) -> tuple[int, int]:
        """Two 32-bit words for the generator of the compiled kernels."""
        first, second = self._sequence.generate_state(2, np.uint32)
        return int(first), int(second)

    @cached_property
    def _numpy(self) -> np.random.Generator:
        return np.random.Generator(np.random.PCG64DXSM(self._sequence))

    @cached_property
    def _torch(self) -> torch.Generator:
        # The device's own counter-based generator: other numbers than the CPU's, same distributions.
        generator = torch.Generator(self.device)
        generator.manual_seed(int(self._sequence.generate_state(1, np.uint64)[0]) >> 1)
        return generator

    def normal(self, count: int) -> Tensor:
        """Return `count` float32 draws of the standard normal distribution."""
        if self.device.type == "cpu":
            return torch.from_numpy(self._numpy.standard_normal(count, dtype=np.float32))
        return torch.randn(count, generator=self._torch, device=self.device)

    def uniform(self, count: int) -> Tensor:
        """Return `count` float32 draws, uniform on [0, 1)."""
        if self.device.type == "cpu":
            return torch.from_numpy(self._numpy.random(count, dtype=np.float32))
        return torch.rand(count, generator=self._torch, device=self.device)

    def coin(self, count: int) -> Tensor:
        """Return `count` fair coins, bool."""
        if self.device.type == "cpu":
            bits = np.frombuffer(self._numpy.bytes((count + 7) // 8), dtype=np.uint8)
            return torch.from_numpy(np.unpackbits(bits, count=count).view(bool))
        return torch.rand(count, generator=self._torch, device=self.device) < 0.5
