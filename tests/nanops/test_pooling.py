"""Max pooling with ties: torch's values, the twin's ties, on every route, in every format and layout."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from nanops.functional import pooling
from nanops.tolerance import EXACT, PAPER, PUBLISHED_CODE, Tolerance
from tests.nanops.pooling_cases import (
    FORMATS,
    INF,
    NAN,
    ROUTES,
    TABLE,
    TOLERANCES,
    Case,
    cases,
    channels_last,
    clean,
    numbers,
    same,
    take,
)
from tests.reference import pooling_twin

STOCK = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
FUNCTIONS = ("aggressive_max_pool", "multi_max_pool", "hybrid_max_pool")


@pytest.fixture(params=ROUTES)
def route(request, monkeypatch):
    """Each route in turn."""
    take(monkeypatch, request.param)
    return request.param


def bitmap(word: int, taps: int) -> set[int]:
    return {t for t in range(taps) if word >> t & 1}


def expect_twin(case: Case, x: torch.Tensor, max_ties: int = 1) -> None:
    """Assert that the three poolings of x (N, C, ...) are the twin's."""
    got = {}
    for name in FUNCTIONS:
        options = {} if name == "multi_max_pool" else {"max_ties": max_ties}
        got[name] = case.function(name)(x, *case.sizes, tolerance=case.tolerance, **options)
    how = {"name": FORMATS[x.dtype], "kind": case.tolerance.kind, "amount": case.tolerance.value}
    for n in range(x.shape[0]):
        for c in range(x.shape[1]):
            image = x[n, c].double().numpy()
            for limit, names in ((max_ties, FUNCTIONS[::2]), (10**9, FUNCTIONS[1:2])):
                for place, (value, index, near) in pooling_twin.pool(image, *case.sizes, **how, max_ties=limit).items():
                    for name in names:
                        v, second = (t[(n, c, *place)] for t in got[name])
                        assert np.array_equal(v.item(), value, equal_nan=True), (name, place)
                        if name == "aggressive_max_pool":
                            assert second.item() == index, (name, place)
                        else:
                            assert bitmap(second.item(), math.prod(case.kernel)) == near, (name, place)


@pytest.mark.parametrize("name", TABLE)
def test_values_indices_and_ties_are_those_of_the_twin(name, route):
    case = TABLE[name]
    if case.dims < 3 or name == "cubes-odd":
        x = numbers((1, 2, *case.size), len(name))
        expect_twin(case, x)
    else:
        expect_twin(case, numbers((1, 1, *case.size), len(name)))


@given(cases(), st.integers(0, 2**32), st.sampled_from(list(FORMATS)), st.integers(1, 3), st.booleans())
@settings(max_examples=60, deadline=None)
def test_any_pooling_is_the_twins(case, seed, dtype, max_ties, last):
    x = numbers((2, 2, *case.size), seed, dtype=dtype)
    expect_twin(case, channels_last(x) if last else x, max_ties)


@pytest.mark.parametrize("tolerance", TOLERANCES)
@pytest.mark.parametrize("dtype", FORMATS, ids=FORMATS.values())
def test_each_tolerance_ties_in_each_format_what_the_twin_says(dtype, tolerance, route):
    case = Case((6, 36), (2, 2), (2, 2), (0, 0), (1, 1), tolerance=TOLERANCES[tolerance])
    expect_twin(case, numbers((1, 2, 6, 36), 5, dtype=dtype))
    tiny = numbers((1, 1, 6, 36), 6, dtype=torch.float64) * torch.finfo(dtype).tiny / 2
    expect_twin(case, tiny.to(dtype))
    neighbours = (1 + torch.randint(0, 6, (1, 1, 6, 36), generator=torch.Generator().manual_seed(1))
                  * torch.finfo(dtype).eps).to(dtype)  # fmt: skip
    expect_twin(case, neighbours)


