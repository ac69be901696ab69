"""Where does the randomness of one operator call in one sample come from?

Every draw is a function of (seed, sample, call number) and of the element's place in that sample's tensor, read in
contiguous order, whatever the memory format, the threads or the other samples beside it.
"""

import numpy as np
import torch
from torch import Tensor


class Stream:
    """Random numbers of one operator call in one sample, as tensors on the device of that call."""

    def __init__(self, seed: int, sample: int, call: int, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        sequence = np.random.SeedSequence(entropy=seed, spawn_key=(sample, call))
        if self.device.type == "cpu":
            self._numpy = np.random.Generator(np.random.PCG64DXSM(sequence))
        else:
            # The device's own counter-based generator: other numbers than the CPU's, same distributions.
            self._torch = torch.Generator(self.device)
            self._torch.manual_seed(int(sequence.generate_state(1, np.uint64)[0]) >> 1)

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
