"""Are rows, histograms and channel maps those of the elements?"""

import csv
import itertools
import json
import math

import numpy as np
import pytest
import torch

from mcaprobe.errors import InputError
from mcaprobe.histogram import COMBINATIONS
from mcaprobe.scores import raw_score, raw_scores
from mcaprobe.statistics import (
    Class,
    Estimator,
    IndexMoments,
    Moments,
    classes,
    significant_bits,
    snr_below_one,
)
from mcaprobe.summary import Histogram, Row, channel_map, summarize
from tests.reference import layer_rows

SHAPE = (1, 6, 9, 11)
MASKS = {"brain": torch.rand(9, 11, generator=torch.Generator().manual_seed(5)) < 0.4}
MASKS["background"] = ~MASKS["brain"]


def layer(shape=SHAPE, n=10, dtype=torch.float32, seed=0) -> Moments:
    """A layer with every class: relative noise of 1e-7 to 10, ties with zero, stable and broken elements."""
    generator = torch.Generator().manual_seed(seed)
    reference = torch.randn(shape, generator=generator, dtype=dtype)
    spread = 10 ** (torch.rand(shape, generator=generator, dtype=dtype) * 8 - 7)
    samples = reference * (1 + spread * torch.randn((n, *shape), generator=generator, dtype=dtype))
    kind = torch.randint(0, 16, shape, generator=generator)
    reference[(kind == 1) | (kind == 2)] = 0
    samples[:, kind == 1] = 0
    samples[:, kind == 3] = reference[kind == 3]
    samples[:, kind == 4] = reference[kind == 4] * 1.5
    samples[1, kind == 5] = math.nan
    samples[2, kind == 6] = math.inf
    samples[:, kind == 7] = math.nan
    m = Moments.empty(reference)
    for sample in samples:
        m.update(sample)
    return m


def elements(m: Moments, estimator: Estimator, mask: torch.Tensor | None):
    inside = torch.ones(m.shape, dtype=torch.bool) if mask is None else mask.expand(m.shape)
    bits, codes = significant_bits(m, estimator)[inside], classes(m, estimator)[inside]
    return bits.tolist(), codes.tolist(), inside


@pytest.mark.parametrize("estimator", [Estimator(), Estimator("general", "mean", "absolute")], ids=str)
def test_a_row_is_the_mean_percentile_and_shares_of_its_elements(estimator):
    m = layer()
    rows = summarize(m, estimator, MASKS, layer="decoder.1.conv2", operator="Conv2d")
    assert [r.region for r in rows] == ["all", "brain", "background"]
    for r in rows:
        bits, codes, inside = elements(m, estimator, MASKS.get(r.region))
        assert (r.layer, r.operator, r.shape, r.samples) == ("decoder.1.conv2", "Conv2d", SHAPE, 10)
        assert r.elements == len(codes) and r.index_change_rate is None and r.estimator == str(estimator)
        assert r.share_snr_below_1 == pytest.approx(float(snr_below_one(m)[inside].double().mean()))
        assert len(set(codes)) == len(Class)
        for name, value in layer_rows.row(bits, codes).items():
            assert getattr(r, name) == pytest.approx(value, rel=1e-12), name


