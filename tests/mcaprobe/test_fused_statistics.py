"""Do the compiled sweeps find what the torch operations find: the same bits of moments, the same counts and classes?"""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import mcaprobe
from mcaprobe import fused
from mcaprobe.lane_blocks import LaneBlocks
from mcaprobe.reducer import Reducer
from mcaprobe.scores import COMBINATIONS, LOWEST, PER_BIT, raw_score
from mcaprobe.statistics import Class, Estimator, IndexMoments, Moments, classes, significant_bits, snr_below_one
from mcaprobe.summary import Digest, channel_map, digest, summarize
from mcaprobe.sweep import block_moments, sweep, sweep_samples
from tests.mcaprobe import small_models as models
from tests.mcaprobe.swept_layers import BUILT, by_torch, cut, expect_same, layer, masks, same_bytes, using
from tests.reference import layer_rows, two_pass

pytestmark = pytest.mark.skipif(not BUILT, reason="no compiled kernels here")

SPECIALS = [math.nan, math.inf, -math.inf, 0.0, -0.0, 1e-45, -1e-45, 1e-38, 3.4e38, -3.4e38, 1.0, -1.0]
FINITE = st.floats(allow_nan=False, allow_infinity=False, width=32)
ANY = st.one_of(FINITE, st.sampled_from(SPECIALS))


@settings(max_examples=150, deadline=None)
@given(st.data(), st.integers(2, 12), st.integers(1, 6), st.sampled_from([1, 15, 37]), st.sampled_from([FINITE, ANY]))
def test_moments_have_the_bits_of_the_torch_operations(data, n, block, size, values):
    drawn = data.draw(st.lists(st.lists(values, min_size=n, max_size=n), min_size=1, max_size=4))
    samples = torch.tensor(np.resize(np.array(drawn, dtype=np.float32).T, (n, len(drawn) * size)))
    reference = torch.tensor(np.resize(np.array(data.draw(st.lists(ANY, min_size=1, max_size=3))), samples.shape[1]))
    reference = reference.float()
    blocks = cut(samples, block)
    expected = by_torch(reference, blocks)
    for name in BUILT:
        with using(name):
            expect_same(block_moments(reference, blocks, 1), expected)
            streamed = [Moments.empty(reference) for _ in blocks]
            for moments, part in zip(streamed, blocks, strict=True):
                for sample in part:
                    moments.update(sample)
            for moments in streamed[1:]:
                streamed[0].merge(moments)
            expect_same(streamed[0], expected)
    for i in range(len(drawn)):
        mean, m2, low, high = two_pass.moments([float(v) for v in samples[:, i]])
        scale = max((abs(float(v)) for v in samples[:, i] if math.isfinite(v)), default=0.0)
        assert float(expected.mean[i]) == pytest.approx(mean, rel=1e-12, abs=1e-14 * scale)
        assert float(expected.m2[i]) == pytest.approx(m2, rel=1e-9, abs=(1e-13 * scale) ** 2)
        assert (float(expected.minimum[i]), float(expected.maximum[i])) == (low, high)


@pytest.mark.parametrize("size", [1, 31, 33, 4095, 4097, 32_769])
@pytest.mark.parametrize("broken", [False, True], ids=["finite", "broken"])
def test_layers_of_any_size_have_the_bits_of_the_torch_operations(size, broken):
    reference, samples = layer((size,), 12, seed=size, broken=broken)
    blocks = cut(samples, 5)
    expected = by_torch(reference, blocks)
    for name, threads in itertools.product(BUILT, (1, 2)):
        with using(name):
            expect_same(block_moments(reference, blocks, threads), expected)


@pytest.mark.parametrize("name", BUILT)
def test_the_first_of_zeros_of_both_signs_is_the_extreme(name):
    samples = torch.tensor([[-0.0, 0.0], [0.0, -0.0]]).repeat_interleave(20, dim=1)
    for used in (name, None):
        with using(used):
            m = Moments.empty(samples[0]).update(samples[0]).update(samples[1])
        assert same_bytes(m.minimum, samples[0]) and same_bytes(m.maximum, samples[0])


@pytest.mark.parametrize("name", BUILT)
def test_lanes_in_another_memory_order_and_other_types_are_taken(name):
    reference, samples = layer((1, 6, 9, 11))
    turned = [s.to(memory_format=torch.channels_last) for s in samples]
    expected = by_torch(reference, [turned])
    with using(name):
        expect_same(block_moments(reference.to(memory_format=torch.channels_last), [turned], 1), expected)
        for dtype in (torch.float16, torch.bfloat16, torch.float64):
            assert block_moments(reference.to(dtype), [[s.to(dtype) for s in samples]], 1) is None
        assert block_moments(reference, [[samples[0], samples[1].double()]], 1) is None
        assert block_moments(reference, [[samples[0], samples[1][:, :2]]], 1) is None


