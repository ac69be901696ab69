"""Does the comparison measure what it says? Tiny heads, two steps of training; no time is asserted."""

import csv
import itertools
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from matplotlib import pyplot
from torch import Tensor, nn

import nanops
from analyses import kept
from analyses.__main__ import main
from analyses.commands import run as command
from analyses.experiments import studies
from analyses.experiments.comparison import measures
from analyses.experiments.comparison.networks import ENTRIES, FAMILIES, STOCK, Config, Trained, entry
from analyses.experiments.comparison.rows import row
from analyses.figures.compare import pareto
from analyses.models.nnunet import PlainUNet
from analyses.training.budget import Budget, built, train
from analyses.training.losses import segmentation_loss
from analyses.training.synthetic_heads import CLASSES, LEARNT, UNSEEN, Heads, head, load_heads
from mcaprobe.errors import InputError

TINY = Config(
    heads=Heads(size=8), budget=Budget(steps=2), features=(4, 8, 16), learnt=2, unseen=2, probed=8, samples=2,
    repetitions=1, seconds=1e-3,
)  # fmt: skip


@pytest.fixture(scope="module")
def trained() -> Trained:
    return Trained(TINY)


def test_the_background_of_a_head_is_exactly_zero_and_all_classes_are_there() -> None:
    for index in range(5):
        image, classes = head(Heads(), LEARNT, index)
        assert image.shape == (1, 24, 24, 24) and image.dtype == torch.float32 and classes.dtype == torch.int64
        assert not image[0][classes == 0].any() and float(image.min()) == 0
        assert float((image[0][classes > 0] > 0).float().mean()) > 0.99
        assert classes.unique().tolist() == list(range(CLASSES))


def test_the_spheres_lie_in_the_inner_ellipsoid_one_on_either_side() -> None:
    _, classes = head(Heads(), LEARNT, 3)
    columns = (classes == 3).any(0).any(0)
    places = columns.nonzero().flatten().tolist()
    gaps = [b - a for a, b in itertools.pairwise(places) if b - a > 1]
    assert len(gaps) == 1, "two runs of columns along the last axis"
    shell = torch.nn.functional.max_pool3d((classes < 2).float()[None], 3, 1, 1)[0].bool()
    assert not (shell & (classes == 3)).any(), "a voxel of the inner ellipsoid lies around them"


def test_spheres_that_are_too_large_end_at_the_inner_ellipsoid() -> None:
    large, tiny = (head(Heads(radius=(r, r)), LEARNT, 0)[1] for r in (0.6, 0.1))
    assert torch.equal(large >= 2, tiny >= 2) and int((large == 3).sum()) > int((tiny == 3).sum())


def test_heads_depend_on_seed_index_and_part_alone() -> None:
    first = head(Heads(seed=1), LEARNT, 0)
    assert all(torch.equal(a, b) for a, b in zip(first, head(Heads(seed=1), LEARNT, 0), strict=True))
    for other in (head(Heads(seed=2), LEARNT, 0), head(Heads(seed=1), UNSEEN, 0), head(Heads(seed=1), LEARNT, 1)):
        assert not torch.equal(first[0], other[0])


@pytest.mark.parametrize(
    ("act", "says"),
    [
        (lambda: Heads(size=7), "size of 8 or more"),
        (lambda: load_heads(Heads(), 2, 1), "got 2 and 1"),
        (lambda: load_heads(Heads(), LEARNT, 0), "got 0 and 0"),
        (lambda: Budget(steps=0), "got 0 and 1"),
        (lambda: entry("int9"), "'int9'.*'int8'"),
    ],
)
def test_what_makes_no_sense_is_refused(act: Callable[[], object], says: str) -> None:
    with pytest.raises(InputError, match=says):
        act()


def test_the_loss_of_a_volume_is_that_of_its_slices_side_by_side() -> None:
    logits = torch.randn((1, 3, 4, 5, 6), generator=torch.Generator().manual_seed(0))
    target = torch.randint(3, (1, 4, 5, 6), generator=torch.Generator().manual_seed(1))
    flat = segmentation_loss(logits.flatten(2, 3), target.flatten(1, 2))
    torch.testing.assert_close(segmentation_loss(logits, target), flat)


