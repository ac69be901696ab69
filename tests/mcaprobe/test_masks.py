"""What does each criterion mark in a layer, against a slow twin, and what do its channels add up to?"""

import math
from fractions import Fraction

import pytest
import torch

import mcaprobe
from mcaprobe.errors import InputError
from mcaprobe.layer_masks import Mask, unstable
from mcaprobe.mask_facts import sampling_ceiling
from mcaprobe.masks import IndexChange, OfClass, SnrBelow, Unstable, judged
from mcaprobe.significance import snr_below, snr_below_one
from mcaprobe.statistics import Class, Estimator
from tests.mcaprobe.made_runs import make_run, moments_of
from tests.mcaprobe.swept_layers import layer
from tests.reference import two_pass

SETTINGS = [Estimator(), Estimator("general"), Estimator(error="absolute", reference="mean", probability=0.7)]


def elements(reference, samples):
    """The samples and the reference of each element, as plain lists."""
    return zip(samples.reshape(len(samples), -1).T.tolist(), reference.reshape(-1).tolist(), strict=True)


def kinds(reference, samples, e):
    """Class and bits of each element by the two-pass twin."""
    settings = (e.method, e.reference, e.error, e.probability, e.confidence)
    return [two_pass.kind(values, ieee, *settings) for values, ieee in elements(reference, samples)]


def varies(values, ieee):
    return all(math.isfinite(v) for v in [*values, ieee]) and len({*values}) > 1


def low_snr(values, ieee, ratio):
    """The definition in exact arithmetic: ratio * standard deviation (over n) >= |mean|."""
    if not varies(values, ieee):
        return False
    exact = [Fraction(v) for v in values]
    mean = sum(exact) / len(exact)
    return Fraction(ratio) ** 2 * sum((v - mean) ** 2 for v in exact) / len(exact) >= mean**2


@pytest.mark.parametrize("estimator", SETTINGS, ids=str)
@pytest.mark.parametrize("below", [0.0, 1.0, 6.5])
def test_bits_below_a_threshold_are_those_of_the_slow_twin(estimator, below):
    reference, samples = layer((3, 7, 20), 6)
    marked, undefined, codes = judged(Unstable(below), moments_of(reference, samples), estimator)
    found = kinds(reference, samples, estimator)
    assert marked.reshape(-1).tolist() == [k == "noise" or (k == "number" and bits < below) for k, bits in found]
    assert undefined.reshape(-1).tolist() == [k not in ("noise", "number") for k, _ in found]
    assert codes.reshape(-1).tolist() == [int(Class[k.upper()]) for k, _ in found]
    assert bool(marked.any()) and bool(undefined.any()) and not bool((marked | undefined).all())


@pytest.mark.parametrize("kind", list(Class), ids=lambda k: k.name)
@pytest.mark.parametrize("estimator", SETTINGS[:2], ids=str)
def test_a_class_is_that_of_the_slow_twin_and_only_of_noise_others_are_undefined(kind, estimator):
    reference, samples = layer((3, 7, 20), 6)
    marked, undefined, _ = judged(OfClass(kind), moments_of(reference, samples), estimator)
    found = [k for k, _ in kinds(reference, samples, estimator)]
    assert marked.reshape(-1).tolist() == [k == kind.name.lower() for k in found] and bool(marked.any())
    silent = [kind == Class.NOISE and k not in ("noise", "number") for k in found]
    assert undefined.reshape(-1).tolist() == silent


def test_class_noise_is_below_0_bits():
    m = moments_of(*layer((3, 70), 6))
    for one, two in zip(judged(OfClass(Class.NOISE), m, Estimator()), judged(Unstable(0), m, Estimator()), strict=True):
        assert torch.equal(one, two)


@pytest.mark.parametrize("ratio", [0.25, 1.0, 3.0])
def test_a_low_snr_is_that_of_the_slow_twin(ratio):
    reference, samples = layer((3, 7, 20), 6)
    m = moments_of(reference, samples)
    marked, undefined, _ = judged(SnrBelow(ratio), m, Estimator())
    assert marked.reshape(-1).tolist() == [low_snr(v, x, ratio) for v, x in elements(reference, samples)]
    assert undefined.reshape(-1).tolist() == [not varies(v, x) for v, x in elements(reference, samples)]
    assert bool(marked.any()) and torch.equal(marked, snr_below(m, ratio) & ~undefined)
    assert ratio != 1 or torch.equal(snr_below(m, 1.0), snr_below_one(m))