def near_edges(scores: torch.Tensor, varies: torch.Tensor) -> int:
    """How many finite scores lie so close to an edge, without being on it, that a rounding may move them across."""
    scaled = scores[varies & torch.isfinite(scores)].sub(LOWEST).mul(PER_BIT)
    distance = (scaled - scaled.round()).abs()
    return int(((distance < 1e-9 * PER_BIT) & (distance > 0)).sum())


def expect_close(found: Digest, expected: Digest, m: Moments, regions: dict[str, torch.Tensor]) -> None:
    for mine, theirs in zip(found.rows, expected.rows, strict=True):
        for name, value in theirs.as_dict().items():
            close = pytest.approx(value, rel=1e-12) if isinstance(value, float) else value
            assert (mine.as_dict()[name]) == close, name
            if name.startswith("share_"):
                assert mine.as_dict()[name] == value, name
    a, b = found.histogram, expected.histogram
    assert (a.n, a.shape, a.regions) == (b.n, b.shape, b.regions)
    assert torch.equal(a.fixed, b.fixed) and torch.equal(a.low_snr, b.low_snr)
    varies = m.minimum < m.maximum
    for i, combination in enumerate(COMBINATIONS):
        moved = int((a.counts[:, i] - b.counts[:, i]).abs().sum())
        slack = near_edges(raw_score(m, *combination), varies) if combination[0] == "cnh" else 0
        assert moved <= 2 * len(a.regions) * slack, combination
    assert slack < m.reference.numel()
    assert (found.picture is None) == (expected.picture is None)
    if found.picture is not None:
        assert torch.allclose(found.picture[0], expected.picture[0], rtol=2e-7, atol=0, equal_nan=True)
        assert torch.equal(found.picture[1], expected.picture[1]) and torch.equal(found.picture[2], expected.picture[2])


@pytest.mark.parametrize("name", BUILT)
@pytest.mark.parametrize(("method", "reference", "error"), COMBINATIONS)
def test_bits_and_classes_are_those_of_the_torch_operations(name, method, reference, error):
    ieee, samples = layer((1, 24, 31, 33), seed=3)
    estimator = Estimator(method, reference, error)
    m = by_torch(ieee, cut(samples, 5))
    with using(name):
        swept = sweep(m, estimator, {})
    bits, codes = significant_bits(m, estimator).reshape(-1), classes(m, estimator).reshape(-1)
    assert same_bytes(swept.codes, codes) and len(set(codes.tolist())) == len(Class)
    numbers = codes.numpy() == Class.NUMBER
    # The terms that cancel are up to 150 bits: their rounding is what may differ.
    assert np.allclose(swept.bits[numbers], bits.numpy()[numbers], rtol=1e-12, atol=2e-13)
    if method == "general":
        assert same_bytes(swept.bits[numbers], bits.numpy()[numbers])
    assert swept.low_snr[0] == int(snr_below_one(m).sum())
    assert swept.sums[0] == pytest.approx(math.fsum(bits.numpy()[numbers]), rel=1e-12)


@pytest.mark.parametrize("shape", [(1, 1), (1, 3, 31), (1, 24, 40, 33), (1, 5, 7, 9, 11), (2, 3, 8, 9)], ids=str)
@pytest.mark.parametrize("estimator", [Estimator(), Estimator("general", "mean", "absolute"),
                                       Estimator("cnh", "mean", "absolute", 0.999, 0.99)], ids=str)  # fmt: skip
@pytest.mark.parametrize("broken", [False, True], ids=["finite", "broken"])
def test_all_products_of_a_layer_are_those_of_the_torch_operations(shape, estimator, broken):
    reference, samples = layer(shape, seed=sum(shape), broken=broken)
    regions = masks(*shape[2:]) if len(shape) > 2 else {}
    m = by_torch(reference, cut(samples, 5))
    with using(None):
        expected = digest(m, estimator, regions, layer="a", operator="b", picture=shape[0] == 1)
    for name in BUILT:
        with using(name):
            found = digest(m, estimator, regions, layer="a", operator="b", picture=shape[0] == 1)
            assert sweep(m, estimator, regions) is not None
        expect_close(found, expected, m, regions)


