"""Unpooling with ties: the twin's image on every route, whatever the order in which windows are heard."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nanops.functional import pooling, unpooling
from nanops.functional.unpooling import conservative_max_unpool1d, conservative_max_unpool2d
from tests.nanops.pooling_cases import FORMATS, INF, NAN, ROUTES, TABLE, cases, channels_last, numbers, same, take
from tests.reference import pooling_twin

OVERLAPS = ("nan", "value")


@pytest.fixture(params=ROUTES)
def route(request, monkeypatch):
    """Each route in turn."""
    take(monkeypatch, request.param)
    return request.param


def sizes(case):
    return {"kernel_size": case.kernel, "stride": case.stride, "padding": case.padding, "dilation": case.dilation}


def expect_twin(case, values, ties, overlap: str) -> None:
    """Assert that the unpooled image is the twin's, zeros with their sign."""
    y = case.function("conservative_max_unpool")(values, ties, **sizes(case), output_size=case.size, overlap=overlap)
    assert y.dtype == values.dtype
    taps = math.prod(case.kernel)
    for n in range(values.shape[0]):
        for c in range(values.shape[1]):
            entries = {
                place: (values[(n, c, *place)].item(), {t for t in range(taps) if ties[(n, c, *place)].item() >> t & 1})
                for place in np.ndindex(*values.shape[2:])
            }
            windows = (case.size, case.kernel, case.stride, case.padding, case.dilation)
            expected = torch.from_numpy(pooling_twin.unpool(entries, *windows, overlap=overlap)).to(y.dtype)
            assert same(y[n, c], expected)


@pytest.mark.parametrize("overlap", OVERLAPS)
@pytest.mark.parametrize("name", TABLE)
def test_the_image_is_the_twins(name, overlap, route):
    case = TABLE[name]
    x = numbers((1, 1 if case.dims > 2 else 2, *case.size), len(name), nans=0.1)
    expect_twin(case, *case.function("multi_max_pool")(x, *case.sizes), overlap)


@given(cases(most=6), st.integers(0, 2**32), st.sampled_from(list(FORMATS)), st.sampled_from(OVERLAPS), st.booleans(),
       st.booleans())  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_any_unpooling_is_the_twins(case, seed, dtype, overlap, last, hybrid):
    x = numbers((2, 2, *case.size), seed, dtype=dtype, nans=0.1)
    name = "hybrid_max_pool" if hybrid else "multi_max_pool"
    values, ties = case.function(name)(channels_last(x) if last else x, *case.sizes)
    expect_twin(case, values, ties, overlap)


@pytest.mark.parametrize("overlap", OVERLAPS)
@pytest.mark.parametrize("last", [False, True], ids=["contiguous", "channels-last"])
@pytest.mark.parametrize("name", TABLE)
def test_all_routes_and_thread_counts_give_the_same_bits(name, last, overlap, monkeypatch):
    case, threads = TABLE[name], torch.get_num_threads()
    monkeypatch.setattr("nanops.kernels.pooling.GRAIN", 1)
    x = numbers((2, 19, *case.size), 3, nans=0.1)
    values, ties = case.function("multi_max_pool")(channels_last(x) if last else x, *case.sizes)
    results = []
    for route in ROUTES:
        for count in (1, 2) if route != "torch" else (1,):
            with monkeypatch.context() as patch:
                try:
                    take(patch, route)
                except pytest.skip.Exception:
                    continue
                torch.set_num_threads(count)
                try:
                    unpool = case.function("conservative_max_unpool")
                    results.append(unpool(values, ties, **sizes(case), output_size=case.size, overlap=overlap))
                finally:
                    torch.set_num_threads(threads)
    assert all(same(results[0], y) and y.stride() == results[0].stride() for y in results[1:])
    assert results[0].is_contiguous() != last


@pytest.mark.parametrize("channels", [1, 3, 15, 16, 17, 40])
@pytest.mark.parametrize("stride", [1, 2])
def test_any_number_of_channels_is_unpooled_alike_in_both_orders(channels, stride, route):
    x = numbers((2, channels, 5, 9), channels, nans=0.1)
    values, ties = pooling.multi_max_pool2d(x, 2, stride)
    y = conservative_max_unpool2d(values, ties, 2, stride, output_size=(5, 9))
    assert same(y, conservative_max_unpool2d(channels_last(values), channels_last(ties), 2, stride, output_size=(5, 9)))
    assert same(y, conservative_max_unpool2d(channels_last(values), ties, 2, stride, output_size=(5, 9)))


def test_one_maximum_is_put_back_several_are_nan_and_the_rest_is_zero(route):
    x = torch.tensor([[[1.0, 2.0, 3.0, 3.0, NAN, NAN, NAN, -5.0]]])
    values, ties = pooling.multi_max_pool1d(x, 2)
    y = conservative_max_unpool1d(values, ties, 2)
    assert same(y, torch.tensor([[[0.0, 2.0, NAN, NAN, NAN, NAN, 0.0, -5.0]]]))


def test_a_hybrid_pooling_puts_nan_at_every_tied_position(route):
    x = torch.tensor([[[1.0, 2.0, 3.0, 3.0, 4.0, 4.0]]])
    y = conservative_max_unpool1d(*pooling.hybrid_max_pool1d(x, 2), 2)
    assert same(y, torch.tensor([[[0.0, 2.0, NAN, NAN, NAN, NAN]]]))


def test_a_window_that_is_nan_puts_nan_at_its_tied_position(route):
    values, ties = torch.tensor([[[NAN, 1.0]]]), torch.tensor([[[2, 1]]], dtype=torch.uint8)
    assert same(conservative_max_unpool1d(values, ties, 2), torch.tensor([[[0.0, NAN, 1.0, 0.0]]]))