def test_the_published_convention_calls_zeros_noise_and_leaves_only_broken_elements_undefined():
    reference, samples = layer((3, 70), 6)
    m, published = moments_of(reference, samples), Estimator(convention="published")
    marked, undefined, codes = judged(Unstable(1), m, published)
    zero = torch.tensor([all(v == 0 for v in [*values, x]) for values, x in elements(reference, samples)])
    assert bool(zero.any()) and bool(marked.reshape(-1)[zero].all()) and bool((codes.reshape(-1)[zero] == 1).all())
    broken = [not all(map(math.isfinite, [*values, x])) for values, x in elements(reference, samples)]
    assert undefined.reshape(-1).tolist() == broken
    assert torch.equal(judged(SnrBelow(), m, published)[1], judged(SnrBelow(), m, Estimator())[1])


@pytest.mark.parametrize("rate", [0.05, 0.2, 0.4, 0.6, 0.8, 1.0])
def test_changed_indices_are_those_of_the_slow_twin(rate):
    generator = torch.Generator().manual_seed(2)
    reference = torch.randint(0, 4, (1, 2, 5, 6), generator=generator)
    samples = reference.repeat(5, 1, 1, 1, 1)
    for k in range(5):  # windows that change in 0 to 5 of 5 samples
        samples[k] += (torch.arange(60).reshape(1, 2, 5, 6) % 6 > k).long()
    marked = IndexChange(rate).mask(moments_of(reference, samples))
    slow = [sum(v != x for v in values) >= math.ceil(Fraction(str(rate)) * 5) for values, x in
            elements(reference, samples)]  # fmt: skip
    assert marked.reshape(-1).tolist() == slow and 0 < sum(slow) < 60
    assert IndexChange(rate).least(5) == math.ceil(Fraction(str(rate)) * 5)


def test_several_chunks_and_no_element_are_judged_too():
    reference, samples = layer((5, 20_000), 4)
    whole = judged(SnrBelow(2), moments_of(reference, samples), Estimator())
    for row in (0, 4):
        part = judged(SnrBelow(2), moments_of(reference[row], samples[:, row]), Estimator())
        assert all(torch.equal(a[row], b) for a, b in zip(whole, part, strict=True))
    empty = moments_of(torch.zeros(0, 3), torch.zeros(4, 0, 3))
    assert all(t.shape == (0, 3) for t in judged(Unstable(), empty, Estimator()))


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: SnrBelow(0), "signal-to-noise ratio above 0, got 0"),
        (lambda: SnrBelow(math.inf), "signal-to-noise ratio above 0, got inf"),
        (lambda: IndexChange(0), "an index change rate above 0 and at most 1, got 0"),
        (lambda: IndexChange(1.5), "an index change rate above 0 and at most 1, got 1.5"),
        (lambda: IndexChange(math.nan), "an index change rate above 0 and at most 1, got nan"),
        (lambda: Unstable(math.nan), "at least 0 bits, got nan"),
    ],
)
def test_a_threshold_out_of_range_is_a_sentence(make, sentence):
    with pytest.raises(InputError, match=sentence):
        make()


def test_criteria_are_said_in_words():
    assert str(OfClass(Class.ZERO)) == "class zero" and OfClass(Class.ZERO).label == "zero"
    assert OfClass(Class.NOISE).label == SnrBelow().label == IndexChange().label == Unstable().label == "unstable"
    assert str(SnrBelow()) == "the standard deviation of the samples is at least the size of their mean"
    assert str(SnrBelow(2.5)).startswith("2.5 times the standard deviation")
    assert str(IndexChange(0.05)) == "the decision differs from the IEEE run's in at least 5 % of the samples"


def test_channels_are_reduced_as_by_hand_and_undefined_ones_are_not_marked():
    channels = torch.tensor([[1, 1, 0, 0], [1, 0, 0, 0], [1, 0, 0, 1]]).bool()
    undefined = torch.tensor([[0, 0, 1, 0], [0, 1, 1, 0], [0, 0, 1, 0]]).bool()
    mask = Mask("x", channels.reshape(1, 3, 2, 2), undefined.reshape(1, 3, 2, 2))
    assert mask.reduced("any").tolist() == [[True, True], [False, True]]
    assert mask.reduced("all").tolist() == [[True, False], [False, False]]
    assert torch.equal(mask.reduced("share"), torch.tensor([[1, 1 / 3], [0, 1 / 3]]))
    assert torch.equal(mask.reduced("none"), channels.reshape(3, 2, 2))
    assert (mask.shape, mask.masked) == ((1, 3, 2, 2), 5) and repr(mask).endswith("5 of 12 elements)")
    with pytest.raises(InputError, match="Expected a reduction among any, all, share, none, got 'mean'"):
        mask.reduced("mean")
    with pytest.raises(InputError, match=r"\(1, C, \*spatial\) with C >= 1, got \(2, 3\)"):
        Mask("x", torch.zeros(2, 3).bool(), torch.zeros(2, 3).bool()).reduced("any")


