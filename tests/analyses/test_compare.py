"""Does the comparison measure what it says? Tiny heads, two steps of training; no time is asserted."""

import csv
import itertools
import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib import pyplot
from scipy import stats
from torch import Tensor, nn

import nanops
from analyses import kept
from analyses.__main__ import main
from analyses.commands import run as command
from analyses.experiments import studies
from analyses.experiments.comparison import measures, rows
from analyses.experiments.comparison.answers import answers
from analyses.experiments.comparison.combined import combined, work
from analyses.experiments.comparison.grown import grown
from analyses.experiments.comparison.learnings import LEARNINGS
from analyses.experiments.comparison.networks import CONSERVATIVE, ENTRIES, FAMILIES, STOCK, Learning, entry
from analyses.experiments.comparison.rows import Config
from analyses.experiments.comparison.tasks.heads import SyntheticHeads
from analyses.experiments.comparison.trained import Trained
from analyses.figures import compare_tables
from analyses.figures.compare import pareto
from analyses.models.nnunet import PlainUNet
from analyses.results_files import write_json, write_table
from analyses.training.budget import Budget, built, train
from analyses.training.losses import segmentation_loss
from analyses.training.synthetic_heads import CLASSES, LEARNT, UNSEEN, Heads, head, load_heads
from mcaprobe.errors import InputError

EASY = SyntheticHeads(Heads(size=8), learnt=4, unseen=2, probed_size=8, probes=2)
TINY = Config(
    Learning(EASY, Budget(steps=3), features=(4, 8, 16), constant=4, epochs=1), samples=2, repetitions=1, seconds=1e-3
)


def quiet(words: str) -> None:
    """Say nothing."""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return Trained(TINY.learning, tmp_path_factory.mktemp("networks"))


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
        (lambda: Budget(steps=0), "1 step or more, got 0"),
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
    task, budget = replace(EASY, batch_size=2), Budget(steps=20)
    first, second = (built(small, budget) for _ in range(2))
    losses = train(first, lambda step: task.batch(0, step), task.loss, budget)
    assert losses == train(second, lambda step: task.batch(0, step), task.loss, budget) and not first.training
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])


def test_autocast_multiplies_in_bfloat16_and_keeps_float32_weights() -> None:
    seen: list[torch.dtype] = []
    network = built(small, Budget())
    assert isinstance(network, PlainUNet)
    network.classifier.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    train(network, lambda step: EASY.batch(0, step), EASY.loss, Budget(steps=2, autocast=True))
    assert seen == [torch.bfloat16] * 2 and {p.dtype for p in network.parameters()} == {torch.float32}


def test_a_loss_that_is_no_number_ends_the_training() -> None:
    images, classes = load_heads(Heads(size=8), LEARNT, 1)
    with pytest.raises(FloatingPointError, match="got nan at step 0"):
        train(small(), lambda step: (images * torch.nan, classes), segmentation_loss, Budget(steps=2))


class Weighing:
    """Adds a multiple of the weights' squares to the loss, and notes what it is told."""

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self.told: list[tuple[int, float]] = []

    def penalty(self) -> Tensor:
        return torch.stack([100 * p.square().sum() for p in self.network.parameters()]).sum()

    def after(self, step: int, loss: float) -> None:
        self.told.append((step, loss))


def test_a_companion_adds_to_what_is_made_small_and_not_to_what_is_told() -> None:
    budget = Budget(steps=10)
    alone, heavy = (built(small, budget) for _ in range(2))
    companions: list[Weighing] = []

    def attach(network: nn.Module, optimizer: torch.optim.Optimizer) -> Weighing:
        companions.append(Weighing(network))
        return companions[0]

    losses = train(heavy, lambda step: EASY.batch(0, step), EASY.loss, budget, attach)
    free = train(alone, lambda step: EASY.batch(0, step), EASY.loss, budget)
    assert companions[0].told == [(k + 1, loss) for k, loss in enumerate(losses)] and losses[0] == free[0]
    norm = lambda network: sum(float(p.detach().square().sum()) for p in network.parameters())  # noqa: E731
    assert norm(heavy) < 0.8 * norm(alone)


class Constant(nn.Module):
    """Says one class everywhere."""

    def __init__(self, label: int) -> None:
        super().__init__()
        self.label = label

    def forward(self, x: Tensor) -> Tensor:
        return torch.nn.functional.one_hot(torch.full_like(x[:, 0], self.label).long(), 3).movedim(-1, 1).float()


