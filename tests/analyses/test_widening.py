"""Is a network with copied filters the same function?"""

import pytest
import torch
from torch import nn

from analyses.models.fastsurfer import FastSurferVINN
from analyses.models.widening import widened, width_of
from mcaprobe.errors import InputError


def trained_like(filters: int, inner: int) -> FastSurferVINN:
    """Return a network whose parameters are all drawn: also those that are 0 or 1 before a training."""
    generator = torch.Generator().manual_seed(0)
    network = FastSurferVINN(3, filters, inner, 4).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(0.4 * torch.randn(parameter.shape, generator=generator))
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(generator=generator)
                module.running_var.uniform_(0.5, 2, generator=generator)
                module.weight.uniform_(0.5, 1.5, generator=generator)
    return network.double()


@torch.inference_mode()
@pytest.mark.parametrize(("filters", "inner", "wider"), [(5, 3, 13), (4, 4, 8), (6, 3, 6), (5, 3, 6)])
def test_the_logits_are_those_of_the_narrow_network(filters: int, inner: int, wider: int) -> None:
    narrow = trained_like(filters, inner)
    wide = widened(narrow, wider).double()
    assert width_of(wide) == wider and wide.inp_block.conv0.out_channels == inner
    x = torch.rand(2, 3, 32, 48, generator=torch.Generator().manual_seed(1)).double()
    expected = narrow(x)
    assert float(expected.std()) > 0.1
    # The weights of the wide network were rounded to float32 on their way.
    assert torch.allclose(wide(x), expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


def test_a_network_does_not_get_narrower() -> None:
    with pytest.raises(InputError, match="at least the 5 filters of the trained network, got 4"):
        widened(FastSurferVINN(3, 5, 3, 4), 4)
