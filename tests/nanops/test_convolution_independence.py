"""What may not matter: the other samples, channels and groups, threads, and calls at the same time."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torch.nn.functional as T

from nanops import functional as F
from tests.nanops.convolutions import INSTRUCTIONS, ROUTES, needs_kernels, normal_numbers, on, threads, with_nan
from tests.nanops.images import same_bits

routes = pytest.mark.parametrize("route", ROUTES)
LAYERS = {
    "plain": ((2, 6, 12, 11), (5, 6, 3, 3), {"padding": 1}),
    "wide": ((2, 8, 9, 9), (70, 8, 3, 3), {"padding": 2, "dilation": 2}),
    "strided": ((2, 6, 12, 11), (8, 6, 2, 3), {"stride": 2}),
    "grouped": ((2, 6, 10, 10), (4, 3, 3, 3), {"groups": 2, "padding": 1}),
    "depthwise": ((2, 6, 10, 10), (6, 1, 3, 3), {"groups": 6, "padding": 1}),
    "pointwise": ((2, 6, 10, 10), (16, 6, 1, 1), {}),
    "volume": ((2, 4, 5, 6, 7), (16, 4, 3, 3, 3), {"padding": 1}),
}
layers = pytest.mark.parametrize("layer", LAYERS)
patterns = pytest.mark.parametrize("pattern", ["iid", "pixels", "cluster"])


def case(layer, pattern="iid", samples=2):
    shape, weight, options = LAYERS[layer]
    x = with_nan(normal_numbers(samples, *shape[1:]), pattern, rate=0.4)
    operator = F.nan_conv3d if len(shape) == 5 else F.nan_conv2d
    w = normal_numbers(*weight, seed=1)

    def run(image=x, weight=w, **more):
        return operator(image, weight, **(options | {"return_skipped": True} | more))

    return x, w, run


@routes
@layers
@patterns
def test_a_sample_is_computed_as_if_it_were_alone(layer, pattern, route):
    x, _, run = case(layer, pattern, samples=3)
    with on(route):
        y, skipped = run()
        for i in range(3):
            alone, where = run(x[i : i + 1])
            assert torch.equal(where[0], skipped[i])
            assert torch.allclose(alone[0], y[i], rtol=1e-5, atol=2e-5, equal_nan=True)


@routes
@layers
def test_nan_in_one_sample_leaves_the_values_of_the_others(layer, route):
    x, w, run = case(layer)
    x[1] = normal_numbers(*x[1].shape, seed=7)
    with on(route):
        y, _ = run(x)
    expected = (T.conv3d if x.ndim == 5 else T.conv2d)(x[1:], w, **LAYERS[layer][2])
    assert torch.allclose(y[1:], expected, rtol=1e-5, atol=2e-5)


@routes
@pytest.mark.parametrize("layer", ["grouped", "depthwise"])
def test_a_group_is_computed_as_if_it_were_alone(layer, route):
    x, w, run = case(layer)
    groups = LAYERS[layer][2]["groups"]
    with on(route):
        y, skipped = run()
        chunks = zip(x.chunk(groups, 1), w.chunk(groups), y.chunk(groups, 1), strict=True)
        for g, (part, weight, own) in enumerate(chunks):
            alone, where = run(part, weight, groups=1)
            assert torch.equal(where[:, 0], skipped[:, g])
            assert torch.allclose(alone, own, rtol=1e-5, atol=2e-5, equal_nan=True)


@routes
@layers
def test_an_output_channel_depends_on_its_own_weights_only(layer, route):
    x, w, run = case(layer)
    changed = w.clone()
    changed[0] = 3.0
    with on(route):
        y, other = run()[0], run(x, changed)[0]
    assert same_bits(y[:, 1:], other[:, 1:])


@needs_kernels
@layers
@patterns
@pytest.mark.parametrize("fill", ["mean", "max_normal"])
def test_threads_change_no_bit(layer, pattern, fill):
    _, _, run = case(layer, pattern)

    def result():
        return run(fill=fill, generator=torch.Generator().manual_seed(1), threshold=0.7)[0]

    for route in INSTRUCTIONS:
        with on(route):
            with threads(1):
                one = result()
            for count in (2, 3):
                with threads(count):
                    assert same_bits(one, result())


@layers
def test_calls_from_several_threads_give_the_same_bits(layer):
    x, _, run = case(layer)
    images = [x * (i + 1) for i in range(8)]
    expected = [run(image) for image in images]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(3):
            for (y, where), (again, also) in zip(expected, pool.map(run, images), strict=True):
                assert same_bits(y, again) and torch.equal(where, also)


@needs_kernels
@layers
@patterns
def test_instruction_sets_agree(layer, pattern):
    _, _, run = case(layer, pattern)
    found = []
    for route in INSTRUCTIONS:
        with on(route):
            found.append(run())
    for y, skipped in found[1:]:
        assert torch.equal(skipped, found[0][1])
        assert torch.allclose(y, found[0][0], rtol=1e-5, atol=2e-5, equal_nan=True)


@routes
def test_transposed_samples_groups_and_threads(route):
    x, w = with_nan(normal_numbers(3, 4, 6, 5), "iid", rate=0.4), normal_numbers(4, 3, 3, 3, seed=1)
    options = {"stride": 2, "padding": 1, "groups": 2, "return_skipped": True}
    with on(route):
        y, skipped = F.nan_conv_transpose2d(x, w, **options)
        with threads(1):
            one, _ = F.nan_conv_transpose2d(x, w, **options)
        alone, where = F.nan_conv_transpose2d(x[2:], w, **options)
        group, there = F.nan_conv_transpose2d(x[:, 2:], w[2:], **options | {"groups": 1})
    assert same_bits(y, one) or route == "torch"
    assert torch.equal(where, skipped[2:]) and torch.equal(there, skipped[:, 1:])
    assert torch.allclose(alone, y[2:], rtol=1e-5, atol=2e-5, equal_nan=True)
    assert torch.allclose(group, y[:, 3:], rtol=1e-5, atol=2e-5, equal_nan=True)
