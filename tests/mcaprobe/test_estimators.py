"""Are the significant bits those of the samples, by the definition and by the package significantdigits?"""

import itertools
import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from scipy.stats import chi2, norm
from significantdigits import minimum_number_of_trials, significant_digits

from mcaprobe.errors import InputError
from mcaprobe.statistics import (
    Class,
    Estimator,
    Moments,
    classes,
    mantissa_bits,
    samples_needed,
    shift,
    significant_bits,
    snr_below_one,
    supported_probability,
)
from tests.reference import two_pass

COMBINATIONS = list(itertools.product(["cnh", "general"], ["ieee", "mean"], ["relative", "absolute"]))
SHARES = [(0.95, 0.95), (0.99, 0.9), (0.5, 0.99)]
NAN, INF = math.nan, math.inf


def of(samples, reference) -> Moments:
    m = Moments.empty(torch.as_tensor(reference))
    for sample in torch.as_tensor(samples):
        m.update(sample)
    return m


def noisy(n: int, size: int, spread: float, dtype=torch.float32, seed: int = 0):
    """Samples (n, size) about an IEEE run (size,): magnitudes over 20 binades, relative noise `spread`."""
    generator = torch.Generator().manual_seed(seed)
    exponent = torch.randint(-10, 10, (size,), generator=generator)
    reference = (torch.randn(size, generator=generator, dtype=torch.float64) * 2.0**exponent).to(dtype)
    noise = torch.randn(n, size, generator=generator, dtype=torch.float64)
    return (reference * (1 + spread * noise)).to(dtype), reference


def package(samples, reference, estimator: Estimator, dtype=np.float32) -> np.ndarray:
    """The package's number; the samples go in as float64, so that it does not round Z to float32."""
    x = np.asarray(samples, dtype=np.float64)
    ref = np.asarray(reference, dtype=np.float64) if estimator.reference == "ieee" else x.mean(axis=0)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        return significant_digits(
            x,
            ref,
            axis=0,
            error=estimator.error,
            method=estimator.method,
            dtype=dtype,
            probability=estimator.probability,
            confidence=estimator.confidence,
        )