@pytest.mark.parametrize("last", [False, True], ids=["contiguous", "channels-last"])
@pytest.mark.parametrize("name", TABLE)
def test_all_routes_and_thread_counts_give_the_same_bits(name, last, monkeypatch):
    case, threads = TABLE[name], torch.get_num_threads()
    monkeypatch.setattr("nanops.kernels.pooling.GRAIN", 1)
    x = numbers((2, 19, *case.size), 3)
    x = channels_last(x) if last else x
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
                    results.append([t for f in FUNCTIONS for t in case.function(f)(x, *case.sizes)])
                finally:
                    torch.set_num_threads(threads)
    assert len(results) >= 2 or route == "torch"
    for other in results[1:]:
        assert all(same(a, b) and a.stride() == b.stride() for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize("channels", [1, 3, 15, 16, 17, 40])
def test_any_number_of_channels_is_pooled_alike_in_both_orders(channels, route):
    x = numbers((2, channels, 5, 9), channels)
    for name in FUNCTIONS:
        f = getattr(pooling, f"{name}2d")
        for a, b in zip(f(x, 3, 2, 1), f(channels_last(x), 3, 2, 1), strict=True):
            assert same(a, b)


@pytest.mark.parametrize("last", [False, True], ids=["contiguous", "channels-last"])
@pytest.mark.parametrize("dtype", FORMATS, ids=FORMATS.values())
@pytest.mark.parametrize("name", TABLE)
def test_without_nan_values_are_torchs_bit_for_bit_and_clear_indices_too(name, dtype, last):
    case = TABLE[name]
    x = clean((2, 17, *case.size), 4, dtype)
    x = channels_last(x) if last else x
    sizes = (case.kernel, case.stride, case.padding, case.dilation, case.ceil_mode)
    expected, places = STOCK[case.dims](x, *sizes, return_indices=True)
    values, _ = case.function("multi_max_pool")(x, *sizes)
    assert same(values, expected)
    values, indices = case.function("aggressive_max_pool")(x, *sizes)
    clear = ~values.isnan()
    assert clear.any()
    assert torch.equal(indices[clear], places[clear])
    assert same(values, torch.where(clear, expected, torch.full_like(expected, NAN)))
    values, indices = case.function("aggressive_max_pool")(x, *sizes, max_ties=10**6)
    assert same(values, expected)
    assert torch.equal(indices, places)


@given(cases(most=6), st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_without_nan_any_pooling_has_torchs_values(case, seed):
    x = clean((2, 3, *case.size), seed)
    expected = STOCK[case.dims](x, case.kernel, case.stride, case.padding, case.dilation, case.ceil_mode)
    assert same(case.function("multi_max_pool")(x, *case.sizes)[0], expected)


def test_the_first_of_equal_zeros_gives_its_sign(route):
    x = torch.tensor([[[0.0, -0.0, -0.0, 0.0]]])
    values, _ = pooling.multi_max_pool1d(x, 2)
    assert torch.equal(values.signbit(), torch.tensor([[[False, True]]]))


def test_infinities_are_values(route):
    x = torch.tensor([[[INF, 1.0, INF, INF, -INF, -INF, -INF, NAN, INF, NAN, -INF, 3.0]]])
    values, ties = pooling.multi_max_pool1d(x, 2, tolerance=Tolerance("absolute", 1e30))
    assert values.tolist() == [[[INF, INF, -INF, -INF, INF, 3.0]]]
    assert ties.tolist() == [[[1, 3, 3, 1, 1, 2]]]
    values, indices = pooling.aggressive_max_pool1d(x, 2)
    assert same(values, torch.tensor([[[INF, NAN, NAN, -INF, INF, 3.0]]]))
    assert indices.tolist() == [[[0, 2, 4, 6, 8, 11]]]


def test_relative_tolerance_never_reaches_infinity(route):
    largest = torch.finfo(torch.float32).max
    x = torch.tensor([[[largest, -INF, largest, -largest]]])
    _, ties = pooling.multi_max_pool1d(x, 2, tolerance=Tolerance("relative", 10))
    assert ties.tolist() == [[[1, 3]]]


@pytest.mark.parametrize("value", [0.7, 0.9, 0.1])
def test_an_absolute_tolerance_is_compared_as_the_number_it_is(value, route):
    near = np.float32(value)
    x = torch.tensor([[[0.0, -float(near)]]])
    _, ties = pooling.multi_max_pool1d(x, 2, tolerance=Tolerance("absolute", value))
    assert ties.item() == (3 if float(near) < value else 1)


def test_numbers_far_apart_on_both_sides_of_zero_do_not_tie(route):
    x = torch.tensor([[[2.0, -2.0, 1e300, -1e300]]], dtype=torch.float64)
    assert pooling.multi_max_pool1d(x, 2, tolerance=EXACT)[1].tolist() == [[[1, 1]]]
    assert pooling.multi_max_pool1d(x, 2, tolerance=Tolerance("ulps", 2**62))[1].tolist() == [[[1, 1]]]


def test_ulps_are_those_of_the_input(route):
    one = torch.ones(1, 1, 2, dtype=torch.bfloat16)
    one[..., 1] += torch.finfo(torch.bfloat16).eps
    for dtype, tied in ((torch.bfloat16, 3), (torch.float32, 2), (torch.float64, 2)):
        assert pooling.multi_max_pool1d(one.to(dtype), 2, tolerance=Tolerance("ulps", 1))[1].item() == tied


# Traps of the published code.


def test_a_channel_whose_windows_all_tie_equally_is_nan(route):
    assert pooling.aggressive_max_pool2d(torch.ones(1, 3, 4, 4), 2)[0].isnan().all()
    assert (pooling.multi_max_pool2d(torch.ones(1, 3, 4, 4), 2)[1] == 15).all()


def test_a_window_of_nans_is_nan_and_not_minus_infinity(route):
    x = torch.full((1, 1, 3, 3), NAN)
    values, ties = pooling.multi_max_pool2d(x, 2, 2, 1)
    assert values.isnan().all()
    assert ties.tolist() == [[[[8, 12], [10, 15]]]]  # the taps inside the image
    values, indices = pooling.aggressive_max_pool2d(x, 2, 2, 1)
    assert values.isnan().all()
    assert indices.tolist() == [[[[0, 1], [3, 4]]]]


@pytest.mark.parametrize("size", [(5, 7), (3, 33), (1, 1)])
def test_odd_sizes_are_pooled(size, route):
    values, _ = pooling.multi_max_pool2d(torch.rand(2, 3, *size), 2, ceil_mode=True)
    assert values.shape == (2, 3, (size[0] + 1) // 2, (size[1] + 1) // 2)


def test_an_ambiguous_window_names_its_own_first_position(route):
    x = torch.ones(1, 1, 4, 36)
    _, indices = pooling.aggressive_max_pool2d(x, 2)
    assert torch.equal(indices[0, 0, 1], torch.arange(0, 36, 2) + 72)
    _, indices = pooling.aggressive_max_pool2d(x, 3, 2, 1)
    assert indices[0, 0, 0, 0] == 0
    assert indices[0, 0, 1, 0] == 36


def test_each_sample_and_each_channel_is_pooled_alone(route):
    x = numbers((3, 5, 9, 34), 8)
    for layout in (lambda t: t, channels_last):
        for name in FUNCTIONS:
            f = getattr(pooling, f"{name}2d")
            together = f(layout(x), 2)
            for n in range(3):
                for c in range(5):
                    alone = f(x[n : n + 1, c : c + 1], 2)
                    assert all(same(a[n, c], b[0, 0]) for a, b in zip(together, alone, strict=True))


def test_max_ties_values_may_tie(route):
    x = torch.tensor([[[[1.0, 1.0, 1.0, 1.0], [1.0, 0.0, 0.0, 0.0]]]])
    for allowed, clear in ((1, [False, False]), (2, [False, True]), (3, [True, True])):
        for name in ("aggressive_max_pool2d", "hybrid_max_pool2d"):
            values, _ = getattr(pooling, name)(x, 2, max_ties=allowed)
            assert (~values.isnan()).tolist() == [[[clear]]]


# What a call must leave alone, and where it must work.


@pytest.mark.parametrize("name", FUNCTIONS)
def test_input_and_random_state_are_left_alone(name, route):
    x = numbers((2, 3, 8, 10), 2)
    before, state = x.clone(), torch.get_rng_state()
    getattr(pooling, f"{name}2d")(x, 2)
    assert same(x, before)
    assert torch.equal(torch.get_rng_state(), state)


LAYOUTS = {
    "contiguous": lambda x: x,
    "last": channels_last,
    "sliced": lambda x: channels_last(x)[..., ::2],
    "rows": lambda x: x[..., 1:],
    "transposed": lambda x: x.transpose(0, 1),
    "expanded": lambda x: x[:1].expand(3, *x.shape[1:]),
    "one channel": lambda x: channels_last(x)[:, :1],
    "turned": lambda x: x.transpose(-1, -2) if x.dim() > 3 else x,
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_results_are_stored_as_torch_stores_its_own(dims, layout, route):
    x = LAYOUTS[layout](numbers((2, 3, 7, 6, 8)[: dims + 2], 1))
    expected, _ = STOCK[dims](x, 2, return_indices=True)
    for name in FUNCTIONS:
        results = getattr(pooling, f"{name}{dims}d")(x, 2)
        dense = getattr(pooling, f"{name}{dims}d")(x.contiguous(), 2)
        for r, d in zip(results, dense, strict=True):
            assert r.stride() == expected.stride()
            assert same(r, d)


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_a_single_image_is_pooled_as_a_batch_of_one(dims, route):
    x = numbers((1, 4, 7, 6, 8)[: dims + 2], 1)
    for layout in (lambda t: t, channels_last):
        x = layout(x)
        for name in FUNCTIONS:
            f = getattr(pooling, f"{name}{dims}d")
            for a, b in zip(f(x[0], 2), f(x, 2), strict=True):
                assert same(a, b[0])
            assert f(x[0], 2)[0].stride() == STOCK[dims](x[0], 2).stride()


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_an_empty_batch_gives_an_empty_batch(dims, route):
    x = torch.empty((0, 4, 7, 6, 8)[: dims + 2])
    values, ties = getattr(pooling, f"multi_max_pool{dims}d")(x, 2)
    assert values.shape == ties.shape == STOCK[dims](x, 2).shape


@pytest.mark.parametrize(("taps", "dtype"), [(8, torch.uint8), (9, torch.int16), (16, torch.int16), (17, torch.int32),
                                             (32, torch.int32), (33, torch.int64), (64, torch.int64)])  # fmt: skip
def test_ties_take_the_least_integer_with_enough_bits(taps, dtype, route):
    _, ties = pooling.multi_max_pool1d(torch.zeros(1, 1, taps), taps)
    assert ties.dtype == dtype
    assert bitmap(ties.item(), taps) == set(range(taps))


def test_a_window_of_many_taps_can_be_aggressive(route):
    x = torch.arange(121.0).reshape(1, 1, 11, 11)
    values, indices = pooling.aggressive_max_pool2d(x, 11)
    assert (values.item(), indices.item()) == (120, 120)


def test_a_window_in_the_padding_alone_is_torchs_and_ties_nowhere(route):
    x = torch.tensor([[[1.0, 2.0]]])
    expected = F.max_pool1d(x, 2, 1, 1, 3)
    assert expected.isneginf().any()
    values, ties = pooling.multi_max_pool1d(x, 2, 1, 1, 3)
    assert same(values, expected)
    assert (ties[expected.isneginf()] == 0).all()
    assert pooling.aggressive_max_pool1d(x, 2, 1, 1, 3)[1].tolist() == [[[0]]]


def test_the_presets_are_those_of_the_paper_and_of_its_code():
    assert (PAPER.kind, PAPER.value) == ("absolute", 1e-7)
    assert (PUBLISHED_CODE.kind, PUBLISHED_CODE.value) == ("isclose", 1e-7)
    assert (EXACT.kind, EXACT.value) == ("ulps", 0)
