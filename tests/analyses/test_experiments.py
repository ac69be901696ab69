"""Do the experiments count what the operators skip, score what the networks say, and go on where they were?"""

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

import nanops
from analyses import kept, trained
from analyses.__main__ import main
from analyses.brains import Brain
from analyses.commands import run as command
from analyses.experiments import classification, denoising, segmentation, studies
from analyses.experiments.counting import BRAIN, SUMS, WHOLE, Counts
from analyses.experiments.images import prepared
from analyses.methods import Method
from analyses.metrics import dice_of_classes
from analyses.mnist_data import Digits
from analyses.models.checkpoint import Hyperparameters, save_network, write_tensors
from analyses.models.fondue import FONDUE
from analyses.models.mnist import MnistNet
from analyses.models.squeezenet import BGR_MEANS
from analyses.preprocessing.planes import thick_slices
from analyses.structures import CLASSES, IGNORED

SIZES = Hyperparameters(7, 8, 8, len(CLASSES))  # of 3 or 4 channels torch rounds a constant plane unevenly
CONSERVATIVE = Method("conservative", 0.5)


def small_brain(name: str = "1013") -> Brain:
    """A noisy ball in 64 x 64 x 64 voxels, far from the border."""
    generator = torch.Generator().manual_seed(int(name))
    axes = torch.meshgrid(*[torch.linspace(-4, 4, 64)] * 3, indexing="ij")
    inside = axes[0] ** 2 + axes[1] ** 2 + axes[2] ** 2 < 1.4
    image = torch.randint(60, 255, inside.shape, generator=generator, dtype=torch.uint8) * inside
    classes = torch.randint(1, 4, inside.shape, generator=generator, dtype=torch.uint8) * inside
    classes[32, 32, 32] = IGNORED
    return Brain(name, image, classes, np.eye(4))


