"""Are the streamed moments those of the samples, whatever the order of arrival allows?"""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mcaprobe import moments as moments_module
from mcaprobe.errors import InputError
from mcaprobe.statistics import IndexMoments, Moments
from tests.reference import two_pass

FINITE = st.floats(allow_nan=False, allow_infinity=False, width=32)
ANY = st.one_of(FINITE, st.sampled_from([float("nan"), float("inf"), float("-inf"), 0.0, -0.0]))
TENSORS = ("offset", "m2", "minimum", "maximum", "reference", "zeros", "nans", "infs")


def of(samples: torch.Tensor, reference: torch.Tensor | None = None) -> Moments:
    m = Moments.empty(samples[0] if reference is None else reference)
    for sample in samples:
        m.update(sample)
    return m


def noisy(n: int, shape: tuple[int, ...], dtype=torch.float32, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    base = torch.randn(shape, generator=generator, dtype=dtype)
    return base * (1 + 1e-5 * torch.randn((n, *shape), generator=generator, dtype=dtype))


def same_bits(a: Moments, b: Moments) -> bool:
    return a.n == b.n and all(
        np.array_equal(getattr(a, t).numpy().view(np.uint8), getattr(b, t).numpy().view(np.uint8)) for t in TENSORS
    )


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.lists(ANY, min_size=3, max_size=3), min_size=1, max_size=8),
    st.sampled_from([torch.float32, torch.float64]),
)
def test_streamed_moments_are_those_of_two_passes(rows, dtype):
    samples = torch.tensor(rows, dtype=dtype)
    m = of(samples)
    for i in range(3):
        values = [float(v) for v in samples[:, i]]
        mean, m2, low, high = two_pass.moments(values)
        scale = max((abs(v) for v in values if np.isfinite(v)), default=0.0)
        assert float(m.mean[i]) == pytest.approx(mean, rel=1e-12, abs=1e-14 * scale)
        assert float(m.m2[i]) == pytest.approx(m2, rel=1e-9, abs=(1e-13 * scale) ** 2)
        assert (float(m.minimum[i]), float(m.maximum[i])) == (low, high)
        assert int(m.zeros[i]) == sum(v == 0 for v in values)
        assert int(m.nans[i]) == sum(np.isnan(v) for v in values)
        assert int(m.infs[i]) == sum(np.isinf(v) for v in values)


def test_equal_samples_have_exactly_no_spread():
    # numpy's two passes over ten times 0.1 find a std of 1e-17: the package then reports 50 bits and more.
    samples = torch.full((10, 1), 0.1, dtype=torch.float64)
    m = of(samples)
    assert float(m.m2) == 0.0 and float(m.mean) == 0.1
    # The mean of two equal blocks is theirs.
    assert float(of(samples).merge(of(samples, samples[0])).m2) == 0.0


def test_a_large_offset_does_not_eat_the_spread():
    samples = 2.0**23 + torch.tensor([[0.0], [1.0], [0.0], [1.0]])
    assert float(of(samples).m2) == 1.0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_a_spread_of_one_ulp_is_measured_to_six_digits(dtype):
    generator = torch.Generator().manual_seed(3)
    reference = torch.randn(200, generator=generator, dtype=dtype)
    up = torch.nextafter(reference, torch.tensor(torch.inf, dtype=dtype))
    samples = torch.where(torch.rand(10, 200, generator=generator) < 0.5, reference, up)
    merged = of(samples[:5], reference).merge(of(samples[5:], reference))
    for m in (of(samples, reference), merged):
        for i in range(200):
            assert float(m.m2[i]) == pytest.approx(two_pass.moments(samples[:, i].tolist())[1], rel=1e-6)


@pytest.mark.parametrize("sizes", [(5, 5), (5, 5, 5, 2), (1, 1, 1), (3, 0, 4)], ids=str)
def test_merged_blocks_agree_with_one_pass_and_always_give_the_same_bits(sizes):
    samples = noisy(sum(sizes), (2, 3, 5))
    reference = samples[0]
    merged = []
    for _ in range(2):
        total = Moments.empty(reference)
        for block in samples.split(list(sizes)):
            total.merge(of(block, reference))
        merged.append(total)
    whole = of(samples, reference)
    assert same_bits(*merged)
    assert torch.allclose(merged[0].mean, whole.mean, rtol=1e-14, atol=0)
    assert torch.allclose(merged[0].m2, whole.m2, rtol=1e-9, atol=0)
    assert torch.equal(merged[0].minimum, whole.minimum) and torch.equal(merged[0].maximum, whole.maximum)