class Two(SyntheticHeads):
    """Two subjects of four voxels, one of two parts; the last voxel of the first counts in no way."""

    def subjects(self):  # type: ignore[no-untyped-def]
        part = lambda values: (torch.zeros(1, 1, 1, 1, len(values)), torch.tensor(values)[None, None, None])  # noqa: E731
        yield "a", [part([1, 1]), part([0, 9])]
        yield "b", [part([1, 1, 1, 0])]

    def counted(self, classes: Tensor) -> Tensor:
        return classes != 9


def test_dice_is_that_of_each_subject_and_class() -> None:
    scores, made = measures.scored(Constant(1), Two())
    assert [round(row[1], 6) for row in scores] == [round(4 / 5, 6), round(6 / 7, 6)]
    assert [row[0] for row in scores] == [0, 0] and all(row[2] != row[2] for row in scores)
    assert made == {"windows_skipped": 0.0, "executed_share": 1.0}
    found = measures.accuracy(scores, [[0.0, 0.5, float("nan")], [0.0, 0.5, float("nan")]])
    assert found["dice"] == pytest.approx((4 / 5 + 6 / 7) / 2) and found["dice_2"] is None
    assert found["difference"] == pytest.approx(found["dice"] - 0.5)
    half = stats.t.ppf(0.975, 1) * (6 / 7 - 4 / 5) / 2  # of two values
    assert found["dice_low"] == pytest.approx(found["dice"] - half)
    assert found["difference_high"] == pytest.approx(found["difference"] + half)


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
    blank = replace(EASY, heads=Heads(size=16, intensities=(0.0, 0.0, 0.0), noise=0.0))  # all ties
    _, found = measures.scored(nanops.convert(model, "conservative", 0.5), blank)
    assert 0 < found["executed_share"] < 1 and found["windows_skipped"] > 0
    _, never = measures.scored(nanops.convert(model, None, 1.0), blank)
    assert never == {"windows_skipped": 0.0, "executed_share": 1.0}


# One of each kind: what the others have beside these is in their size and their training, of which all are tested.
KINDS = (
    STOCK, "FasterFusion, fused", "E2ENet, sparse", "magnitude pruning", "int8", "NaN, hybrid, uniform windows",
    f"FasterFusion, fused + {CONSERVATIVE}", f"Sauron + {CONSERVATIVE}", f"bfloat16 + {CONSERVATIVE}",
)  # fmt: skip


@pytest.mark.parametrize("name", KINDS)
def test_every_row_has_all_its_cells(name: str, trained: Trained) -> None:
    tables = rows.right(name, TINY, trained, quiet)
    (found,) = tables["rows"]
    assert found["dice_low"] <= found["dice"] <= found["dice_high"] and 0 <= found["dice"] <= 1
    assert len(tables["dice"]) == EASY.unseen * CLASSES
    assert 0 < found["macs_not_zero"] <= found["macs"] and 0 < found["executed_share"] <= 1
    unseen = entry(name).unprobed
    assert found["no_bits"] == unseen and bool(tables["layers"]) == (not unseen)
    if not unseen:
        assert found["samples"] == 2 and found["worst_bits"] <= found["bits"] and found["label_flips"] is not None
        assert 0 < found["bits_where_image"] <= 24
        assert [line["input"] for line in tables["bits"]] == [0, 1]
        for line in tables["bits"]:
            of_it = [layer["bits"] for layer in tables["layers"] if layer["input"] == line["input"]]
            assert line["worst_bits"] == min(bits for bits in of_it if bits is not None)
    if name == STOCK:
        assert found["difference"] == 0
    json.dumps(tables)


def test_bits_where_the_image_is_leave_out_the_background() -> None:
    x = torch.tensor([0.0, 1.0, 2.0, 0.0]).reshape(1, 1, 2, 1, 2)
    volume = torch.arange(8.0).reshape(1, 2, 2, 1, 2)  # (N, classes, D, H, W)
    assert measures.where_image(volume, x) == (1 + 2 + 5 + 6) / 4
    assert measures.where_image(volume[0].movedim(1, 0), x) == (1 + 2 + 5 + 6) / 4, "slices as a batch"
    assert math.isnan(measures.where_image(volume * torch.nan, x))