@pytest.mark.parametrize(("overlap", "expected"), [("nan", [0.0, NAN, 2.0, 4.0]), ("value", [0.0, 3.0, 2.0, 4.0])])
@pytest.mark.parametrize("turned", [False, True])
def test_overlapping_windows_follow_the_stated_rule_in_any_order(overlap, expected, turned, route):
    # Windows (0, 1), (1, 2), (2, 3): NaN and 3 meet at position 1, 1 and 2 at position 2.
    values = torch.tensor([[[NAN, 3.0, 4.0]]])
    ties = torch.tensor([[[2, 1, 2]]], dtype=torch.uint8)
    more = torch.tensor([[[0.0, 1.0, 2.0]]]), torch.tensor([[[0, 2, 1]]], dtype=torch.uint8)
    values, ties = torch.cat([values, more[0]], 1), torch.cat([ties, more[1]], 1)
    mirror = torch.tensor([0, 2, 1, 3], dtype=torch.uint8)  # bits 0 and 1 change places
    if turned:
        values, ties = values.flip(2), mirror[ties.flip(2).long()]
    y = conservative_max_unpool1d(values, ties, 2, 1, overlap=overlap)
    y = y.flip(2) if turned else y
    wanted = torch.tensor([[[*expected[:2], 0.0, expected[3]], [0.0, 0.0, 2.0, 0.0]]])
    assert same(y, wanted)


# Traps of the published code.


def test_a_channel_whose_windows_all_tie_equally_is_nan(route):
    y = conservative_max_unpool2d(*pooling.multi_max_pool2d(torch.ones(2, 3, 4, 4), 2), 2)
    assert y.isnan().all()


def test_ties_do_not_depend_on_the_sample(route):
    x = torch.tensor([5.0, 5.0, 1.0, 5.0]).reshape(1, 1, 2, 2).expand(4, 1, 2, 2)
    y = conservative_max_unpool2d(*pooling.multi_max_pool2d(x, 2), 2)
    assert same(y, torch.tensor([NAN, NAN, 0.0, NAN]).reshape(1, 1, 2, 2).expand(4, 1, 2, 2))


def test_a_window_of_nans_comes_back_as_nans(route):
    y = conservative_max_unpool2d(*pooling.multi_max_pool2d(torch.full((1, 1, 4, 4), NAN), 2), 2)
    assert y.isnan().all()


def test_odd_sizes_come_back(route):
    x = torch.rand(1, 2, 5, 7)
    for ceil_mode, rest in ((False, 0), (True, 1)):
        values, ties = pooling.multi_max_pool2d(x, 2, ceil_mode=ceil_mode)
        y = conservative_max_unpool2d(values, ties, 2, output_size=(5, 7))
        assert y.shape == x.shape
        assert bool((y[..., 4, :] != 0).any()) == bool(rest)


def test_a_genuine_infinity_comes_back(route):
    x = torch.tensor([[[INF, 1.0, -INF, NAN]]])
    y = conservative_max_unpool1d(*pooling.multi_max_pool1d(x, 2), 2)
    assert same(y, torch.tensor([[[INF, 0.0, -INF, 0.0]]]))


def test_input_and_random_state_are_left_alone(route):
    values, ties = pooling.multi_max_pool2d(numbers((2, 3, 8, 10), 2), 2)
    before, state = (values.clone(), ties.clone()), torch.get_rng_state()
    conservative_max_unpool2d(values, ties, 2)
    assert same(values, before[0])
    assert same(ties, before[1])
    assert torch.equal(torch.get_rng_state(), state)


def test_each_sample_and_each_channel_is_unpooled_alone(route):
    values, ties = pooling.multi_max_pool2d(numbers((3, 17, 7, 8), 2), 3, 2)
    y = conservative_max_unpool2d(channels_last(values), ties, 3, 2)
    for n in range(3):
        for c in range(17):
            assert same(y[n, c], conservative_max_unpool2d(values[n, c : c + 1], ties[n, c : c + 1], 3, 2)[0])


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_single_images_and_empty_batches(dims, route):
    x = numbers((2, 3, 4, 6, 8)[: dims + 2], 1)
    unpool = getattr(unpooling, f"conservative_max_unpool{dims}d")
    values, ties = getattr(pooling, f"multi_max_pool{dims}d")(x, 2)
    assert same(unpool(values[0], ties[0], 2), unpool(values, ties, 2)[0])
    assert same(unpool(values, ties, 2), unpool(values, ties, 2, output_size=x.shape))
    assert unpool(values[:0], ties[:0], 2).shape == (0, *x.shape[1:])


@pytest.mark.parametrize("name", [n for n, c in TABLE.items() if c.stride >= c.kernel and max(c.dilation) == 1])
def test_without_ties_what_comes_back_is_torchs(name, route):
    case, g = TABLE[name], torch.Generator().manual_seed(1)
    x = torch.randperm(2 * math.prod(case.size), generator=g).reshape(1, 2, *case.size).float() + 1
    stock = {1: torch.nn.functional.max_unpool1d, 2: torch.nn.functional.max_unpool2d,
             3: torch.nn.functional.max_unpool3d}[case.dims]  # fmt: skip
    values, ties = case.function("multi_max_pool")(x, *case.sizes)
    _, indices = case.function("aggressive_max_pool")(x, *case.sizes)
    y = case.function("conservative_max_unpool")(values, ties, **sizes(case), output_size=case.size)
    expected = torch.zeros(1, 2, x[0, 0].numel()).scatter(2, indices.flatten(2), values.flatten(2)).reshape(x.shape)
    assert same(y, expected)
    if case.dims == 2 and max(case.padding) == 0 and not case.ceil_mode:
        assert same(y, stock(values, indices, case.kernel, case.stride, output_size=case.size))
