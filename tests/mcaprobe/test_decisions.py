"""How often do decisions flip? Against a twin that takes them one at a time, on every way that samples can run."""

import json
import shutil

import nibabel as nib
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import mcaprobe
from mcaprobe import units
from mcaprobe.__main__ import main
from mcaprobe.flips import claim
from mcaprobe.lanes import LockstepError
from mcaprobe.masks import IndexChange
from mcaprobe.observer import Observer
from mcaprobe.result import Result
from mcaprobe.statistics import IndexMoments
from mcaprobe.stores import MemoryStore
from mcaprobe.summary import summarize
from tests.mcaprobe import small_models as models
from tests.mcaprobe.made_runs import FINE, POOLED, make_run, place_of
from tests.mcaprobe.run_directories import expect_equal
from tests.mcaprobe.small_models import Model
from tests.mcaprobe.voting import LABELS, head_file, vote
from tests.reference import decision_twin as twin


@pytest.fixture(scope="module")
def voted(tmp_path_factory):
    """A folder with the head and a run of it, `run`."""
    folder = tmp_path_factory.mktemp("voted")
    head_file(folder)
    vote(folder, folder / "run")
    return folder


def alone(monkeypatch) -> None:
    """Let samples run one at a time."""

    def never(*args):
        raise LockstepError("not today")

    monkeypatch.setattr(units, "side_by_side", never)


@pytest.mark.parametrize("how", ["exact", "model", "alone", "exact alone", "two threads"])
def test_labels_are_those_of_the_outputs_sample_by_sample(voted, monkeypatch, how):
    if "alone" in how:
        alone(monkeypatch)
    options = {"route": how.split()[0]} if how.split()[0] in ("exact", "model") else {}
    result = vote(voted, threads=2 if how == "two threads" else 1, **options)
    reference = twin.labels(result.activation(":output", None))
    samples = [twin.labels(result.activation(":output", k)) for k in range(6)]
    assert torch.equal(result.activation(LABELS, None), reference)
    for k, sample in enumerate(samples):
        assert torch.equal(result.activation(LABELS, k), sample)
    counts = twin.flip_counts(reference, samples)
    moments = result[LABELS].moments
    assert torch.equal(moments.reference, reference) and torch.equal(moments.changes.long(), counts)
    assert moments.n == 6 and 0 < int((counts > 0).sum()) < counts.numel()
    found = {d.region: d for d in mcaprobe.decisions(result, LABELS)}
    masks = {"all": torch.ones(24, 24, dtype=torch.bool), **result[LABELS].masks}
    assert set(found) == {"all", "brain", "background"} == set(masks)
    for region, where in masks.items():
        d = found[region]
        expected = twin.shares(counts, 6, where)
        assert (d.decisions, d.flip_rate, d.flipped_once, d.largest_rate) == pytest.approx(expected), region
        assert result[LABELS].row(region).index_change_rate == d.flip_rate


def test_every_way_to_run_gives_the_same_bits(voted, tmp_path, monkeypatch):
    vote(voted, tmp_path / "threads", threads=2)
    vote(voted, tmp_path / "chunks", chunk=2)
    alone(monkeypatch)
    vote(voted, tmp_path / "alone")
    for name in ("threads", "chunks", "alone"):
        if name == "alone":
            shutil.copy(voted / "run/manifest.json", tmp_path / "alone/manifest.json")
        expect_equal(voted / "run", tmp_path / name)
    assert (voted / "run/layers/%3Aoutput.labels.safetensors").is_file()


class Stop(Observer):
    """Interrupts when the third chunk starts."""

    def __init__(self) -> None:
        self.chunks = 0

    def chunk(self, first, last):
        self.chunks += 1
        if self.chunks == 3:
            raise KeyboardInterrupt