def test_rows_are_plain_json_and_csv_values(tmp_path):
    zeros = Moments.empty(torch.zeros(SHAPE)).update(torch.zeros(SHAPE)).update(torch.zeros(SHAPE))
    nothing = {"brain": torch.zeros(9, 11, dtype=torch.bool)}
    everything, empty = summarize(zeros, Estimator(), nothing)
    assert everything.bits_mean is None and everything.bits_p05 is None and everything.share_zero == 1
    assert empty.elements == 0 and empty.share_zero is None and empty.share_snr_below_1 is None
    for r in (everything, empty, *summarize(layer(), Estimator(), MASKS)):
        again = json.loads(json.dumps(r.as_dict(), allow_nan=False))
        assert Row(**(again | {"shape": tuple(again["shape"])})) == r
    with (tmp_path / "rows.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(empty.as_dict()))
        writer.writerow(empty.as_dict())
    assert "nan" not in (tmp_path / "rows.csv").read_text().lower()


def test_shared_logarithms_change_no_bit_of_a_score():
    m = layer()
    for combination, bits in raw_scores(m):
        assert np.array_equal(bits.numpy(), raw_score(m, *combination).numpy(), equal_nan=True)
    assert sorted(c for c, _ in raw_scores(m)) == sorted(COMBINATIONS)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(("method", "reference", "error"), COMBINATIONS)
def test_a_histogram_gives_the_rows_of_every_estimator_within_a_bin(method, reference, error, dtype):
    m = layer((1, 12, 9, 11), dtype=dtype)
    histogram = Histogram.from_state(Histogram.of(m, MASKS).state())
    for probability, confidence in [(0.95, 0.95), (0.999, 0.99), (0.5, 0.5)]:
        estimator = Estimator(method, reference, error, probability, confidence)
        for exact, binned in zip(summarize(m, estimator, MASKS), histogram.rows(estimator), strict=True):
            exact, binned = exact.as_dict(), binned.as_dict()
            # Only the bin that the shift cuts in two can put elements on the wrong side of 0 bits.
            inside = MASKS.get(exact["region"], torch.ones(9, 11, dtype=torch.bool)).expand(m.shape)
            near = significant_bits(m, estimator)[inside].abs() < 1 / 16
            slack = float(near.sum()) / exact["elements"] if method == "cnh" else 0.0
            for name in ("share_number", "share_noise"):
                assert binned.pop(name) == pytest.approx(exact.pop(name), abs=slack + 1e-12)
            close = {"general": 1e-9, "cnh": 1 / 16 + 40 * slack}[method]
            for name in ("bits_mean", "bits_p05"):
                assert binned.pop(name) == pytest.approx(exact.pop(name), abs=close), name
            assert binned == exact


def test_a_histogram_counts_what_lies_outside_its_bins():
    reference = torch.tensor([0.0, 1e-30, 1.0])
    samples = torch.tensor([[1.0, 1.0, 1.0], [2.0, 2.0, 1.0 + 2**-23]])
    m = Moments.empty(reference).update(samples[0]).update(samples[1])
    (row,) = Histogram.of(m).rows(Estimator())
    assert (row.share_noise, row.share_number) == (pytest.approx(2 / 3), pytest.approx(1 / 3))
    with pytest.raises(InputError, match="per-element moments"):
        Histogram.of(m).row(Estimator(convention="published"))
    with pytest.raises(InputError, match="region of all, got 'brain'"):
        Histogram.of(m).row(Estimator(), "brain")


def test_overlapping_and_empty_masks_are_each_counted_alone():
    m = layer()
    masks = {
        "half": MASKS["brain"],
        "more": MASKS["brain"] | (torch.arange(11) < 4),
        "none": torch.zeros(9, 11, dtype=torch.bool),
    }
    general = Estimator("general")
    for exact, binned in zip(summarize(m, general, masks), Histogram.of(m, masks).rows(general), strict=True):
        for name, value in exact.as_dict().items():
            assert getattr(binned, name) == (
                pytest.approx(value) if isinstance(value, float) else exact.shape if name == "shape" else value
            ), name


@pytest.mark.parametrize("channels", [1, 2, 5, 8])
@pytest.mark.parametrize("spatial", [(), (7,), (6, 5), (3, 4, 5)], ids=str)
def test_a_channel_map_reduces_each_position_alone(channels, spatial):
    m = layer((1, channels, *spatial), seed=channels)
    estimator = Estimator()
    bits, majority, shares = channel_map(m, estimator)
    assert bits.shape == majority.shape == spatial and shares.shape == (8, *spatial)
    assert (bits.dtype, majority.dtype, shares.dtype) == (torch.float32, torch.uint8, torch.float32)
    each_bits, each_code = significant_bits(m, estimator)[0], classes(m, estimator)[0]
    for at in itertools.product(*map(range, spatial)):
        here = (slice(None), *at)
        median, code, share = layer_rows.position(each_bits[here].tolist(), each_code[here].tolist())
        assert float(bits[at]) == pytest.approx(median, rel=1e-6, nan_ok=True)
        assert int(majority[at]) == code
        assert shares[here].tolist() == pytest.approx(share)


def test_index_changes_are_a_rate_over_all_windows():
    reference = torch.zeros(1, 2, 9, 11, dtype=torch.int64)
    m = IndexMoments.empty(reference)
    for k in range(4):
        m.update(torch.where(MASKS["brain"] & (torch.arange(11) < k), 1, reference))
    changed = sum(int((MASKS["brain"] & (torch.arange(11) < k)).sum()) for k in range(4))
    rows = summarize(m, Estimator(), MASKS)
    assert [r.region for r in rows] == ["all", "brain", "background"]
    assert rows[0].index_change_rate == pytest.approx(changed / 4 / 99)
    assert rows[1].index_change_rate == pytest.approx(changed / 4 / int(MASKS["brain"].sum()))
    assert rows[2].index_change_rate == 0 and rows[0].bits_mean is None and rows[0].share_zero is None
    histogram = Histogram.from_state(Histogram.of(m, MASKS).state())
    for exact, binned in zip(rows, histogram.rows(Estimator()), strict=True):
        assert binned.index_change_rate == pytest.approx(exact.index_change_rate)
        assert (binned.elements, binned.region, binned.shape) == (exact.elements, exact.region, exact.shape)


def test_masks_and_layers_of_the_wrong_shape_are_refused_in_words():
    m = layer()
    with pytest.raises(InputError, match=r"'brain' to be bool of shape \(9, 11\)"):
        summarize(m, Estimator(), {"brain": torch.ones(11, 9, dtype=torch.bool)})
    with pytest.raises(InputError, match=r"torch\.float32"):
        Histogram.of(m, {"brain": torch.ones(9, 11)})
    with pytest.raises(InputError, match="cover the whole layer"):
        summarize(m, Estimator(), {"all": MASKS["brain"]})
    with pytest.raises(InputError, match=r"\(1, C, \*spatial\)"):
        channel_map(layer((2, 3, 4, 4)), Estimator())
    assert len(summarize(layer(()), Estimator())) == 1