def small() -> nn.Module:
    return PlainUNet(3, 1, CLASSES, (4, 8))


def test_training_lowers_the_loss_and_repeats_bit_by_bit() -> None:
    heads = load_heads(Heads(size=8), LEARNT, 4)
    budget = Budget(steps=20, batch=2)
    first, second = (built(small, budget) for _ in range(2))
    losses = train(first, *heads, budget)
    assert losses == train(second, *heads, budget) and not first.training
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])


def test_a_loss_that_is_no_number_ends_the_training() -> None:
    images, classes = load_heads(Heads(size=8), LEARNT, 2)
    with pytest.raises(FloatingPointError, match="got nan at step 0"):
        train(small(), images * torch.nan, classes, Budget(steps=2))


class Constant(nn.Module):
    """Says one class everywhere."""

    def __init__(self, label: int) -> None:
        super().__init__()
        self.label = label

    def forward(self, x: Tensor) -> Tensor:
        return torch.nn.functional.one_hot(torch.full_like(x[:, 0], self.label).long(), 3).movedim(-1, 1).float()


def test_dice_is_that_of_each_volume_and_class() -> None:
    classes = torch.tensor([[[[1, 1, 0, 0]]], [[[1, 1, 1, 0]]]])
    scores = measures.dice(Constant(1), torch.zeros(2, 1, 1, 1, 4), classes, 3)
    assert [round(row[1], 6) for row in scores] == [round(4 / 6, 6), round(6 / 7, 6)]
    assert [row[0] for row in scores] == [0, 0] and all(row[2] != row[2] for row in scores)
    found = measures.accuracy(scores, [[0.0, 0.5, float("nan")], [0.0, 0.5, float("nan")]])
    assert found["dice"] == pytest.approx((4 / 6 + 6 / 7) / 2) and found["dice_2"] is None
    assert found["difference"] == pytest.approx(found["dice"] - 0.5)
    assert found["dice_low"] == pytest.approx(4 / 6) and found["difference_high"] == pytest.approx(6 / 7 - 0.5)


def test_the_mean_leaves_out_the_background_and_absent_classes() -> None:
    assert measures.means([[1.0, 0.5, float("nan")], [1.0, 0.2, 0.4]]) == pytest.approx([0.5, 0.3])


def test_kernels_of_zeros_count_neither_as_parameters_nor_as_products() -> None:
    conv = nn.Conv3d(2, 4, 3, padding=1)
    with torch.no_grad():
        conv.weight[1] = 0
        conv.weight[2, 0] = 0
    found = measures.size(nn.Sequential(conv), (1, 2, 4, 4, 4))
    assert found["parameters"] == 8 * 27 + 4 and found["parameters_not_zero"] == 5 * 27 + 4
    assert found["macs"] == 8 * 27 * 64 and found["macs_not_zero"] == 5 * 27 * 64


def test_executed_products_are_those_of_windows_that_were_not_skipped() -> None:
    torch.manual_seed(0)
    model = PlainUNet(3, 1, CLASSES, (4, 8, 16), downsampling="pool").eval()
    images = torch.zeros(2, 1, 16, 16, 16)  # all ties: an unpool's NaNs reach the convolutions behind it
    macs = measures.size(model, (1, 1, 16, 16, 16))["macs"]
    found = measures.executed(nanops.convert(model, "conservative", 0.5), images, macs)
    assert measures.executed(model, images, macs) == {"macs_executed": macs, "windows_skipped": 0.0}
    assert 0 < found["macs_executed"] < macs and found["windows_skipped"] > 0
    never = measures.executed(nanops.convert(model, None, 1.0), images, macs)
    assert never["macs_executed"] == macs, "counted from the windows as from the shapes"


