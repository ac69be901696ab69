"""Do the tasks on brains and digits make what is to be learnt, and does training stop and keep the best?"""

import gzip
import struct
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from analyses import brains
from analyses.__main__ import main
from analyses.brains import TEST, TRAIN, VALIDATION, Brain, load_brain
from analyses.mnist_data import HELD_OUT, Digits, load_digits, read_idx
from analyses.models.checkpoint import Hyperparameters
from analyses.models.mnist import MnistNet
from analyses.preprocessing.planes import AXES
from analyses.structures import CLASSES, IGNORED
from analyses.training.denoiser import Denoise, DenoiserSettings, noisy
from analyses.training.digits import NETWORKS, ClassifyDigits, DigitsSettings
from analyses.training.loop import Settings, Trainer
from analyses.training.losses import balance, segmentation_loss
from analyses.training.randomness import Dice
from analyses.training.structures import CROP, SIDES, Ranges, Structures, StructuresSettings, changed
from mcaprobe.errors import InputError

CPU = torch.device("cpu")
STILL = Ranges(**dict.fromkeys(("turn", "shift", "shear", "noise"), (0.0, 0.0)), size=(1.0, 1.0), gamma=(1.0, 1.0),
               gain=(1.0, 1.0))  # fmt: skip


def brain(name: str) -> Brain:
    """An ellipsoid whose three shells are three classes, one intensity each."""
    axes = torch.meshgrid(*[torch.linspace(-1.3, 1.3, 256)] * 3, indexing="ij")
    radius = (axes[0] / 0.7) ** 2 + (axes[1] / 0.8) ** 2 + axes[2] ** 2
    classes = torch.zeros(256, 256, 256, dtype=torch.uint8)
    for value, edge in ((2, 0.8), (1, 0.6), (6, 0.2)):
        classes[radius < edge] = value
    image = torch.tensor([0, 220, 150, 0, 0, 0, 120], dtype=torch.uint8)[classes.long()]
    classes[(radius < 0.4) & (axes[0] > 0.3)] = IGNORED
    return Brain(name, image, classes, np.eye(4))


@pytest.fixture(scope="module")
def two() -> dict[str, Brain]:
    return {name: brain(name) for name in (TRAIN[0], VALIDATION[0])}


def test_no_subject_is_in_two_parts() -> None:
    assert len({*TRAIN, *VALIDATION, *TEST}) == len(TRAIN) + len(VALIDATION) + len(TEST) == 15
    assert len(TEST) >= 5


@pytest.mark.parametrize("plane", AXES)
def test_a_batch_is_the_steps_and_its_classes_lie_on_its_image(two: dict[str, Brain], plane: str) -> None:
    settings = StructuresSettings(plane=plane, batch=3, sizes=Hyperparameters(7, 4, 4, len(CLASSES)))
    task = Structures(settings, two)
    x, y = task.batch(5)
    again = Structures(settings, two).batch(5)
    assert torch.equal(x, again[0]) and torch.equal(y, again[1])
    assert x.shape == (3, 7, *CROP) and y.shape == (3, *CROP) and not torch.equal(x, task.batch(6)[0])
    assert float(x.min()) >= 0 and float(x.max()) <= 1
    assert set(y.unique().tolist()) <= {0, 1, 2, 6, IGNORED}
    outside = y == 0
    assert float((x[:, 3] > 0)[outside].double().mean()) < 0.03  # the edge is interpolated, no more
    assert bool((x[:, 3] > 0)[y == 6].all())