@pytest.mark.parametrize("n", [2, 5, 10, 59])
def test_the_ceiling_is_what_n_samples_can_miss(n):
    for criterion in (Unstable(), OfClass(Class.NOISE), OfClass(Class.ZERO), SnrBelow(), IndexChange()):
        ceiling = sampling_ceiling(criterion, Estimator(confidence=0.9), n)
        q = ceiling["LargestShareNeverSeen"]
        assert (1 - q) ** n == pytest.approx(0.1) and f"at most {q:.2f} of all runs" in ceiling["Statement"]
        assert f"(1 - q)^{n}" in ceiling["Statement"] and "90% confidence" in ceiling["Statement"]
    assert "from 1 changed sample of 5 on" in sampling_ceiling(IndexChange(0.05), Estimator(), 5)["Statement"]
    assert "from 2 changed samples of 5 on" in sampling_ceiling(IndexChange(0.3), Estimator(), 5)["Statement"]


def test_a_mask_of_a_run_names_the_tensor_the_estimator_and_the_counts(tmp_path):
    reference, samples = layer((1, 3, 8, 6), 6)
    run = make_run(tmp_path / "r", {"net.conv": (reference, samples)}, aliases={"net": "net.conv"})
    mask = mcaprobe.unstable(run, "net", Unstable(3), Estimator("general"))
    found = kinds(reference, samples, Estimator("general"))
    marked = [k == "noise" or (k == "number" and bits < 3) for k, bits in found]
    assert mask.layer == "net.conv" and mask.values.reshape(-1).tolist() == marked
    about = mask.about
    assert (about["Elements"], about["MaskedElements"]) == (144, sum(marked))
    assert about["UndefinedElements"] == sum(k not in ("noise", "number") for k, _ in found)
    assert about["ElementsOfClass"] == {c.name.lower(): [k for k, _ in found].count(c.name.lower()) for c in Class}
    assert about["Criterion"] == {"Option": "--below", "Threshold": 3, "Unit": "bits",
                                  "Rule": "class noise, or fewer than 3 significant bits"}  # fmt: skip
    assert about["Estimator"]["Method"] == "general" and about["Estimator"]["Confidence"] == 0.95
    assert (about["Samples"], about["Mode"], about["Seed"], about["Route"]) == (6, "random", 3, "model")
    assert (about["Tensor"], about["Aliases"], about["Operator"]) == ("output of net.conv", ["net"], "Conv2d")
    assert about["Run"]["Command"] == ["mcaprobe", "run", "here"] and about["Run"]["Identity"]["model"] == "a:model"
    assert torch.equal(unstable(str(run), "net.conv").values, unstable(mcaprobe.load(run), "net", Unstable(1)).values)


def test_a_layer_that_a_criterion_cannot_judge_is_a_sentence(tmp_path):
    index = torch.zeros(1, 2, 4, 3, dtype=torch.int64)
    layers = {"conv": layer((1, 2, 8, 6), 4), "pool.indices": (index, index.repeat(4, 1, 1, 1, 1)),
              "lost": layer((1, 2, 8, 6), 4)}  # fmt: skip
    run = make_run(tmp_path / "r", layers, unkept=("lost",))
    for name, criterion, sentence in (
        ("pool.indices", Unstable(), "pool.indices holds decisions: .* use --index-change-rate"),
        ("conv", IndexChange(), "conv holds no decisions: --index-change-rate marks indices of poolings"),
        ("lost", Unstable(), "The moments of lost were not kept: run with --keep-moments 'lost'"),
        ("con", Unstable(), "There is no layer con: the nearest are conv"),
    ):
        with pytest.raises(InputError, match=sentence):
            unstable(run, name, criterion)
    assert not unstable(run, "pool.indices", IndexChange()).values.any()
    (run / "layers" / "conv.safetensors").write_bytes(b"short")
    with pytest.raises(InputError, match=r"is damaged: .*conv\.safetensors"):
        unstable(run, "conv")