def test_several_inputs_are_one_row_with_an_interval() -> None:
    probe = {"samples": 2, "estimator": "e", "pool_flips": None, "label_flips": 0.1, "bits_where_image": 8.0}
    given = [(4.0, "a"), (8.0, "b"), (6.0, "b")]
    probes = [probe | {"bits": bits, "worst_bits": bits / 2, "worst_layer": layer} for bits, layer in given]
    found = measures.summed_up(probes)
    half = stats.t.ppf(0.975, 2) * 2 / math.sqrt(3)
    assert found["bits"] == 6 and found["worst_bits"] == 3
    assert (found["bits_low"], found["bits_high"]) == pytest.approx((6 - half, 6 + half))
    assert found["worst_layer"] == "b" and found["pool_flips"] is None and found["probed"] == 3


def test_the_wall_clock_has_a_row_for_each_number_of_threads(trained: Trained) -> None:
    found = rows.fast("half width", replace(TINY, threads=(1, 2)), trained, quiet)["times"]
    assert [row["threads"] for row in found] == [1, 2]
    for row in found:
        assert row["ms"] > 0 and row["speed_up"] > 0 and row["peak_bytes"] >= 0 and row["format"] in measures.FORMATS


def test_growth_is_that_of_the_block() -> None:
    with measures.PeakGrowth() as found:
        torch.ones(2**24).sum()  # 64 MiB, which are gone at the end
    assert 0.98 * 2**26 < found.bytes < 2**27  # the kernel counts pages in batches
    with measures.PeakGrowth() as found:
        pass
    assert found.bytes < 2**24


def test_formats_hold_the_same_values_in_another_order(trained: Trained) -> None:
    x = EASY.probed()[0]
    outputs = [trained.computing(entry(STOCK), formatted)(x) for formatted in measures.FORMATS.values()]
    torch.testing.assert_close(*outputs)
    weights = [formatted(trained.network("pool")) for formatted in measures.FORMATS.values()]
    layouts = [next(w.parameters()).is_contiguous(memory_format=torch.channels_last_3d) for w in weights]
    first = [w.get_submodule("encoder.0.1.conv").weight for w in weights]
    assert first[0].is_contiguous() and first[1].is_contiguous(memory_format=torch.channels_last_3d), layouts


def test_rows_differ_where_their_networks_do(trained: Trained) -> None:
    found = {e.name: measures.size(trained.shaped(e), (1, 1, 8, 8, 8)) for e in ENTRIES}
    stock = found[STOCK]
    assert found["half width"]["parameters"] < 0.3 * stock["parameters"]
    assert found["FasterFusion, training form"]["parameters"] < found["FasterFusion, fused"]["parameters"]
    for name in ("magnitude pruning", "magnitude pruning, fine-tuned"):
        assert found[name]["parameters"] < 0.8 * stock["parameters"] and found[name]["macs"] < 0.8 * stock["macs"]
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