@pytest.mark.parametrize("plane", AXES)
def test_mirroring_is_from_side_to_side(two: dict[str, Brain], plane: str) -> None:
    """A mirrored sample is the other one, its ignored region, which lies on one side, on the other."""
    task = Structures(StructuresSettings(plane=plane), two)
    name, i = task.places[len(task.places) // 2]
    x, y = task._pair(name, [i])
    found = [changed(Dice.of(k), x, y, (256, 256), SIDES[plane], STILL) for k in range(8)]
    plain, mirrored = (
        (x, y) if SIDES[plane] is None or not flip else (x.flip(SIDES[plane] + 2), y.flip(SIDES[plane] + 1))
        for flip in (False, True)
    )
    expected = [plain, (x.flip(1), y) if SIDES[plane] is None else mirrored]
    hits = [any(torch.allclose(a, c, atol=2e-3) and torch.equal(b, d) for c, d in expected) for a, b in found]
    assert all(hits)
    assert len({tuple(b.flatten().tolist()) for _, b in found}) == (1 if SIDES[plane] is None else 2)


def test_validation_is_of_whole_slices_of_another_subject(two: dict[str, Brain]) -> None:
    pairs = list(Structures(StructuresSettings(), two).validation())
    assert sum(len(x) for x, _ in pairs) > 10 and all(x.shape[1:] == (7, 256, 256) for x, _ in pairs)


def test_rare_classes_weigh_more_and_ignored_pixels_nothing() -> None:
    classes = torch.tensor([0] * 900 + [1] * 90 + [2] * 10 + [IGNORED] * 50)
    assert torch.allclose(balance(classes, 4), torch.tensor([0.1**0.5, 1.0, 3.0, 1.0]))
    target = torch.tensor([[[0, 1], [2, IGNORED]]])
    logits = torch.randn(1, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    other = logits.clone()
    other[..., 1, 1] = 7.0
    assert float(segmentation_loss(logits, target, IGNORED)) == float(segmentation_loss(other, target, IGNORED))
    weights = torch.tensor([1.0, 1.0, 5.0])
    assert segmentation_loss(logits, target, IGNORED, weights) != segmentation_loss(logits, target, IGNORED)


def test_noise_is_that_of_a_magnitude_and_spares_the_background() -> None:
    clean = torch.full((400, 400), 0.5)
    clean[:100] = 0
    x = noisy(Dice.of(1), clean, 0.05)
    inside = x[100:].double()
    assert bool((x[:100] == 0).all())
    assert float(inside.mean()) == pytest.approx((0.5**2 + 0.05**2) ** 0.5, abs=4e-4)  # Rician, to second order
    assert float(inside.std()) == pytest.approx(0.05, rel=0.01)


def test_the_denoiser_learns_from_crops_with_brain_in_all_planes(two: dict[str, Brain]) -> None:
    task = Denoise(DenoiserSettings(batch=4, size=32, filters=2), two)
    assert {plane for _, plane, _ in task.places} == set(AXES)
    x, y = task.batch(0)
    assert x.shape == (4, 7, 32, 32) and y.shape == (4, 1, 32, 32) and bool((y > 0).flatten(1).any(1).all())
    assert torch.equal(x[:, 3:4] == 0, y == 0) and not torch.equal(x[:, 3:4], y)
    assert all(a.shape == (1, 7, 256, 256) and b.shape == (1, 1, 256, 256) for a, b in task.validation())


def test_a_brain_is_read_conformed_and_its_labels_stay_where_they_were(tmp_path) -> None:  # type: ignore[no-untyped-def]
    rng = np.random.default_rng(0)
    labels = rng.choice([0, 44, 101, 59, 69], (21, 30, 25)).astype(np.int16)
    image = np.where(labels > 0, labels * 3, 0).astype(np.int16)
    affine = np.diag([-1.0, 1.0, 1.0, 1.0])
    for suffix, data in (("SS", image), ("glm", labels)):
        nib.save(nib.Nifti1Image(data, affine), tmp_path / f"7_{suffix}.nii.gz")
    found = load_brain("7", tmp_path)
    assert found.image.shape == found.classes.shape == (256, 256, 256)
    assert torch.equal(found.image > 0, found.classes > 0)
    counts = torch.bincount(found.classes.flatten(), minlength=256)
    assert [int(counts[c]) for c in (1, 2, 6, IGNORED)] == [int((labels == n).sum()) for n in (44, 101, 59, 69)]
    nib.save(nib.Nifti1Image(labels[:-2], affine), tmp_path / "7_glm.nii.gz")
    with pytest.raises(InputError, match="Expected labels of the image's shape"):
        load_brain("7", tmp_path)
    with pytest.raises(InputError, match=r"Expected the labelled brain 8 at .*8_SS\.nii\.gz, found no file"):
        load_brain("8", tmp_path)


def digits(n: int = 40) -> Digits:
    """Squares whose place is their class."""
    classes = torch.arange(n) % 10
    images = torch.zeros(n, 1, 28, 28, dtype=torch.uint8)
    for i, c in enumerate(classes.tolist()):
        images[i, 0, 3 + 2 * c : 7 + 2 * c, 5:20] = 255
    return Digits(images, classes)


@pytest.mark.parametrize("network", NETWORKS)
def test_a_digit_classifier_learns(network: str) -> None:
    task = ClassifyDigits(DigitsSettings(network=network, batch=16, steps=100, warm_up=1), digits(HELD_OUT + 40))
    trainer = Trainer(replace(task.settings, learning_rate=3e-3), task, CPU)
    x, y = task.batch(0)
    losses = [trainer.train_step(x, y) for _ in range(8)]
    assert losses[-1] < losses[0]
    assert len(torch.cat([y for _, y in task.validation()])) == HELD_OUT


def test_pooling_before_the_relu_is_the_same_function() -> None:
    first, second = MnistNet().eval(), MnistNet(pool_first=True).eval()
    second.load_state_dict(first.state_dict())
    x = torch.randn(3, 1, 28, 28)
    assert torch.equal(first(x), second(x))


def test_idx_files_are_read_and_others_refused(tmp_path) -> None:  # type: ignore[no-untyped-def]
    data = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(struct.pack(">HBBIII", 0, 8, 3, 2, 3, 4) + data.tobytes()))
    assert torch.equal(read_idx(path), torch.from_numpy(data))
    path.write_bytes(gzip.compress(struct.pack(">HBBI", 0, 13, 1, 2) + b"12345678"))
    with pytest.raises(InputError, match="Expected an IDX file"):
        read_idx(path)
    path.write_bytes(b"no gzip")
    with pytest.raises(InputError, match="compressed by gzip"):
        read_idx(path)
    with pytest.raises(InputError, match="found no file"):
        load_digits("train", tmp_path)


class Wandering:
    """A task whose validation loss is a list."""

    def __init__(self, losses: list[float]) -> None:
        self.losses = losses

    def network(self) -> nn.Module:
        return nn.Conv2d(1, 1, 1)

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        return torch.full((1, 1, 1, 1), step + 1.0), torch.zeros(1)

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        return output.square().mean() if output.requires_grad else target.mean()

    def validation(self) -> Iterator[tuple[Tensor, Tensor]]:
        yield torch.zeros(1, 1, 1, 1), torch.full((1,), self.losses.pop(0))


def followed(settings: Settings, losses: list[float], state: Path | None = None) -> Trainer:
    trainer = Trainer(settings, Wandering(losses), CPU)
    if state is not None:
        trainer.load_state(state)
    trainer.run(0, 1e9, lambda: None, lambda step, loss: None)
    return trainer


def test_training_stops_without_a_better_look_and_keeps_the_best() -> None:
    settings = Settings(steps=100, check_every=2, patience=3, warm_up=1)
    trainer = followed(settings, [5.0, 4.0, 4.5, 6.0, 4.25, 1.0])
    assert trainer.step == 10 and trainer.checks == [5.0, 4.0, 4.5, 6.0, 4.25]
    four = followed(replace(settings, steps=100, patience=1), [5.0, 4.0, 4.5])
    assert four.step == 6
    assert all(torch.equal(v, trainer.best[k]) for k, v in four.best.items())
    assert trainer.result() is trainer.best and any(
        not torch.equal(v, trainer.best[k]) for k, v in trainer.network.state_dict().items()
    )


def test_without_patience_it_goes_on_to_the_last_step() -> None:
    trainer = followed(Settings(steps=5, check_every=2, warm_up=1), [1.0, 2.0, 3.0])
    assert trainer.step == 5 and trainer.checks == [1.0, 2.0, 3.0]


def test_a_resumed_run_remembers_the_best_look(tmp_path) -> None:  # type: ignore[no-untyped-def]
    settings = Settings(steps=8, check_every=2, patience=2, warm_up=1)
    whole = followed(settings, [5.0, 4.0, 4.5, 3.0])
    first = Trainer(settings, Wandering([5.0, 4.0]), CPU)
    for x, y in first.batches(0):
        if first.step == 4:
            break
        first.train_step(x, y)
        if first.step % 2 == 0:
            first.check()
    first.save_state(tmp_path / "a.state")
    again = followed(settings, [4.5, 3.0], state=tmp_path / "a.state")
    assert again.step == whole.step == 8 and again.checks == whole.checks
    assert all(torch.equal(v, whole.best[k]) for k, v in again.best.items())


def test_the_command_trains_stops_and_says_what_it_did(tmp_path, monkeypatch, capsys) -> None:  # type: ignore[no-untyped-def]
    from analyses.training import digits as module

    monkeypatch.setattr(module, "load_digits", lambda part: digits(HELD_OUT + 40))
    out = tmp_path / "mnist.safetensors"
    arguments = ["train", "mnist", "--steps", "2", "--batch", "4", "--check-every", "1", "--patience", "1",
                 "--threads", "1", "--out", str(out), "--quiet"]  # fmt: skip
    assert main(arguments) == 0 and out.is_file() and out.with_suffix(".state").is_file()
    assert main([*arguments, "--resume"]) == 0
    for wrong, sentence in (
        (["--steps", "0"], "Expected --steps of at least 1, got 0"), (["--patience", "-1"], "Expected --patience of"),
        (["--out", "a.pt"], "Expected --out to end in .safetensors"), (["--learning-rate", "0"], "a positive --lear"),
    ):  # fmt: skip
        assert main(["train", "mnist", *wrong]) == 2
        assert sentence in capsys.readouterr().err


def test_a_missing_folder_of_brains_is_one_sentence(tmp_path, monkeypatch, capsys) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(brains.load_brain, "__defaults__", (tmp_path,))
    assert main(["train", "structures", "--steps", "1", "--out", str(tmp_path / "a.safetensors"), "--quiet"]) == 2
    assert "error: Expected the labelled brain 1000 at" in capsys.readouterr().err