@st.composite
def elements(draw, dtype):
    """One element: its IEEE value and its samples, from ulps apart to unrelated, with specials."""
    width = 32 if dtype == torch.float32 else 64
    base = draw(st.floats(2.0**-20, 2.0**20, width=width))
    near = st.integers(-9, 9).map(lambda k: base * (1 + k * 2.0 ** -draw(st.integers(0, width // 2 + 18))))
    value = st.one_of(near, st.just(base), st.sampled_from([0.0, -0.0, base, -base, NAN, INF, -INF]))
    return draw(value), [draw(value) for _ in range(6)]


def rounding(values: list[float], ieee: float) -> float:
    """Relative error that float64 leaves in deviations: of the mean where samples cancel, and of the
    differences to a reference of another magnitude (those to a near one are exact, Sterbenz 1974)."""
    mean, largest = abs(two_pass.moments(values)[0]), max(map(abs, [*values, ieee]))
    near = all(0.5 <= v / ieee <= 2 for v in values) if ieee else False
    # The differences to a near reference are exact, their mean is rounded.
    lost = 5e-16 * max(abs(v - ieee) for v in values) if near else 2e-15 * largest
    spread = max(values) - min(values)
    of_differences = lost / spread if spread else 0.0
    return of_differences + (1e-15 * largest / mean if mean else 0.0)


# No shrinking: rational arithmetic makes it minutes.
@settings(max_examples=120, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(
    st.data(),
    st.sampled_from([torch.float32, torch.float64]),
    st.sampled_from(COMBINATIONS),
    st.sampled_from(SHARES),
    st.integers(2, 6),
)
def test_bits_and_classes_are_those_of_the_twin(data, dtype, combination, shares, n):
    drawn = [data.draw(elements(dtype)) for _ in range(4)]
    reference = torch.tensor([r for r, _ in drawn], dtype=dtype)
    samples = torch.tensor([s[:n] for _, s in drawn], dtype=dtype).T
    estimator = Estimator(*combination, *shares)
    m = of(samples, reference)
    bits, codes = significant_bits(m, estimator), classes(m, estimator)
    twin_bits, twin_codes = two_pass.layer(samples.numpy(), reference.numpy(), *combination, *shares)
    for i in range(4):
        mine, twin = float(bits[i]), float(twin_bits[i])
        values = samples[:, i].tolist()
        mean = abs(two_pass.moments(values)[0])
        jumps = {math.frexp(mean * (1 + sign * 1e-13))[1] for sign in (-1, 1)}
        if combination[1:] == ("mean", "absolute") and len(jumps) > 1 and math.isfinite(twin):
            # The exponent of a mean on a power of two is a matter of its last rounding.
            assert abs(mine - twin) <= 1 + 1e-6
            continue
        if estimator.method == "general" and math.isfinite(twin):
            z, exponent = two_pass.distances(values, float(reference[i]), *combination[1:])
            stretch = min(0.5, 1e-13 + rounding(values, float(reference[i])))
            allowed = {two_pass.general_bits(z, exponent, sign * stretch) for sign in (-1, 1)}
            assert mine in allowed
            boundary = len(allowed) > 1
        elif math.isfinite(twin):
            close = 1e-6 + 2 * rounding(values, float(reference[i]))
            assert mine == pytest.approx(twin, abs=close)
            boundary = abs(twin) < close
        else:
            cancels = estimator.reference == "mean" and math.isfinite(mine) and mine < -40
            assert mine == pytest.approx(twin, nan_ok=True) or cancels
            boundary = False
        assert int(codes[i]) == int(twin_codes[i]) or boundary


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("n", [2, 5, 10, 30])
@pytest.mark.parametrize(("method", "reference", "error"), COMBINATIONS)
def test_bits_equal_the_package(method, reference, error, n, dtype):
    single = dtype is np.float32
    for spread, (probability, confidence) in itertools.product([3.0, 1e-2, 1e-6], SHARES):
        samples, ieee = noisy(n, 500, spread, torch.float32 if single else torch.float64)
        estimator = Estimator(method, reference, error, probability, confidence)
        mine = significant_bits(of(samples, ieee), estimator).numpy()
        theirs = package(samples, ieee, estimator, dtype)
        varies = np.asarray(samples.amin(0) < samples.amax(0))
        assert varies.mean() > 0.9
        if method == "general":
            mine = mine.clip(0, 23 if single else 52)
            # On the boundary of a power of two the rounding of the mean decides.
            middle = samples.double().mean(0)
            near = (
                [
                    package(middle + (samples.double() - middle) * (1 + stretch), ieee, estimator, dtype)
                    for stretch in (-1e-9, 1e-9)
                ]
                if reference == "mean"
                else []
            )
            allowed = np.stack([theirs, *near])
            assert ((mine == theirs) | (mine == allowed).any(0))[varies].all()
            assert (mine == theirs)[varies].mean() > 0.97
        else:
            np.testing.assert_allclose(mine[varies], theirs[varies], rtol=0, atol=1e-6)


def test_the_package_rounds_z_of_float32_samples_and_loses_bits_that_are_there():
    # Samples one ulp apart: the package's own float32 quotient x / ref - 1 has a grain as large as the
    # spread.
    samples, ieee = noisy(10, 2000, 6e-8)
    m = of(samples, ieee)
    varies = (m.minimum < m.maximum).numpy()
    mine = significant_bits(m, Estimator()).numpy()[varies]
    in_double = package(samples, ieee, Estimator())[varies]
    in_single = significant_digits(samples.numpy(), ieee.numpy(), axis=0)[varies]
    assert np.abs(mine - in_double).max() < 1e-5
    assert np.abs(in_single - in_double).max() > 0.25


def test_where_the_package_has_conventions_the_classes_differ():
    ieee = torch.tensor([0.0, 1.0, 1.0, 0.1])
    samples = torch.tensor([0.0, 1.0, 1.5, 0.1]).expand(10, 4)
    m = of(samples, ieee)
    cnh, general = Estimator(), Estimator(method="general")
    assert classes(m, cnh).tolist() == [Class.ZERO, Class.EXACT, Class.SHIFTED, Class.EXACT]
    assert bool(significant_bits(m, cnh).isnan().all())
    theirs = package(samples, ieee, cnh)
    # A zero voxel has no number, an unchanged one 23 - 1.84 bits, a shifted one is scored by its shift.
    assert np.isnan(theirs[0]) and theirs[1] == pytest.approx(23 - 1.84, abs=0.005)
    assert theirs[2] == pytest.approx(1 - 1.84, abs=0.005)
    assert package(samples, ieee, general).tolist() == [0, 23, 1, 23]


@pytest.mark.parametrize(("method", "reference", "error"), COMBINATIONS)
def test_the_published_convention_gives_the_packages_numbers(method, reference, error):
    # n = 8: the sum of 8 equal numbers is exact. At n = 10 the package's std of equal samples can be 1e-17,
    # and an element shifted by 25 % gets 52 bits.
    n = 8
    samples, ieee = noisy(n, 100, 1e-4)
    samples[:, :10] = ieee[:10]
    samples[:, 10:20] = ieee[10:20] * 1.25
    ieee[20:30] = samples[:, 20:30] = 0.0
    ieee[30:40] = 0.0
    estimator = Estimator(method, reference, error, convention="published")
    mine, codes = (
        significant_bits(of(samples, ieee), estimator).numpy(),
        classes(of(samples, ieee), estimator),
    )
    theirs = package(samples, ieee, estimator)
    agree = np.ones(100, dtype=bool)
    agree[20:30] = False  # zero: 0 bits here, NaN, 0 or 23 there
    if method == "cnh" and (reference, error) == ("ieee", "relative"):
        agree[30:40] = False  # x / 0: -inf here, NaN there
    np.testing.assert_allclose(mine[agree], theirs[agree], rtol=0, atol=1e-6)
    assert (mine[20:30] == 0).all() and (codes[20:30] == Class.NOISE).all()
    full = 23 - (shift(n, estimator) if method == "cnh" else 0)
    assert mine[:10] == pytest.approx(full) and (codes[:10] == Class.NUMBER).all()


CASES = {  # reference, samples, class
    "undefined": (1.0, [NAN, INF, NAN], Class.UNDEFINED),
    "nan wins over inf": (1.0, [NAN, INF, 1.0], Class.NAN),
    "nan in the IEEE run": (NAN, [1.0, 2.0, 1.0], Class.NAN),
    "inf": (1.0, [1.0, -INF, 1.0], Class.INF),
    "inf in the IEEE run": (INF, [1.0, 1.0, 1.0], Class.INF),
    "zero": (0.0, [0.0, -0.0, 0.0], Class.ZERO),
    "exact": (3.0, [3.0, 3.0, 3.0], Class.EXACT),
    "shifted": (3.0, [4.0, 4.0, 4.0], Class.SHIFTED),
    "shifted to zero": (3.0, [0.0, 0.0, 0.0], Class.SHIFTED),
    "shifted from zero": (0.0, [4.0, 4.0, 4.0], Class.SHIFTED),
    "reference zero": (0.0, [1.0, 1.0, 1.0000001], Class.NOISE),
    "noise": (1.0, [5.0, -5.0, 1.0], Class.NOISE),
    "number": (1.0, [1.0, 1.001, 1.0], Class.NUMBER),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(("reference", "samples", "expected"), CASES.values(), ids=CASES)
def test_the_first_class_that_matches_wins(reference, samples, expected, dtype):
    m = of(torch.tensor(samples, dtype=dtype).unsqueeze(1), torch.tensor([reference], dtype=dtype))
    for method, error in itertools.product(["cnh", "general"], ["relative", "absolute"]):
        estimator = Estimator(method=method, error=error)
        assert Class(int(classes(m, estimator))) == expected
        assert bool(significant_bits(m, estimator).isnan()) == (expected not in (Class.NUMBER, Class.NOISE))


def test_zero_bits_are_noise_and_a_fifth_of_a_bit_is_a_number():
    one = torch.ones(2)
    # The largest |Z| is 1, so k = 0, and 1/2, so k = 1.
    general = of(torch.tensor([[1.0, 1.0], [2.0, 1.5]]), one)
    assert classes(general, Estimator("general")).tolist() == [Class.NOISE, Class.NUMBER]
    # Two samples 2 d apart have std d (ddof 0): -log2 d - shift bits.
    d = 2.0 ** -(shift(2, Estimator()) + torch.tensor([-0.2, 0.2], dtype=torch.float64))
    cnh = of(torch.stack([1 - d, 1 + d]), one.double())
    assert significant_bits(cnh, Estimator()).tolist() == pytest.approx([-0.2, 0.2])
    assert classes(cnh, Estimator()).tolist() == [Class.NOISE, Class.NUMBER]


def test_facts_about_the_samples_do_not_depend_on_the_estimator():
    fixed = [c for c in CASES.values() if c[2] not in (Class.NUMBER, Class.NOISE)]
    m = of(torch.tensor([s for _, s, _ in fixed]).T, torch.tensor([r for r, _, _ in fixed]))
    for combination in COMBINATIONS:
        assert classes(m, Estimator(*combination)).tolist() == [c for _, _, c in fixed]


@pytest.mark.parametrize("n", [3, 10, 40])
def test_the_cnh_bound_holds_with_at_least_the_stated_confidence(n):
    """Normal samples of known sigma: share of the elements whose stated bits are truly significant."""
    size, sigma, probability = 40_000, 2.0**-9, 0.95
    noise = torch.randn(n, size, generator=torch.Generator().manual_seed(n), dtype=torch.float64)
    m = of(1 + sigma * noise, torch.ones(size, dtype=torch.float64))
    true_bits = -math.log2(sigma * norm.ppf((probability + 1) / 2))
    for confidence in (0.8, 0.95, 0.99):
        stated = significant_bits(m, Estimator(probability=probability, confidence=confidence))
        held = float((stated <= true_bits).double().mean())
        # The quantile is two-sided, so that (1 - c)/2 would be missed with ddof 1, a little more with ddof 0.
        expected = chi2.sf(chi2.ppf((1 - confidence) / 2, n - 1) * n / (n - 1), n - 1)
        assert held >= confidence
        assert held == pytest.approx(expected, abs=4 * math.sqrt(expected * (1 - expected) / size))


@pytest.mark.parametrize("n", [5, 10, 59])
def test_the_general_bound_holds_with_at_least_the_stated_confidence(n):
    confidence = 0.95
    probability = supported_probability(n, confidence)
    noise = torch.rand(n, 20_000, generator=torch.Generator().manual_seed(n), dtype=torch.float64) * 2 - 1
    m = of(1 + 0.3 * noise, torch.ones(20_000, dtype=torch.float64))
    k = significant_bits(m, Estimator(method="general", probability=probability))
    truly = (2.0**-k / 0.3).clamp(max=1)  # P(|Z| <= 2^-k) for uniform Z
    assert float((truly >= probability).double().mean()) >= confidence
    # One bit more would not do.
    assert float(((truly / 2) >= probability).double().mean()) < 1 - confidence


def test_sample_counts_are_those_of_the_paper_and_the_package():
    assert supported_probability(10, 0.95) == pytest.approx(0.741, abs=5e-4)
    assert [samples_needed(p, 0.95) for p in (0.95, 0.99)] == [59, 299]
    for p, c in itertools.product([0.5, 0.74, 0.9, 0.999], [0.5, 0.9, 0.95, 0.999]):
        assert samples_needed(p, c) == minimum_number_of_trials(p, c)
        assert supported_probability(samples_needed(p, c), c) >= p - 1e-12
    assert shift(10, Estimator()) == pytest.approx(1.84, abs=0.005)
    assert shift(10, Estimator(method="general")) == 0


def test_snr_is_below_one_where_the_spread_reaches_the_mean():
    samples = torch.tensor([[1.0, 3.0, 0.0, 5.0, NAN, 2.0], [-1.0, 5.0, 0.0, 5.0, 1.0, 0.0]])
    assert snr_below_one(of(samples, samples[0])).tolist() == [True, False, False, False, False, True]


def test_bits_survive_the_range_of_float64():
    samples = torch.tensor([[1e-200], [1.5e-200], [1e-200], [1.5e-200]], dtype=torch.float64)
    ieee = torch.tensor([1e-200], dtype=torch.float64)
    for scale in (1.0, 1e100, 1e300, 1e-110):
        bits = significant_bits(of(samples * scale, ieee * scale), Estimator())
        assert float(bits) == pytest.approx(2 - shift(4, Estimator()), abs=0.01)
    huge = torch.tensor([[1.0, -1.0], [1.5, 1.0]], dtype=torch.float64) * 1e308
    assert classes(of(huge, huge[1]), Estimator(probability=0.5, confidence=0.5)).tolist() == [
        Class.NUMBER,
        Class.NOISE,
    ]


def test_mantissas_and_settings():
    dtypes = torch.float16, torch.bfloat16, torch.float32, torch.float64
    assert [mantissa_bits(t) for t in dtypes] == [11, 8, 24, 53]
    assert str(Estimator()) == "cnh relative to ieee, p = 0.95, confidence = 0.95"
    for wrong in (
        {"method": "CNH"},
        {"reference": "median"},
        {"error": "both"},
        {"probability": 1.0},
        {"confidence": 0.0},
        {"convention": "paper"},
    ):
        with pytest.raises(InputError, match=next(iter(wrong))):
            Estimator(**wrong)
    with pytest.raises(InputError, match="at least 2 samples"):
        classes(Moments.empty(torch.zeros(3)).update(torch.zeros(3)), Estimator())
