"""Rows of the comparison of NaNs and unstable elements, against loops over the elements; and their summaries."""

import math
from itertools import pairwise

import pytest
import torch

import mcaprobe
import nanops
from analyses.validation import summary
from analyses.validation.agreement import (
    EDGES,
    agreement_of,
    counts,
    layer_rows,
    place_rows,
    signed_distance,
    window_rows,
    zone,
)
from analyses.validation.instability import LayerMasks, Sampling, layer_masks
from analyses.validation.nans import nans_of, several
from analyses.validation.study import total
from mcaprobe.agreement import Agreement
from tests.nanops.nets import Functional, Modules, image, seeded


def made_layer(seed=0, shape=(1, 3, 8, 8)):
    g = torch.Generator().manual_seed(seed)
    unstable = torch.rand(shape, generator=g) < 0.4
    undefined = ~unstable & (torch.rand(shape, generator=g) < 0.5)
    nan = torch.rand(shape, generator=g) < 0.5
    return LayerMasks("decode.unpool", "MaxUnpool2d", {"below 1 bit": unstable}, undefined, [(2.0, 0.5)] * 2), nan


def test_a_row_counts_every_element():
    layer, nan = made_layer()
    (row,) = layer_rows({"subject": "a"}, layer, nan)
    truth, silent = layer.unstable["below 1 bit"].flatten().tolist(), layer.undefined.flatten().tolist()
    triples = list(zip(nan.flatten().tolist(), truth, silent, strict=True))
    assert row["elements"] == len(triples) and row["predicted"] == sum(n for n, _, _ in triples)
    assert row["both"] == sum(n and t for n, t, _ in triples)
    assert row["predicted_undefined"] == sum(n and s for n, _, s in triples)
    assert row["undefined"] == sum(silent) and row["true"] == sum(truth)


def test_the_distance_is_that_to_the_nearest_pixel_of_the_other_kind():
    brain = torch.zeros(9, 11, dtype=torch.bool)
    brain[2:6, 3:8] = True
    brain[4, 5] = False
    found = signed_distance(brain)
    for y in range(9):
        for x in range(11):
            others = [(a, b) for a in range(9) for b in range(11) if brain[a, b] != brain[y, x]]
            nearest = min(math.dist((y, x), other) for other in others)
            assert float(found[y, x]) == pytest.approx(nearest if brain[y, x] else -nearest)


def test_far_from_a_brain_that_is_not_there():
    assert torch.isneginf(signed_distance(torch.zeros(3, 3, dtype=torch.bool))).all()


def test_bands_are_disjoint_and_hold_every_element():
    layer, nan = made_layer()
    brain = torch.zeros(16, 16, dtype=torch.bool)
    brain[4:12, 4:12] = True
    found = list(place_rows({}, layer, nan, signed_distance(brain), edges=(-math.inf, -3, 0, 3, math.inf)))
    assert sum(row["elements"] for row in found) == nan.numel()
    assert sum(row["predicted"] for row in found) == int(nan.sum())
    # Element (i, j) of the layer lies at (2 i + .5, 2 j + .5): the nearest voxel has the higher index.
    inside = next(row for row in found if row["low"] == 3)
    distance = signed_distance(brain)
    places = [(i, j) for i in range(8) for j in range(8) if distance[2 * i + 1, 2 * j + 1] >= 3]
    assert inside["elements"] == 3 * len(places)
    assert inside["predicted"] == sum(int(nan[0, :, i, j].sum()) for i, j in places)


def test_zones():
    assert [zone(low, high) for low, high in pairwise(EDGES)] == [
        *["background"] * 5, "boundary", *["inside"] * 3,
    ]  # fmt: skip


@pytest.mark.parametrize("word", [torch.uint8, torch.int16, torch.int32])
def test_several_bits(word):
    words = torch.tensor([0, 1, 2, 3, 4, 5, 64, 96, 127], dtype=word)
    assert several(words).tolist() == [bin(int(w)).count("1") > 1 for w in words]


@pytest.mark.parametrize("pooling", ["conservative", "aggressive", "hybrid"])
def test_nans_are_those_of_the_layers(pooling):
    converted, x = nanops.convert(seeded(Modules()), pooling), image(1)
    names = ["pool", "pool.indices", "unpool", "conv2"]
    found = nans_of(converted, x, names)
    expected = {}
    handles = [
        module.register_forward_hook(lambda m, a, y, name=name: expected.update({name: y}))
        for name, module in converted.named_modules() if name
    ]  # fmt: skip
    with torch.inference_mode():
        assert torch.equal(converted(x), found.output)
    for handle in handles:
        handle.remove()
    values, indices = expected["pool"]
    assert torch.equal(found.masks["pool"], values.isnan())
    assert torch.equal(found.masks["unpool"], expected["unpool"].isnan()) and found.masks["unpool"].any()
    bits = torch.tensor([[bin(int(w)).count("1") for w in c.flatten()] for c in indices[0]]).view(indices.shape)
    ambiguous = values.isnan() if pooling == "aggressive" else (bits > 1) | values.isnan()
    assert torch.equal(found.ambiguous["pool.indices"], ambiguous) and ambiguous.any()
    assert found.skipped.total.windows > 0