def test_merge_of_two_blocks_is_chans_formula():
    samples = noisy(7, (50,), torch.float64)
    a, b = of(samples[:4], samples[0]), of(samples[4:], samples[0])
    d = b.offset.numpy() - a.offset.numpy()
    offset = a.offset.numpy() + d * (3 / 7)
    m2 = (a.m2.numpy() + b.m2.numpy()) + d * d * (12 / 7)
    a.merge(b)
    assert np.array_equal(a.offset.numpy(), offset) and np.array_equal(a.m2.numpy(), m2)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(ANY, min_size=2, max_size=2), min_size=2, max_size=8), st.integers(0, 8))
def test_merge_keeps_non_finite_values_apart(rows, cut):
    samples = torch.tensor(rows)
    cut = min(cut, len(rows))
    merged = of(samples[:cut], samples[0]).merge(of(samples[cut:], samples[0]))
    whole = of(samples)
    for name in ("minimum", "maximum", "zeros", "nans", "infs"):
        assert torch.equal(getattr(merged, name), getattr(whole, name)), name
    scale = samples.double().nan_to_num(0, 0, 0).abs().max()
    assert torch.allclose(merged.mean, whole.mean, rtol=1e-12, atol=float(scale) * 1e-14)
    assert torch.allclose(merged.m2, whole.m2, rtol=1e-9, atol=float(scale * 1e-13) ** 2)


def test_threads_slices_and_memory_layout_do_not_change_a_bit(monkeypatch):
    samples = noisy(4, (1, 6, 70, 90))
    whole = of(samples)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1 if threads > 1 else 2)
        assert same_bits(whole, of(samples))
    finally:
        torch.set_num_threads(threads)
    assert same_bits(whole, of(samples.transpose(-1, -2).contiguous().transpose(-1, -2), samples[0]))
    monkeypatch.setattr(moments_module, "CHUNK", 7919)
    assert same_bits(whole, of(samples))


@pytest.mark.parametrize("shape", [(), (0,), (1, 3), (2, 3, 4, 5, 6)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_any_shape_and_floating_type_is_taken(shape, dtype):
    m = of(noisy(3, shape, torch.float64).to(dtype))
    assert m.n == 3 and m.mean.shape == shape and m.mean.dtype == torch.float64 and m.minimum.dtype == dtype


def test_state_is_contiguous_and_survives_safetensors(tmp_path):
    from safetensors.torch import load_file, save_file

    samples = noisy(5, (4, 3))
    for values in (samples, samples.index_fill(1, torch.tensor([1]), torch.nan)):
        m = of(values)
        save_file(m.state(), tmp_path / "m.safetensors")
        assert same_bits(m, Moments.from_state(load_file(tmp_path / "m.safetensors")))
    with pytest.raises(InputError, match="m2, zeros missing"):
        Moments.from_state({k: v for k, v in m.state().items() if k not in ("m2", "zeros")})


def test_the_reference_is_kept_although_the_activation_is_overwritten():
    activation = torch.ones(3)
    m = Moments.empty(activation)
    activation.zero_()
    assert torch.equal(m.reference, torch.ones(3))


def test_wrong_samples_and_foreign_blocks_are_refused_in_words():
    m = Moments.empty(torch.zeros(2, 3))
    with pytest.raises(InputError, match=r"Expected .* \(2, 3\) and torch.float32, got \(3, 2\)"):
        m.update(torch.zeros(3, 2))
    with pytest.raises(InputError, match="float64"):
        m.update(torch.zeros(2, 3, dtype=torch.float64))
    with pytest.raises(InputError, match="same IEEE reference"):
        m.merge(Moments.empty(torch.full((2, 3), 1e-45)))
    with pytest.raises(InputError, match="IndexMoments"):
        Moments.empty(torch.zeros(2, dtype=torch.int64))
    with pytest.raises(InputError, match="decisions as integers"):
        IndexMoments.empty(torch.zeros(2))
    nan = torch.tensor([torch.nan, 1.0])
    assert Moments.empty(nan).merge(Moments.empty(nan)).n == 0


def test_index_changes_are_counted_per_window_and_merged():
    reference = torch.tensor([[0, 5], [2, 3]])
    samples = [torch.tensor([[0, 5], [2, 3]]), torch.tensor([[1, 5], [2, 3]]), torch.tensor([[1, 4], [2, 3]])]
    whole = IndexMoments.empty(reference)
    for sample in samples:
        whole.update(sample)
    assert whole.changes.tolist() == [[2, 1], [0, 0]]
    assert whole.change_rate().tolist() == [[2 / 3, 1 / 3], [0, 0]]
    parts = IndexMoments.empty(reference).update(samples[0])
    parts.merge(IndexMoments.empty(reference).update(samples[1]).update(samples[2]))
    again = IndexMoments.from_state(parts.state())
    assert again.n == 3 and torch.equal(again.changes, whole.changes) and torch.equal(again.reference, reference)
    with pytest.raises(InputError, match="same IEEE reference"):
        parts.merge(IndexMoments.empty(reference + 1))