def test_a_network_comes_back_from_its_file(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    made = {name: trained.network(name) for name in ("sauron", "cut", "sparse", "fusion")}
    monkeypatch.setattr(Trained, "_train", lambda *given: pytest.fail("trained again"))
    again = Trained(TINY.learning, trained.folder)
    x = EASY.probed()[0]
    for name, network in made.items():
        assert torch.equal(again.network(name)(x), network(x))
        assert again.record(name)["learning"]["budget"]["steps"] == 3 and again.record(name)["family"] == name
    other = Trained(replace(TINY.learning, share=0.5), trained.folder)
    assert other.path("cut") != trained.path("cut")


def test_the_command_keeps_its_rows_and_draws_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    few = [STOCK, "int8", "NaN, conservative"]
    monkeypatch.setitem(LEARNINGS, "heads", TINY.learning)
    monkeypatch.setattr(studies.comparison_trained.Trained.__init__, "__defaults__", (tmp_path / "networks", quiet))
    monkeypatch.setattr(command, "Kept", lambda name, identity: kept.Kept(name, identity, tmp_path / "kept"))
    arguments = ["run", "compare", "--networks", *few, "--steps", "2", "--repetitions", "1", "--out", str(tmp_path)]
    assert main([*arguments, "--untimed"]) == 0
    assert not (tmp_path / "compare_times_heads.csv").exists()
    first = (tmp_path / "compare_rows_heads.csv").read_text()
    assert [line["network"] for line in csv.DictReader(first.splitlines())] == few
    manifest = json.loads((tmp_path / "compare_heads.json").read_text())
    assert manifest["config"]["learning"]["budget"]["steps"] == 2 and manifest["parts"]["right-int8"]
    monkeypatch.setattr(studies.comparison_rows, "right", lambda *args: pytest.fail("computed again"))
    assert main(arguments) == 0 and (tmp_path / "compare_rows_heads.csv").read_text() == first
    timed = list(csv.DictReader((tmp_path / "compare_times_heads.csv").read_text().splitlines()))
    assert {line["network"] for line in timed} == set(few) and {line["threads"] for line in timed} <= {"1", "2"}
    assert main(["draw", "compare", "--results", str(tmp_path)]) == 0
    text = (tmp_path / "compare_heads.md").read_text()
    assert "| int8 |" in text and "integer kernels" in text
    assert (tmp_path / "compare_heads.png").stat().st_size > 10_000
    pyplot.close("all")
    other = ["run", "compare", "--networks", "int8", "--steps", "3", "--repetitions", "1", "--out", str(tmp_path)]
    assert main(other) == 2, "told before anything is computed"
    assert "rows of the same configuration" in capsys.readouterr().err
    assert main(["run", "compare", "--steps", "0"]) == 2
    assert "--steps of at least 1" in capsys.readouterr().err
    assert main(["run", "compare", "--networks", "int9"]) == 2
    assert "'int9'; did you mean 'int8'?" in capsys.readouterr().err
    assert main(["run", "mnist", "--networks", "int8"]) == 2
    assert "--networks with compare only, got mnist" in capsys.readouterr().err


def test_the_pareto_front_has_what_nothing_else_beats() -> None:
    rows = [{"network": n, "speed_up": str(6 / time), "difference": d} for n, time, d in
            [("a", 3, ".9"), ("b", 1, ".5"), ("c", 2, ".4"), ("d", 2, ".8"), ("e", 4, ".9")]]  # fmt: skip
    assert [r["network"] for r in pareto(rows)] == ["b", "d", "a"]


def test_a_combination_stands_beside_the_product_of_its_parts() -> None:
    def row(name: str, macs: int, share: float) -> dict[str, str]:
        return {"network": name, "macs": str(macs), "executed_share": str(share)}

    def clock(name: str, threads: int, speed_up: float) -> dict[str, str]:
        return {"network": name, "threads": str(threads), "speed_up": str(speed_up),
                "speed_up_low": str(speed_up - 0.5), "speed_up_high": str(speed_up + 0.5)}  # fmt: skip

    both, alone = f"Sauron + {CONSERVATIVE}", "plain U-Net, instance norm"
    instance, without = f"instance norm + {CONSERVATIVE}", f"half width + {CONSERVATIVE}"
    table = [
        row(STOCK, 200, 1), row("Sauron", 50, 1), row(CONSERVATIVE, 200, 0.8), row(both, 50, 0.9), row(alone, 200, 1),
        row(instance, 200, 0.7), row(without, 60, 0.5),
    ]  # fmt: skip
    times = [
        clock(STOCK, 1, 1), clock("Sauron", 1, 3), clock(CONSERVATIVE, 1, 1.5), clock(both, 1, 4), clock(alone, 1, 0.5),
        clock(instance, 1, 1), clock("Sauron", 2, 2), clock(CONSERVATIVE, 2, 2),
    ]  # fmt: skip
    assert work(table[3], table[0]) == pytest.approx(0.225)
    first, second = combined(table, times)
    assert (first["network"], first["threads"], first["alone"], first["nans"]) == (both, "1", 3, 1.5)
    assert (first["product"], first["together"]) == (4.5, 4)
    assert (first["product_low"], first["product_high"]) == (2.5, 7)
    assert (first["together_low"], first["together_high"]) == (3.5, 4.5)
    assert (first["work_product"], first["work"]) == (pytest.approx(0.2), pytest.approx(0.225))
    assert second["network"] == f"instance norm + {CONSERVATIVE}" and second["product"] == 0.75


def test_rows_without_stock_are_not_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for table in ("rows", "times", "dice", "bits"):
        (tmp_path / f"compare_{table}_heads.csv").write_text("network\nint8\n")
    assert main(["draw", "compare", "--results", str(tmp_path)]) == 2
    assert "Expected a row of 'plain U-Net, pooled'" in capsys.readouterr().err


def test_stock_is_scored_once_for_all_rows(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[nn.Module] = []
    scored = measures.scored
    monkeypatch.setattr(measures, "scored", lambda network, task: asked.append(network) or scored(network, task))
    monkeypatch.setattr(trained, "scored", {})
    for name in ("int8", STOCK, "bfloat16"):
        rows.right(name, replace(TINY, samples=2), trained, quiet)
    assert len(asked) == 3 and asked.count(trained.network("pool")) == 1


def test_the_trade_off_counts_what_is_made_and_not_zero() -> None:
    def row(dice: float, parameters: int, macs: int, share: float) -> dict[str, str]:
        return {"dice": str(dice), "parameters_not_zero": str(parameters), "macs_not_zero": str(macs),
                "executed_share": str(share)}  # fmt: skip

    rows = [row(0.8, 100, 400, 1), row(0.8, 100, 400, 0.5), row(0.4, 50, 100, 1)]
    assert compare_tables.trade_offs(rows) == ["1.375", "1.500", "1.500"]
    assert compare_tables.trade_offs([*rows, row(0, 50, 100, 1)]) == ["", "", "", ""]


def test_rows_of_some_networks_are_added_to_those_that_are_there(tmp_path: Path) -> None:
    def tables(*rows: tuple[str, int]) -> dict[str, list[dict[str, object]]]:
        return {"rows": [{"network": name, "dice": dice} for name, dice in rows]}

    about = {"config": {"steps": (1, 2)}, "parts": {"a": "1", "b": "1"}, "commit": "1"}
    found, manifest = grown(tables(("int8", 1)), about, tmp_path, "_heads")
    assert found == tables(("int8", 1)) and manifest == about, "nothing is there"
    write_json(tmp_path / "compare_heads.json", about)
    write_table(tmp_path / "compare_rows_heads.csv", tables((STOCK, 5), ("int8", 1), ("bfloat16", 2))["rows"])
    found, manifest = grown(tables(("int8", 3), ("Sauron", 4)), about | {"parts": {"b": "2"}}, tmp_path, "_heads")
    kept = [(row["network"], row["dice"]) for row in found["rows"]]
    assert kept == [(STOCK, "5"), ("Sauron", 4), ("int8", 3), ("bfloat16", "2")]
    assert manifest["parts"] == {"a": "1", "b": "2"} and manifest["tables"]["rows"] == 4
    with pytest.raises(InputError, match="Expected rows of the same configuration in"):
        grown(tables(("int8", 3)), about | {"config": {"steps": (1, 3)}}, tmp_path, "_heads")


def test_the_questions_are_answered_by_paired_differences() -> None:
    pruned = "magnitude pruning"
    table = [
        {"network": name, "macs": macs, "executed_share": share}
        for name, macs, share in ((STOCK, "200", "1"), (CONSERVATIVE, "200", ".7"), (pruned, "140", "1"))
    ]
    dice = [
        {"network": name, "subject": subject, "class": label, "dice": value}
        for name, means in ((STOCK, (0.8, 0.6, 0.7)), (CONSERVATIVE, (0.8, 0.6, 0.7)), (pruned, (0.7, 0.4, 0.4)))
        for subject, mean in zip("abc", means, strict=True)
        for label, value in (("background", "1"), ("x", str(mean - 0.1)), ("y", str(mean + 0.1)), ("z", ""))
    ]
    bits = [
        {"network": name, "input": str(i), "bits": str(value), "bits_where_image": str(value + 1)}
        for name, values in ((STOCK, (16, 15)), (pruned, (15, 14)))
        for i, value in enumerate(values)
    ]
    speeds = {"speed_up": "1.5", "speed_up_low": "1.4", "speed_up_high": "1.6"}
    times = [{"network": CONSERVATIVE, "threads": "2"} | speeds]
    found = answers(table, times, dice, bits)
    score, made, speed, less, *digits = found
    assert (score["network"], score["against"], score["n"]) == (CONSERVATIVE, pruned, "3")
    half = stats.t.ppf(0.975, 2) * np.std([0.1, 0.2, 0.3], ddof=1) / math.sqrt(3)
    assert score["value"] == pytest.approx(0.2) and score["low"] == pytest.approx(0.2 - half)
    assert score["high"] == pytest.approx(0.2 + half)
    assert (made["value"], less["value"]) == (0.7, 0.7) and (made["network"], less["network"]) == (CONSERVATIVE, pruned)
    assert (speed["threads"], speed["value"], speed["low"], speed["high"]) == ("2", 1.5, 1.4, 1.6)
    assert [(d["network"], d["value"], d["low"], d["high"], d["n"]) for d in digits] == [(pruned, -1, -1, -1, "2")] * 2
