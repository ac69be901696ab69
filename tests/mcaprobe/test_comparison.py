"""How far do two sets of moments differ: ratios of known distributions, a slow twin."""

import math
from types import SimpleNamespace

import pytest
import torch

from mcaprobe.agreement import Agreement
from mcaprobe.comparison import element_columns
from mcaprobe.errors import InputError
from mcaprobe.masks import Unstable
from mcaprobe.spread import std_ratio, std_scatter, varies
from mcaprobe.statistics import Estimator, Moments
from tests.mcaprobe.swept_layers import layer, masks
from tests.reference import comparison_twin as twin

SETTINGS = [Estimator(), Estimator("general"), Estimator(error="absolute", reference="mean", probability=0.7)]


def moments(samples: torch.Tensor, reference: torch.Tensor) -> Moments:
    m = Moments.empty(reference)
    for sample in samples:
        m.update(sample)
    return m


@pytest.mark.parametrize(("n_a", "n_b"), [(5, 5), (4, 12), (30, 3)])
@pytest.mark.parametrize("scale", [1.0, 2.0, 0.125])
def test_the_std_ratio_of_known_distributions_does_not_depend_on_n(n_a, n_b, scale):
    generator = torch.Generator().manual_seed(n_a)
    a = scale * torch.randn(n_a, 200_000, generator=generator, dtype=torch.float64)
    b = torch.randn(n_b, 200_000, generator=generator, dtype=torch.float64)
    one, two = (moments(x, torch.ones(200_000, dtype=torch.float64)) for x in (a, b))
    # The variance of a variance over n - 1 degrees of freedom is 2 / (n - 1): five standard errors of the ratio.
    error = math.sqrt((1 / (2 * (n_a - 1)) + 1 / (2 * (n_b - 1))) / 200_000)
    assert std_ratio(one.m2, n_a, two.m2, n_b) == pytest.approx(scale, rel=5 * error)


def test_the_std_ratio_is_that_of_root_mean_squares_not_a_mean_of_ratios():
    a, b = (torch.tensor(v, dtype=torch.float64) for v in ([9.0, 16.0], [1.0, 4.0]))
    # M2 of two samples each: variances 9, 16 and 1, 4.
    assert std_ratio(a, 2, b, 2) == pytest.approx(math.sqrt(25 / 5))
    assert std_ratio(a, 10, b, 2) == pytest.approx(math.sqrt(25 / 9 / 5))


@pytest.mark.parametrize(("a", "b"), [([], []), ([1.0], [0.0]), ([math.inf], [1.0]), ([1.0], [math.inf])])
def test_a_ratio_without_elements_or_out_of_range_is_no_number(a, b):
    assert std_ratio(torch.tensor(a, dtype=torch.float64), 2, torch.tensor(b, dtype=torch.float64), 2) is None


def test_the_scatter_of_a_standard_deviation_is_that_of_normal_samples():
    draws = torch.randn(10, 100_000, generator=torch.Generator().manual_seed(1), dtype=torch.float64).std(0)
    assert float(draws.std()) == pytest.approx(std_scatter(10), rel=0.03)


def test_unstable_is_noise_or_fewer_bits():
    reference = torch.tensor([1.0, 1.0, 1.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0])
    low = torch.tensor([1 - 2.0**-2, 1 - 2.0**-20, -1.0, 0.0, -1.0, 1.0, 2.0, math.nan, 1.0])
    high = torch.tensor([1 + 2.0**-2, 1 + 2.0**-20, 3.0, 0.0, 1.0, 1.0, 2.0, 1.0, math.inf])
    m = moments(torch.stack([low, high]), reference)
    general = Estimator("general")  # bits 2, 20, -1, zero, reference 0, exact, shifted, NaN, inf
    assert Unstable(1).mask(m, general).tolist() == [False, False, True, False, True, False, False, False, False]
    assert Unstable(0).mask(m, general).tolist() == Unstable(1).mask(m, general).tolist()
    assert Unstable(2).mask(m, general).tolist() == Unstable(1).mask(m, general).tolist()  # 2 bits are not fewer
    assert Unstable(2.5).mask(m, general).tolist() == [True, False, True, False, True, False, False, False, False]
    assert varies(m).tolist() == [True, True, True, False, True, False, False, False, False]