@pytest.mark.parametrize("name", [e.name for e in ENTRIES])
def test_every_row_has_all_its_cells(name: str, trained: Trained) -> None:
    tables = row(name, trained, lambda words: None)
    (found,) = tables["rows"]
    assert 0 <= found["dice_low"] <= found["dice"] <= found["dice_high"] <= 1
    assert len(tables["dice"]) == TINY.unseen * CLASSES
    assert 0 < found["macs_not_zero"] <= found["macs"] and 0 < found["macs_executed"] <= found["macs"]
    assert found["ms"] > 0 and found["peak_bytes"] > 0 and found["speed_up"] > 0
    unseen = entry(name).unprobed
    assert found["no_bits"] == unseen and bool(tables["layers"]) == (not unseen)
    if not unseen:
        assert found["samples"] == 2 and found["worst_bits"] <= found["bits"] and found["label_flips"] is not None
        worst = [layer["bits"] for layer in tables["layers"] if layer["layer"] == found["worst_layer"]]
        assert worst == [found["worst_bits"]]
    if name == STOCK:
        assert found["difference"] == 0
    json.dumps(tables)


def test_rows_differ_where_their_networks_do(trained: Trained) -> None:
    found = {e.name: measures.size(trained.shaped(e), (1, 1, 8, 8, 8)) for e in ENTRIES}
    stock = found[STOCK]
    assert found["half width"]["parameters"] < 0.3 * stock["parameters"]
    assert found["FasterFusion, training form"]["parameters"] < found["FasterFusion, fused"]["parameters"]
    assert found["magnitude pruning"]["parameters"] == stock["parameters"] > 1.2 * found["magnitude pruning"][
        "parameters_not_zero"
    ]
    dense, sparse = found["E2ENet, dense"], found["E2ENet, sparse"]
    assert sparse["parameters"] == dense["parameters"] == dense["parameters_not_zero"] > sparse["parameters_not_zero"]


def test_each_family_is_trained_once_and_conversions_leave_its_network(trained: Trained) -> None:
    before = {name: trained.network(name) for name in FAMILIES}
    kept_weights = {name: [p.clone() for p in network.parameters()] for name, network in before.items()}
    for e in ENTRIES:
        trained.computing(e)
    for name, network in before.items():
        assert trained.network(name) is network
        assert all(torch.equal(a, b) for a, b in zip(network.parameters(), kept_weights[name], strict=True))


def test_the_command_keeps_its_rows_and_draws_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    few = [e for e in ENTRIES if e.name in (STOCK, "int8", "NaN, conservative")]
    monkeypatch.setattr(studies.comparison, "ENTRIES", few)
    monkeypatch.setattr(studies.comparison, "Config", lambda **given: replace(TINY, **given))
    monkeypatch.setattr(command, "Kept", lambda name, identity: kept.Kept(name, identity, tmp_path / "kept"))
    arguments = ["run", "compare", "--steps", "3", "--repetitions", "1", "--out", str(tmp_path)]
    assert main(arguments) == 0
    first = (tmp_path / "compare_rows.csv").read_text()
    assert [line["network"] for line in csv.DictReader(first.splitlines())] == [e.name for e in few]
    manifest = json.loads((tmp_path / "compare.json").read_text())
    assert manifest["parts"]["int8"]["config"]["budget"]["steps"] == 3 and manifest["tables"]["rows"] == 3
    monkeypatch.setattr(studies.comparison_rows, "row", lambda *args: pytest.fail("computed again"))
    assert main(arguments) == 0 and (tmp_path / "compare_rows.csv").read_text() == first
    assert main(["draw", "compare", "--results", str(tmp_path)]) == 0
    text = (tmp_path / "compare.md").read_text()
    assert "| int8 |" in text and "integer kernels" in text and (tmp_path / "compare.png").stat().st_size > 10_000
    pyplot.close("all")
    assert main(["run", "compare", "--steps", "0"]) == 2
    assert "--steps of at least 1" in capsys.readouterr().err


def test_the_pareto_front_has_what_nothing_else_beats() -> None:
    rows = [{"network": n, "ms": ms, "dice": d} for n, ms, d in
            [("a", "3", ".9"), ("b", "1", ".5"), ("c", "2", ".4"), ("d", "2", ".8"), ("e", "4", ".9")]]  # fmt: skip
    assert [r["network"] for r in pareto(rows)] == ["b", "d", "a"]
