"""Are the distances of feature maps those of loops, and numbers where maps are constant?"""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from analyses.compress.delta import delta_opt, delta_prune, normalised
from mcaprobe.errors import InputError
from tests.reference import feature_distance_twin as twin

SHAPES = [(2, 3, 6), (1, 4, 5, 7), (3, 2, 4, 6, 3), (2, 5, 1, 4), (2, 1, 4, 4), (1, 3, 1, 1)]


def drawn(shape: Sequence[int], seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("window", [1, 2, 3])
def test_delta_opt_is_that_of_loops(window: int) -> None:
    layers = [drawn(shape, i) for i, shape in enumerate(SHAPES)]
    expected = twin.opt([maps.numpy() for maps in layers], window, 1e-3)
    assert float(delta_opt(layers, window, 1e-3)) == pytest.approx(expected, rel=1e-12)
    assert expected > 0


@pytest.mark.parametrize("window", [1, 2, 3])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_delta_prune_is_that_of_loops(shape: tuple[int, ...], window: int) -> None:
    maps = drawn(shape)
    for reference in range(shape[1]):
        found = delta_prune(maps, reference, window)
        assert torch.allclose(found, torch.tensor(twin.prune(maps.numpy(), reference, window), dtype=torch.float64))
        assert torch.equal(found[:, reference], torch.zeros(shape[0], dtype=torch.float64))
        assert float(found.max()) == (1 if shape[1] > 1 else 0)


def test_constant_maps_give_no_nan_neither_do_their_gradients() -> None:
    maps = drawn((2, 4, 4, 4))
    maps[:, 1], maps[0, 0] = 3.0, -1.0
    maps.requires_grad_()
    assert torch.equal(normalised(maps)[:, 1], torch.zeros(2, 4, 4, dtype=torch.float64))
    found = delta_opt([maps, torch.zeros(2, 3, 4, 4, dtype=torch.float64)])
    found.backward()
    assert found.isfinite() and found > 0 and maps.grad is not None and bool(maps.grad.isfinite().all())
    assert torch.equal(delta_prune(torch.ones(2, 3, 4, 4), 1), torch.zeros(2, 3))


def test_normalised_maps_span_0_to_1() -> None:
    maps = normalised(50 * drawn((2, 3, 6, 5)), 1e-9)
    assert torch.allclose(maps.amin((2, 3)), torch.zeros(2, 3, dtype=torch.float64))
    assert torch.allclose(maps.amax((2, 3)), torch.ones(2, 3, dtype=torch.float64))


def test_a_layer_of_one_channel_counts_as_0_in_the_mean_over_layers() -> None:
    wide = drawn((2, 3, 4, 4))
    assert float(delta_opt([drawn((2, 1, 4, 4))])) == 0
    assert float(delta_opt([wide, drawn((2, 1, 4, 4))])) == pytest.approx(float(delta_opt([wide])) / 2)


def test_maps_without_channels_and_channels_out_of_reach_are_refused() -> None:
    with pytest.raises(InputError, match=r"of shape \(N, C, \*size\), got \(2, 3\)"):
        delta_opt([torch.zeros(2, 3)])
    with pytest.raises(InputError, match="channel from 0 to 2, got 3"):
        delta_prune(torch.zeros(1, 3, 4), 3)
    with pytest.raises(InputError, match="a layer or more, got none"):
        delta_opt([])