def network() -> torch.nn.Module:
    """Return a random network that calls an empty slice background: what a NaN becomes at the end."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        found = SIZES.build().eval()
        logits = found(torch.zeros(1, 7, 64, 64))[0]
        found.classifier.conv.bias[0] += (logits.amax(0) - logits[0]).max() + 0.1
    return found


@pytest.fixture(scope="module")
def tables():  # type: ignore[no-untyped-def]
    config = segmentation.Config("axial", (CONSERVATIVE, Method("conservative", 0.5, True)), ("1013",), batch=1)
    return segmentation.run(network(), config, small_brain)


def chosen(rows: list[dict[str, object]], **cells: object) -> list[dict[str, object]]:
    return [row for row in rows if all(row.get(key) == value for key, value in cells.items())]


@torch.inference_mode()
def test_counts_are_those_of_the_operators_slice_by_slice(tables) -> None:  # type: ignore[no-untyped-def]
    brain, model = small_brain(), CONSERVATIVE.convert(network().to(memory_format=torch.channels_last))
    counts, labels = {}, {}
    for i in range(64):
        x = thick_slices(brain.image, "axial", [i]).contiguous(memory_format=torch.channels_last)
        with nanops.count_skipped(model) as skipped:
            labels[i] = model(x).argmax(1)[0]
        counts[i] = skipped.total
    seen = [i for i in range(64) if bool(thick_slices(brain.image, "axial", [i]).any())]
    assert 20 < len(seen) < 40
    for scope, indices in ((BRAIN, seen), (WHOLE, range(64))):
        (row,) = chosen(tables["layers"], scope=scope, layer="total", uniform=False)
        assert row["windows"] == sum(counts[i].windows for i in indices)
        assert row["skipped"] == sum(counts[i].skipped for i in indices)
        assert row["executed_share"] == pytest.approx(
            sum(counts[i].executed for i in indices) / sum(counts[i].macs for i in indices)
        )
        layers = [row for row in chosen(tables["layers"], scope=scope, uniform=False) if row["layer"] != "total"]
        mean = sum(row["skipped"] / row["windows"] for row in layers) / len(layers)
        assert row["mean_over_layers"] == pytest.approx(mean)
    slices = chosen(tables["slices"], uniform=False)
    assert [row["slice"] for row in slices] == seen
    assert [row["skipped"] for row in slices] == [counts[i].skipped for i in seen]
    manual = torch.stack([brain.classes[:, i].T for i in range(64)])
    found = torch.stack([labels[i] for i in range(64)])
    where = torch.zeros_like(manual, dtype=torch.bool)
    where[seen] = manual[seen] != IGNORED
    expected = dice_of_classes(found, manual, where, len(CLASSES))
    rows = chosen(tables["dice"], method="conservative", uniform=False)
    for row, score in zip(rows, expected, strict=True):
        assert row["dice"] == pytest.approx(score, nan_ok=True)


def test_uniform_windows_execute_less_and_change_no_label_more(tables) -> None:  # type: ignore[no-untyped-def]
    changed = {row.get("uniform"): row["labels_changed"] for row in tables["dice"]}
    assert changed[None] == 0 < changed[False]
    # Where nothing is NaN, torch convolves in the one way and our kernels in the other; they may round apart (1e-7 seen
    # on an Intel Xeon), and a random network has ties that this decides: 6059 and 6055 labels there.
    assert abs(changed[True] - changed[False]) < 64**3 / 10_000
    plain, uniform = (chosen(tables["layers"], scope=WHOLE, layer="total", uniform=u)[0] for u in (False, True))
    assert uniform["executed_share"] < plain["executed_share"] < 1
    assert uniform["filled"] > 0 and plain["filled"] == 0


def test_a_slice_scores_only_what_is_drawn_in_it(tables) -> None:  # type: ignore[no-untyped-def]
    for row in tables["slices"]:
        assert (row["structures"] == 0 and math.isnan(row["dice"])) or 0 <= row["dice"] <= 1
    assert any(row["structures"] == 3 for row in tables["slices"])


def test_an_empty_slice_counts_as_often_as_it_occurs() -> None:
    class One:
        def __init__(self) -> None:
            self.layers = {"a": type("T", (), dict.fromkeys(SUMS, 2))()}

    counts = Counts()
    counts.add(One(), 3)  # type: ignore[arg-type]
    counts.add(One())  # type: ignore[arg-type]
    assert counts.layers["a"] == [8] * len(SUMS)


def test_the_denoiser_is_scored_against_the_image_without_noise() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = FONDUE(filters=3).eval()
    config = denoising.Config("axial", (CONSERVATIVE,), ("1013",), every=8)
    found = denoising.run(model, config, small_brain)
    (x, clean), *_ = [(x, clean) for _, x, clean in denoising.noisy_slices(small_brain(), config)]
    noise = chosen(found["slices"], method="noisy input")[0]
    expected = -10 * math.log10(float((x[0, 3] - clean).square().mean()))
    assert noise["psnr"] == pytest.approx(expected, rel=1e-4) and noise["psnr_brain"] < noise["psnr"]
    with torch.inference_mode():
        y = model(x)[0, 0]
    stock = chosen(found["slices"], method="stock")[0]
    assert stock["psnr"] == pytest.approx(-10 * math.log10(float((y - clean).square().mean())), rel=1e-3)
    ours = chosen(found["slices"], method="conservative")
    assert len(ours) == len(chosen(found["slices"], method="stock")) and all(row["windows"] > 0 for row in ours)


def digits(n: int = 60) -> Digits:
    generator = torch.Generator().manual_seed(0)
    images = torch.zeros(n, 1, 28, 28, dtype=torch.uint8)
    images[:, :, 8:20, 8:20] = torch.randint(0, 255, (n, 1, 12, 12), generator=generator, dtype=torch.uint8)
    return Digits(images, torch.arange(n) % 10)


@torch.inference_mode()
def test_a_classifier_is_scored_in_every_format() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        model = MnistNet().eval()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    config = classification.Config("net", (Method("aggressive", 0.5),), ("float32", "bfloat16"), images=50, batch=20)
    rows = classification.run(model, digits(), config)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    totals = [row for row in rows if row["layer"] == "total"]
    assert [(row["format"], row["method"]) for row in totals] == [
        ("float32", "stock"), ("float32", "aggressive"), ("bfloat16", "stock"), ("bfloat16", "aggressive")
    ]  # fmt: skip
    x, y = digits().inputs(torch.arange(50)), digits().classes[:50]
    assert totals[0]["accuracy"] == pytest.approx(float((model(x).argmax(1) == y).double().mean()))
    assert totals[0]["images"] == 50 and totals[0]["skipped"] == 0 and totals[1]["skipped"] > 0
    assert all("f1" not in row for row in rows if row["layer"] != "total")


def test_draws_of_approach_b_are_the_seeds() -> None:
    model = MnistNet().eval()
    method = Method("aggressive", 0.9, fill="max_normal")
    x = digits().inputs(torch.arange(8))
    with torch.inference_mode():
        a, b, c = (method.convert(model, seed)(x) for seed in (0, 0, 1))
    assert torch.equal(a, b) and not torch.equal(a, c)


def test_an_image_is_cut_from_its_middle_in_bgr() -> None:
    from PIL import Image

    pixels = np.zeros((300, 400, 3), np.uint8)
    pixels[..., 0], pixels[:, :30, 1] = 200, 250  # red; green at the left edge, which is cut off
    found = prepared(Image.fromarray(pixels))
    assert found.shape == (3, 227, 227)
    assert torch.allclose(found[:, 100, 100], torch.tensor([0.0, 0.0, 200.0]) - torch.tensor(BGR_MEANS), atol=0.01)
    assert float(found[1].max()) < 0


@pytest.fixture
def cache(tmp_path, monkeypatch):  # type: ignore[no-untyped-def]
    """Trained networks, small and in a folder of the test's own."""
    monkeypatch.setattr(trained, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(trained, "DENOISER", tmp_path / "cache" / "denoiser.safetensors")
    monkeypatch.setattr(kept.Kept.__init__, "__defaults__", (tmp_path / "kept",))
    monkeypatch.setattr(studies, "load_brain", small_brain)
    monkeypatch.setattr(studies, "load_digits", lambda part: digits())
    save_network(tmp_path / "cache" / "structures_axial.safetensors", network().state_dict(), SIZES, {"steps done": 3})
    write_tensors(trained.DENOISER, FONDUE(filters=2).state_dict(), {"training": "{}"})
    for name in ("mnist", "mnist_nan"):
        write_tensors(trained.digits_path(name), MnistNet().state_dict(), {"training": "{}"})
    return tmp_path


def arguments(out: Path, name: str, *more: str) -> list[str]:
    return ["run", name, "--subjects", "1013", "1014", "--every", "16", "--images", "12", "--out", str(out), *more]


@pytest.mark.parametrize("name", ["conservative", "mnist", "precision"])
def test_a_command_writes_its_tables_and_keeps_its_parts(cache, monkeypatch, capsys, name) -> None:  # type: ignore[no-untyped-def]
    out = cache / "results"
    if name == "conservative":
        monkeypatch.setattr(studies, "CONSERVATIVE", (CONSERVATIVE,))
        monkeypatch.setattr(studies, "UNIFORM", ())
    assert main(arguments(out, name)) == 0, capsys.readouterr().err
    manifest = json.loads((out / f"{name}.json").read_text())
    written = {path.name: path.read_bytes() for path in out.glob("*.csv")}
    assert set(written) == {f"{name}_{table}.csv" for table in manifest["tables"]}
    for table, count in manifest["tables"].items():
        with (out / f"{name}_{table}.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert len(rows) == count > 0
    for path, about in manifest["networks"].items():
        assert len(about["sha256"]) == 64 and path.endswith(".safetensors")

    def fail(*args: object, **kwargs: object) -> None:
        raise AssertionError("computed again")

    for module in (segmentation, denoising, classification):
        monkeypatch.setattr(module, "run", fail)
    assert main(arguments(out, name)) == 0  # all parts are kept
    assert {path.name: path.read_bytes() for path in out.glob("*.csv")} == written


def test_another_network_or_option_is_computed_anew(cache, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    out = cache / "results"
    assert main(arguments(out, "precision")) == 0
    first = len(list((cache / "kept").iterdir()))
    assert main([*arguments(out, "precision")[:-3], "14", "--out", str(out)]) == 0
    second = len(list((cache / "kept").iterdir()))
    write_tensors(trained.digits_path("mnist"), MnistNet().state_dict(), {"training": "{}"})
    assert main(arguments(out, "precision")) == 0
    assert first < second < len(list((cache / "kept").iterdir()))


def test_wrong_options_are_one_sentence(cache, capsys) -> None:  # type: ignore[no-untyped-def]
    for wrong, sentence in (
        (["mnist", "--images", "0"], "Expected --images of at least 1, got 0."),
        (["conservative", "--subjects", "1000"], "Expected subjects among 1013, 1014, 1015, 1017, 1036, which no netw"),
        (["conservative", "--plane", "coronal"], "`python -m analyses train structures --plane coronal` makes it."),
        (["xception"], "`python -m analyses train separable` makes it."),
    ):
        assert main(["run", *wrong, "--out", str(cache)]) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: Expected ") and sentence in error and error.count("\n") == 1


def test_the_definitions_are_in_the_manifest() -> None:
    assert command.METRICS["ssim"]["options"]["data_range"] == 1.0 and "mean_over_layers" in command.ABOUT