def test_a_run_that_was_interrupted_ends_with_the_same_labels(voted, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        vote(voted, tmp_path / "run", Stop(), chunk=2)
    assert list((tmp_path / "run/chunks").rglob("%3Aoutput.labels.safetensors"))
    vote(voted, tmp_path / "run", chunk=2)
    expect_equal(voted / "run", tmp_path / "run")


def test_labels_leave_all_other_layers_as_they_were(voted):
    both, without = vote(voted), vote(voted, layers=["conv*", "*pool*"])
    assert LABELS in both and LABELS not in without
    for name in ("conv1", "pool", "unpool", "conv2"):
        assert torch.equal(both[name].moments.m2, without[name].moments.m2)
    assert "argmax" not in both.manifest["operators"]


def test_labels_alone_can_be_recorded(voted):
    result = vote(voted, layers=LABELS)
    assert result.layers == [LABELS] and not result.manifest["aliases"]
    assert torch.equal(result[LABELS].moments.changes, mcaprobe.load(voted / "run")[LABELS].moments.changes)


def test_steps_aliases_and_the_claim_are_told(voted):
    found = mcaprobe.decisions(voted / "run")
    assert [(d.step, d.layer, d.region) for d in found] == [
        (step, layer, region)
        for step, layer in (("pool", "pool.indices"), ("labels", LABELS))
        for region in ("all", "brain", "background")
    ]
    assert found[0].aliases == ("unpool.targets",) and found[3].aliases == ()
    assert {d.n for d in found} == {6} and found[0].shape == (1, 4, 12, 12) and found[3].shape == (1, 24, 24)
    assert found[0].never_seen_at_most == pytest.approx(1 - 0.05 ** (1 / 6))
    assert found[0].claim == claim(6, 0.95) and "flips in at most 0.39 of all runs" in found[0].claim
    (strict, *_) = mcaprobe.decisions(mcaprobe.load(voted / "run"), LABELS, confidence=0.99)
    assert strict.never_seen_at_most == pytest.approx(1 - 0.01 ** (1 / 6))
    assert strict.as_dict()["never_seen_at_most"] == strict.never_seen_at_most
    with pytest.raises(mcaprobe.InputError, match="The layer glob conv9 matches none"):
        mcaprobe.decisions(voted / "run", "conv9")
    with pytest.raises(mcaprobe.InputError, match="confidence"):
        mcaprobe.decisions(voted / "run", confidence=1.5)


@given(st.data())
def test_shares_of_decisions_are_those_of_the_twin(data):
    shape = tuple(data.draw(st.lists(st.integers(1, 3), min_size=1, max_size=4)))
    n, size = data.draw(st.integers(1, 6)), int(np.prod(shape))
    draws = [torch.tensor(data.draw(st.lists(st.integers(0, 2), min_size=size, max_size=size))) for _ in range(n + 1)]
    reference, *samples = (values.reshape(shape) for values in draws)
    inside = torch.tensor(data.draw(st.lists(st.booleans(), min_size=shape[-1], max_size=shape[-1])))
    moments = IndexMoments.empty(reference)
    for sample in samples:
        moments.update(sample)
    store, masks = MemoryStore(), {"brain": inside, "background": ~inside}
    tensors = {f"moments.{key}": value for key, value in moments.state().items()}
    store.put("x:topk.indices", tensors | {f"mask.{key}": value for key, value in masks.items()}, {})
    about = {"operator": "topk", "shape": list(shape), "dtype": "int64", "grid": None, "step": "argmax"}
    rows = summarize(moments, masks=masks, layer="x:topk.indices", operator="topk")
    identity = {"confidence": 0.9}
    manifest = {"layers": {"x:topk.indices": about}, "aliases": {}, "samples": n, "identity": identity}
    counts = twin.flip_counts(reference, samples)
    for d in mcaprobe.decisions(Result(manifest, rows, store, None)):
        where = {"all": torch.ones_like(inside), **masks}[d.region]
        expected = twin.shares(counts, n, where)
        found = (d.decisions, d.flip_rate, d.flipped_once, d.largest_rate)
        assert found == pytest.approx(expected) and d.step == "argmax"
        assert d.never_seen_at_most == pytest.approx(1 - 0.1 ** (1 / n))


def test_without_moments_there_is_the_flip_rate_alone(voted):
    full = mcaprobe.decisions(voted / "run")
    bare = mcaprobe.decisions(vote(voted, keep_moments=(), keep_samples=()))
    assert [d.flip_rate for d in bare] == [d.flip_rate for d in full]
    assert {d.largest_rate for d in bare} == {d.flipped_once for d in bare} == {None}


def test_a_network_without_selections_has_no_decisions():
    assert mcaprobe.decisions(mcaprobe.run(models.build_line(), models.line(), samples=2)) == []


CLASSIFIERS = {
    "table": (lambda m, x: m.fc(x), nn.Linear(6, 4), (3, 6), (3,)),
    "classes of an image": (lambda m, x: m.fc(x.mean((2, 3))), nn.Linear(2, 5), (1, 2, 4, 4), (1,)),
}


@pytest.mark.parametrize(("forward", "fc", "shape", "expected"), CLASSIFIERS.values(), ids=CLASSIFIERS)
@pytest.mark.parametrize("one_at_a_time", [False, True])
def test_classes_are_decisions_without_a_place(monkeypatch, forward, fc, shape, expected, one_at_a_time):
    if one_at_a_time:
        alone(monkeypatch)
    with torch.no_grad():
        fc.weight[1], fc.bias[1] = fc.weight[0], fc.bias[0]
        fc.bias[:2] += 10
    x = torch.rand(shape, generator=torch.Generator().manual_seed(3))
    result = mcaprobe.run(Model(forward, fc=fc), x, samples=8, keep_samples="*")
    counts = twin.flip_counts(
        twin.labels(result.activation("fc", None)), [twin.labels(result.activation("fc", k)) for k in range(8)]
    )
    (found,) = mcaprobe.decisions(result)
    assert (found.step, found.shape, found.region) == ("labels", expected, "all")
    assert torch.equal(result[LABELS].moments.changes.long(), counts) and counts.sum() > 0
    assert not result[LABELS].spatial and not result[LABELS].has_map


def argmax_inside(m, x):
    y = m.conv(x)
    return torch.where(m.choose(y).unsqueeze(1) == 0, y, -y)


@pytest.mark.parametrize("one_at_a_time", [False, True])
def test_what_the_models_own_argmax_chose_is_a_decision_in_its_place(monkeypatch, one_at_a_time):
    """Two channels of the same weights: rounding decides. The emulator leaves the choice itself exact."""
    if one_at_a_time:
        alone(monkeypatch)
    conv = nn.Conv2d(1, 2, 3, padding=1)
    with torch.no_grad():
        conv.weight[1], conv.bias[1] = conv.weight[0], conv.bias[0]
    model = Model(argmax_inside, conv=conv, choose=Model(lambda m, y: y.argmax(1)))
    result = mcaprobe.run(model, models.image(), samples=4, keep_samples="*")
    (found, *_) = mcaprobe.decisions(result)
    assert (found.step, found.layer, found.aliases) == ("argmax", "choose:argmax", ("choose",))
    assert result.manifest["operators"]["argmax"] == "exact" and 0 < found.flip_rate < 1
    reference = twin.labels(result.activation("conv", None))
    counts = twin.flip_counts(reference, [twin.labels(result.activation("conv", k)) for k in range(4)])
    assert torch.equal(result["choose"].moments.changes.long(), counts)
    layer = result["choose:argmax"]
    assert layer.spatial and layer.image_axes == 2 and layer.shape == (1, 16, 16)


def test_a_run_made_before_decisions_had_a_step_still_loads(voted, tmp_path):
    shutil.copytree(voted / "run", tmp_path / "old")
    path = tmp_path / "old/manifest.json"
    manifest = json.loads(path.read_text())
    del manifest["layers"][LABELS], manifest["aliases"]["unpool.targets"]
    for about in manifest["layers"].values():
        del about["step"]
    path.write_text(json.dumps(manifest))
    (tmp_path / "old/layers/%3Aoutput.labels.safetensors").unlink()
    table = (tmp_path / "old/table.csv").read_text().splitlines()
    (tmp_path / "old/table.csv").write_text("\n".join(line for line in table if LABELS not in line) + "\n")
    found = mcaprobe.decisions(tmp_path / "old")
    assert [(d.step, d.layer, d.aliases) for d in found] == [("pool", "pool.indices", ())] * 3
    compared = mcaprobe.compare(tmp_path / "old", voted / "run")
    assert [m.layer for m in compared.missing] == [LABELS]
    rates = {row.region: (row.index_change_rate_a, row.index_change_rate_b) for row in compared.rows if row.is_index}
    assert rates == {d.region: (d.flip_rate, d.flip_rate) for d in found}


def test_labels_of_two_runs_are_compared(voted):
    other = vote(voted, seed=1)
    rows = [row for row in mcaprobe.compare(voted / "run", other).rows if row.layer == LABELS]
    assert [row.region for row in rows] == ["all", "brain", "background"]
    mine, theirs = (mcaprobe.decisions(run, LABELS) for run in (voted / "run", other))
    for row, a, b in zip(rows, mine, theirs, strict=True):
        assert row.is_index and row.dice is None and row.operator == "Voting"
        assert (row.index_change_rate_a, row.index_change_rate_b) == (a.flip_rate, b.flip_rate)


def test_a_mask_marks_the_voxels_whose_label_flips(voted, tmp_path):
    arguments = ["mask", str(voted / "run"), "--index-change-rate", ".3", "--layers", LABELS, "--out"]
    assert main([*arguments, str(tmp_path / "m"), "--reduce", "any", "all", "share", "none"]) == 0
    result = mcaprobe.load(voted / "run")
    reference = twin.labels(result.activation(":output", None))
    counts = twin.flip_counts(reference, [twin.labels(result.activation(":output", k)) for k in range(6)])
    marked = counts >= 2  # of 6
    mask = mcaprobe.load_masks(tmp_path / "m", result)[LABELS]
    assert torch.equal(mask.values, marked) and 0 < mask.masked < marked.numel()
    assert mask.about["Tensor"] == "labels of :output" and mask.about["ImageAxes"] == 2
    stem = "sub-7_label-outputlabels_desc-unstable"
    whole = nib.load(voted / "run/maps/conv2.nii.gz")
    for name in ("_mask", "All_mask", "_probseg", "Channels_mask"):
        image = nib.load(tmp_path / f"m/{stem}{name}.nii.gz")
        assert np.array_equal(np.asarray(image.dataobj)[:, :, 0], marked[0].numpy()), name
        assert np.array_equal(image.affine, whole.affine)
        about = json.loads((tmp_path / f"m/{stem}{name}.json").read_text())
        assert about["Voxels"] == 24 * 24 and about["MaskedVoxels"] == mask.masked and about["UndefinedVoxels"] == 0
    for how in ("any", "all", "none"):
        assert torch.equal(mask.reduced(how).reshape(24, 24), marked[0])
    assert torch.equal(mcaprobe.unstable(result, LABELS, IndexChange(0.3)).values, marked)


def test_a_layer_of_labels_of_a_made_run_is_placed_on_its_image(tmp_path):
    generator = torch.Generator().manual_seed(0)
    reference = torch.randint(0, 3, (1, 8, 6), generator=generator)
    samples = torch.randint(0, 3, (5, 1, 8, 6), generator=generator)
    pooled = torch.zeros(1, 2, 4, 3, dtype=torch.int64)
    layers = {LABELS: (reference, samples), "pool.indices": (pooled, pooled.repeat(5, 1, 1, 1, 1))}
    place = place_of(torch.diag(torch.tensor([2.0, 3.0, 1.0, 1.0], dtype=torch.float64)), 2, (8, 6))
    run = make_run(tmp_path / "run", layers, grids={LABELS: FINE, "pool.indices": POOLED}, place=place)
    assert main(["mask", str(run), "--index-change-rate", ".5", "--out", str(tmp_path / "m")]) == 0
    image = nib.load(next((tmp_path / "m").glob("*outputlabels_desc-unstable_mask.nii.gz")))
    expected = twin.flip_counts(reference, list(samples)) >= 3
    assert np.array_equal(np.asarray(image.dataobj)[:, :, 0], expected[0].numpy())
    assert np.array_equal(image.affine, np.diag([2.0, 3.0, 1.0, 1.0]))