@pytest.mark.parametrize("n", [2, 3, 5, 7, 12])
def test_neither_library_nor_threads_nor_the_way_of_the_samples_changes_a_bit(n):
    reference, samples = layer((1, 3, 97, 131), n, seed=n)
    regions, blocks = masks(97, 131), [range(i, min(i + 5, n)) for i in range(0, n, 5)]
    m = by_torch(reference, cut(samples, 5))
    found = []
    for name, threads in itertools.product(BUILT, (1, 2)):
        with using(name), Reducer(threads) as reducer:
            lanes = LaneBlocks(reference, dict(enumerate(samples)), blocks, reducer)
            for source in (lanes, m):
                found.append(digest(source, Estimator(), regions, picture=True, keep=True, threads=threads))
            found.append(digest(lanes, Estimator(), regions, picture=True, threads=threads))
            expect_same(lanes.total(), m)
            for block, part in zip(lanes, cut(samples, 5), strict=True):
                expect_same(block, by_torch(reference, [part]))
    for other in found:
        assert other.rows == found[0].rows
        for key, value in other.histogram.state().items():
            assert torch.equal(value, found[0].histogram.state()[key]), key
        assert all(map(same_bytes, other.picture, found[0].picture))
        if other.moments is not None:
            expect_same(other.moments, m)
    assert [other.moments is None for other in found] == [False, False, True] * (len(found) // 3)


@pytest.mark.parametrize("share", [0.0, 0.05, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("method", ["cnh", "general"])
@pytest.mark.parametrize("count", [1, 2, 500, 9000])
def test_percentiles_are_numpys_to_the_last_bit(share, method, count):
    reference, samples = layer((1, count), seed=7 + count)
    mask = {"some": torch.rand(count, generator=torch.Generator().manual_seed(1)) < 0.3, "none": torch.zeros(count) > 0}
    swept = sweep_samples(reference, cut(samples, 5), Estimator(method), mask, 1, False)
    for region, found in zip(swept.regions, swept.percentiles(share), strict=True):
        inside = mask.get(region, torch.ones(count, dtype=torch.bool)).numpy()
        numbers = swept.bits[inside & (swept.codes == Class.NUMBER)]
        assert found == (np.quantile(numbers, share) if numbers.size else None)


@pytest.mark.parametrize("name", BUILT)
@pytest.mark.parametrize("share", [0.0, 0.05, 0.5, 0.9, 1.0])
def test_percentiles_among_scores_on_the_edges_of_bins_are_numpys(name, share):
    """Scores that are multiples of 1/2, less a cost that moves the edges to where roundings decide."""
    count = 40_000
    generator = torch.Generator().manual_seed(9)
    reference = 2.0 ** torch.randint(-3, 4, (1, count), generator=generator)
    step = 2.0 ** -torch.randint(1, 20, (1, count), generator=generator)
    samples = torch.stack([reference, reference * (1 + step)] * 5)
    mask = {"some": torch.rand(count, generator=generator) < 0.3}
    for estimator in (Estimator(), Estimator(reference="mean", error="absolute"), Estimator("general")):
        with using(name):
            swept = sweep_samples(reference, cut(samples, 5), estimator, mask, 2, False)
        for inside, found in zip((torch.ones(count) > 0, mask["some"]), swept.percentiles(share), strict=True):
            assert found == np.quantile(swept.bits[inside.numpy() & (swept.codes == Class.NUMBER)], share)


@pytest.mark.parametrize("n", [3, 5, 6, 7, 9, 10, 11, 12, 100, 641, 32_767])
def test_means_and_variances_are_divided_to_the_last_bit(n):
    """The kernels multiply with a reciprocal and correct: differences of every size, by every kind of count."""
    generator = torch.Generator().manual_seed(n)
    size = 64
    scale = 10 ** (torch.rand(size, generator=generator) * 70 - 40)
    samples = [scale * torch.randn(size, generator=generator) for _ in range(n)]
    expected = by_torch(samples[0], [samples])
    for name in BUILT:
        with using(name):
            expect_same(block_moments(samples[0], [samples], 1), expected)


def test_room_that_was_handed_on_is_used_for_the_next_layer():
    results = []
    for size in (40, 30, 50):
        reference, samples = layer((1, 3, size, 33), seed=size)
        m = by_torch(reference, cut(samples, 5))
        first, second = (digest(m, picture=True) for _ in range(2))
        assert first.rows == second.rows and all(map(same_bytes, first.picture, second.picture))
        kept = sweep(m, Estimator(), {})
        bits = kept.bits.copy()
        digest(by_torch(samples[0], [list(samples)]))
        assert same_bytes(kept.bits, bits)
        results.append(first)
    assert len({d.rows[0].bits_mean for d in results}) == 3


@pytest.mark.parametrize("name", BUILT)
@pytest.mark.parametrize("channels", [1, 2, 3, 6, 16, 17, 33, 100])
def test_a_channel_map_reduces_each_position_alone(name, channels):
    reference, samples = layer((1, channels, 9, 15), 5, seed=channels)
    m = by_torch(reference, [list(samples)])
    with using(name):
        bits, majority, shares = channel_map(m)
    each_bits, each_code = significant_bits(m)[0], classes(m)[0]
    for at in itertools.product(range(9), range(15)):
        here = (slice(None), *at)
        median, code, share = layer_rows.position(each_bits[here].tolist(), each_code[here].tolist())
        assert float(bits[at]) == pytest.approx(median, rel=1e-6, nan_ok=True)
        assert int(majority[at]) == code and shares[here].tolist() == pytest.approx(share)


def test_what_the_sweep_does_not_know_goes_through_torch():
    reference, samples = layer((1, 4, 9, 11))
    m = by_torch(reference, cut(samples, 5))
    wide = by_torch(reference.double(), [[s.double() for s in samples]])
    for moments, estimator in ((m, Estimator(convention="published")), (wide, Estimator())):
        assert sweep(moments, estimator, {}) is None
        found = digest(moments, estimator, picture=True)
        with using(None):
            expected = digest(moments, estimator, picture=True)
        assert found.rows == expected.rows and all(map(same_bytes, found.picture, expected.picture))
    index = torch.zeros(1, 2, 3, 3, dtype=torch.int64)
    with Reducer(1) as reducer:
        lanes = LaneBlocks(index, {0: index, 1: index + 1}, [range(2)], reducer)
        found = digest(lanes, keep=True)
    assert isinstance(found.moments, IndexMoments) and found.rows[0].index_change_rate == 0.5


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("name", [*BUILT, None])
def test_each_of_many_regions_is_counted_alone(name, keep):
    reference, samples = layer((1, 4, 9, 11))
    generator = torch.Generator().manual_seed(4)
    regions = {f"region {i}": torch.rand(9, 11, generator=generator) < 0.3 for i in range(16)}
    with using(name), Reducer(1) as reducer:
        blocks = [range(i, min(i + 5, len(samples))) for i in range(0, len(samples), 5)]
        m = by_torch(reference, cut(samples, 5))
        assert sweep(m, Estimator(), regions) is None
        for source in (m, LaneBlocks(reference, {i: samples[i] for i in range(len(samples))}, blocks, reducer)):
            found = digest(source, Estimator(), regions, picture=True, keep=keep)
            assert [row.region for row in found.rows] == ["all", *regions] == list(found.histogram.regions)
            assert found.picture is not None and (found.moments is not None) == keep
            for row in found.rows[1:]:
                alone = digest(m, Estimator(), {row.region: regions[row.region]})
                assert row == alone.rows[1]
                assert found.histogram.rows()[found.histogram.regions.index(row.region)] == alone.histogram.rows()[1]
            assert found.rows == summarize(m, Estimator(), regions)


@pytest.mark.parametrize("name", BUILT)
def test_denormals_count_although_the_thread_flushes_them(name):
    reference = torch.full((64,), 1e-44)
    samples = [torch.full((64,), 1e-44 * (k + 1)) for k in range(4)]
    expected = by_torch(reference, [samples])
    torch.set_flush_denormal(True)
    try:
        with using(name):
            moments = block_moments(reference, [samples], 1)
    finally:
        torch.set_flush_denormal(False)
    expect_same(moments, expected)
    assert float(moments.m2[0]) > 0


def test_a_campaign_without_sweeps_has_the_same_table(monkeypatch):
    def run():
        return mcaprobe.run(models.build_small(), models.image(), samples=6, block=2, keep_moments="conv2")

    results = [run()]
    # The kernels of arithmetic stay: their samples are others than those of torch.
    monkeypatch.setattr(fused, "available", lambda *tensors: False)
    results.append(run())
    for mine, theirs in zip(results[0].table(), results[1].table(), strict=True):
        for key, value in theirs.as_dict().items():
            close = pytest.approx(value, rel=1e-12) if isinstance(value, float) else value
            assert mine.as_dict()[key] == close, (theirs.layer, key)
    expect_same(*(result["conv2"].moments for result in results))