def test_windows_are_counted_by_the_samples_that_changed_them():
    model, x = seeded(Modules()), image(1)
    run = mcaprobe.run(model, x, samples=5)
    found = nans_of(nanops.convert(model), x, run.layers)
    (row,) = window_rows({}, run, found)
    moved = run["pool.indices"].moments.changes
    ambiguous = found.ambiguous["pool.indices"]
    assert row["true"] == int((moved > 0).sum()) > 0 and row["predicted"] == int(ambiguous.sum()) > 0
    assert row["both"] == int((ambiguous & (moved > 0)).sum())
    assert row["predicted_once"] == int((ambiguous & (moved == 1)).sum())
    assert row["flips"] == int(moved.sum()) and row["predicted_flips"] == int(moved[ambiguous].sum())


def test_masks_of_a_campaign_are_those_of_mcaprobe():
    run = mcaprobe.run(seeded(Functional()), image(1), samples=5)
    sampling = Sampling(samples=5)
    found = {layer.name: layer for layer in layer_masks(run, sampling)}
    for name, layer in found.items():
        mask = mcaprobe.unstable(run, name)
        assert torch.equal(layer.unstable["below 1 bit"], mask.values)
        assert torch.equal(layer.undefined, mask.undefined)
    assert "pool.indices" not in found and len(found) >= 5


def test_slices_of_a_subject_are_added_up_and_the_papers_figure_is_averaged():
    rows = [
        {"subject": "a", "method": "m", "slices": 1, "macs": 10, "spared": 4, "mean_over_layers": 0.2},
        {"subject": "a", "method": "m", "slices": 1, "macs": 10, "spared": 6, "mean_over_layers": 0.4},
        {"subject": "b", "method": "m", "slices": 1, "macs": 10, "spared": 1, "mean_over_layers": 0.6},
    ]
    a, b = total(rows)
    assert (a["slices"], a["macs"], a["spared"]) == (2, 20, 10) and a["mean_over_layers"] == pytest.approx(0.3)
    assert (b["slices"], b["spared"], b["mean_over_layers"]) == (1, 1, 0.6)
    assert rows[0]["macs"] == 10


def row(subject, layer, both, predicted, true, elements=100, operator="MaxUnpool2d", undefined=0):
    counts = {"both": both, "predicted": predicted, "true": true, "elements": elements}
    texts = {key: str(value) for key, value in (counts | {"predicted_undefined": undefined}).items()}
    return {"subject": subject, "method": "m", "criterion": "c", "layer": layer, "operator": operator, **texts}


def test_a_summary_is_the_mean_over_subjects_of_their_own_sums():
    rows = [
        row("a", "x", 10, 20, 20), row("a", "y", 0, 20, 20, operator="Conv2d"),
        row("b", "x", 20, 20, 20), row("b", "y", 20, 20, 20, operator="Conv2d", undefined=0),
    ]  # fmt: skip
    found = {r["layer"]: r for r in summary.layers(rows)}
    assert found["x"]["dice"] == pytest.approx((0.5 + 1) / 2) and found["x"]["subjects"] == 2
    assert found["all layers"]["dice"] == pytest.approx((10 / 40 + 1) / 2)
    assert found["unpooling outputs"]["dice"] == found["x"]["dice"]
    assert found["convolution outputs"]["dice"] == found["y"]["dice"] == pytest.approx(0.5)
    assert found["x"]["dice_low"] <= found["x"]["dice"] <= found["x"]["dice_high"]
    assert found["x"]["nan_on_stable"] == pytest.approx(0.25) == found["x"]["unstable_missed"]


def test_a_subject_without_a_score_is_left_out_and_counted():
    rows = [row("a", "x", 10, 20, 20), row("b", "x", 0, 0, 0)]
    found = next(r for r in summary.layers(rows) if r["layer"] == "x")
    assert found["dice"] == pytest.approx(0.5) and (found["subjects"], found["subjects_with_dice"]) == (2, 1)


def test_the_ceiling_of_the_precision_never_exceeds_one():
    base = row("a", "x", 80, 100, 80) | {"samples": "10", "flips": "200", "predicted_flips": "150"}
    few = next(summary.windows([base | {"predicted_once": "6", "predicted_twice": "9"}]))
    assert few["never_seen"] == pytest.approx(0.9 * 36 / 18) and few["share_of_flips"] == 0.75
    assert few["precision_with_never_seen"] == pytest.approx((80 + 1.8) / 100)
    many = next(summary.windows([base | {"predicted_once": "60", "predicted_twice": "9"}]))
    assert many["precision_with_never_seen"] == 1


def test_the_cells_of_counts_are_read_as_they_were_written():
    found = Agreement(a=4, b=2, both=1, elements=9)
    cells = counts(found)
    assert cells == {"elements": 9, "predicted": 4, "true": 2, "both": 1}
    assert agreement_of(cells) == agreement_of({name: str(value) for name, value in cells.items()}) == found


def test_places_of_all_subjects_together():
    place = {"low": "-8", "high": "-2", "zone": "background"}
    found = list(summary.places([row("a", "x", 1, 2, 3) | place, row("b", "x", 1, 2, 3) | place]))
    assert len(found) == 1 and found[0]["subjects"] == 2
    assert agreement_of(found[0]).a == 4