@pytest.mark.parametrize("below", [-1.0, math.nan, math.inf])
def test_a_threshold_is_a_finite_number_of_bits(below):
    with pytest.raises(InputError, match="Expected a threshold of at least 0 bits, got"):
        Unstable(below)


def test_a_mask_is_said_in_words():
    assert str(Unstable()) == "class noise, or fewer than 1 significant bit"
    assert str(Unstable(2.5)) == "class noise, or fewer than 2.5 significant bits"
    assert str(Unstable(0)) == "class noise"


@pytest.mark.parametrize("estimator", SETTINGS, ids=str)
@pytest.mark.parametrize("below", [0.0, 1.0, 6.5])
def test_masks_and_ratios_are_those_of_the_slow_twin(estimator, below):
    shape, (n_a, n_b) = (3, 70), (6, 9)
    (ieee_a, a), (ieee_b, b) = layer(shape, n_a, seed=1), layer(shape, n_b, seed=2)
    one, two = moments(a, ieee_a), moments(b, ieee_b)
    settings = (estimator.method, estimator.reference, estimator.error, estimator.probability, estimator.confidence)
    slow = [(s.reshape(len(s), -1).T.tolist(), x.reshape(-1).tolist()) for s, x in ((a, ieee_a), (b, ieee_b))]
    masks = [Unstable(below).mask(m, estimator) for m in (one, two)]
    sets = [twin.unstable(s, x, below, *settings) for s, x in slow]
    for mask, marked in zip(masks, sets, strict=True):
        assert set(mask.reshape(-1).nonzero().squeeze(1).tolist()) == marked
        assert 0 < len(marked) < mask.numel()
    found = Agreement.of(*masks)
    assert (found.dice, found.precision, found.recall) == pytest.approx(twin.agreement(*sets))
    where = varies(one) & varies(two)
    expected = twin.std_ratio(slow[0][0], slow[0][1], slow[1][0], slow[1][1])
    assert std_ratio(one.m2[where], n_a, two.m2[where], n_b) == pytest.approx(expected, rel=1e-9)


def test_a_layer_of_several_chunks_is_marked_like_its_parts():
    reference, samples = layer((5, 20_000), 4)
    m = moments(samples, reference)
    whole = Unstable(2).mask(m, Estimator())
    for row in range(5):
        part = moments(samples[:, row], reference[row])
        assert torch.equal(Unstable(2).mask(part, Estimator()), whole[row])


def test_the_columns_of_a_region_are_those_of_the_slow_twin():
    (ieee_a, a), (ieee_b, b) = layer((2, 9, 11), 6, seed=1), layer((2, 9, 11), 9, seed=2)
    ieee_a[0, 0], ieee_b[0, 0] = math.nan, math.nan
    regions = masks(9, 11)
    runs = [SimpleNamespace(moments=moments(s, x), masks=regions) for s, x in ((a, ieee_a), (b, ieee_b))]
    found = element_columns(*runs, Estimator(), Unstable(3))
    assert set(found) == {"all", "brain", "background", "more"}
    for region, columns in found.items():
        inside = regions.get(region, torch.ones(9, 11, dtype=torch.bool)).expand(2, 9, 11)
        one, two = ((s[:, inside].T.tolist(), x[inside].tolist()) for s, x in ((a, ieee_a), (b, ieee_b)))
        varying = [{i for i, (v, x) in enumerate(zip(*run, strict=True)) if twin.varies(v, x)} for run in (one, two)]
        assert varying[0] - varying[1] and varying[1] - varying[0]
        assert (columns["vary_a"], columns["vary_b"]) == (len(varying[0]), len(varying[1]))
        assert columns["vary_both"] == len(varying[0] & varying[1])
        assert columns["std_ratio"] == pytest.approx(twin.std_ratio(*one, *two), rel=1e-9)
        sets = [twin.unstable(*run, 3, "cnh", "ieee", "relative", 0.95, 0.95) for run in (one, two)]
        marked = len(sets[0]), len(sets[1]), len(sets[0] & sets[1])
        assert (columns["unstable_a"], columns["unstable_b"], columns["unstable_both"]) == marked
        assert (columns["dice"], columns["precision"], columns["recall"]) == pytest.approx(twin.agreement(*sets))
        same = [x == y or (math.isnan(x) and math.isnan(y)) for x, y in zip(one[1], two[1], strict=True)]
        assert columns["ieee_differs"] == pytest.approx(1 - sum(same) / len(same))
