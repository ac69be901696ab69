"""Do networks in two and in three dimensions see the same slices of a stack, and is the brains' task what it says?"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from analyses.brains import Brain
from analyses.experiments.comparison.networks import FAMILIES, Learning
from analyses.experiments.comparison.tasks import brains
from analyses.experiments.comparison.tasks.brains import BrainStacks
from analyses.experiments.comparison.trained import Trained
from analyses.models.e2enet import E2ENet
from analyses.models.nnunet import PlainUNet
from analyses.models.thick import MiddleSlices, ThickSlices
from analyses.structures import CLASSES, IGNORED
from analyses.training.budget import Budget
from mcaprobe.errors import InputError
from tests.shared_data import shared

SMALL = BrainStacks(box=(8, 16, 16), depth=4, patch=(8, 8), batch_size=3, train=("a", "b"), validate=("c",),
                    test=("d", "e"), timed_stacks=2)  # fmt: skip


class Sum(nn.Module):
    """Adds up its channels, each times another power of 10, so that each is seen in the sum."""

    def forward(self, x: Tensor) -> Tensor:
        powers = 10.0 ** torch.arange(x.shape[1])
        return (x * powers[:, None, None]).sum(1, keepdim=True)


@pytest.mark.parametrize(("context", "expected"), [(0, [1, 2, 3, 4, 5]), (1, [321, 432, 543]), (2, [54321])])
def test_each_slice_is_seen_with_its_neighbours(context: int, expected: list[int]) -> None:
    one = torch.arange(1.0, 6).reshape(1, 1, 5, 1, 1).expand(1, 1, 5, 3, 2)
    x = torch.cat([one, 2 * one])
    found = ThickSlices(Sum(), context)(x)
    assert found.shape == (2, 1, len(expected), 3, 2)
    for sample, times in ((0, 1), (1, 2)):
        assert found[sample, 0, :, 1, 1].tolist() == [times * value for value in expected]


class Weighted(nn.Module):
    """Adds up the slices of a volume, each times another power of 10, and puts the sum in the middle of nothing."""

    def forward(self, x: Tensor) -> Tensor:
        powers = 10.0 ** torch.arange(x.shape[2])
        found = torch.full_like(x, torch.nan)
        found[:, :, x.shape[2] // 2] = (x * powers[:, None, None]).sum(2)
        return found


@pytest.mark.parametrize(("context", "expected"), [(0, [1, 2, 3, 4, 5]), (1, [321, 432, 543]), (2, [54321])])
def test_a_network_for_volumes_gets_each_slice_with_its_neighbours(context: int, expected: list[int]) -> None:
    one = torch.arange(1.0, 6).reshape(1, 1, 5, 1, 1).expand(1, 1, 5, 3, 2)
    found = MiddleSlices(Weighted(), context)(torch.cat([one, 2 * one]))
    assert found.shape == (2, 1, len(expected), 3, 2)
    for sample, times in ((0, 1), (1, 2)):
        assert found[sample, 0, :, 2, 1].tolist() == [times * value for value in expected]


def test_of_a_volume_the_middle_is_taken_and_of_each_of_several_outputs() -> None:
    torch.manual_seed(0)
    network = E2ENet(1, 2, (4, 5, 6, 7), ((1, 1, 1), (1, 2, 2), (1, 2, 2), (1, 2, 2)))
    x = torch.rand(2, 1, 5, 8, 16)
    middle = MiddleSlices(network.eval(), 2)
    assert torch.equal(middle(x), network(x)[:, :, 2:3])
    found = middle.train()(x)
    assert [tuple(o.shape) for o in found] == [(2, 2, 1, 8, 16), (2, 2, 1, 4, 8)]


@pytest.mark.parametrize("wrapper", [ThickSlices, MiddleSlices])
def test_stacks_that_make_no_sense_are_refused(wrapper: type[nn.Module]) -> None:
    with pytest.raises(InputError, match="context of 0 or more slices, got -1"):
        wrapper(nn.Identity(), -1)
    for shape in ((1, 1, 2, 4, 4), (1, 2, 3, 4, 4), (3, 4, 4)):
        with pytest.raises(InputError, match=r"shape \(N, 1, 3 or more, H, W\), got"):
            wrapper(nn.Identity(), 1)(torch.zeros(shape))


def brightness(name: str) -> Tensor:
    """Return that of the slices of a block, from the top."""
    return 50 + ord(name) + torch.arange(8, dtype=torch.uint8)


def brain(name: str) -> Brain:
    """A block of other brightness for each name and slice, off the middle of its volume; LIA."""
    image, classes = torch.zeros(20, 20, 20, dtype=torch.uint8), torch.zeros(20, 20, 20, dtype=torch.uint8)
    image[6:16, 5:13, 4:18] = brightness(name)[None, :, None]
    classes[6:16, 5:13, 4:18] = 2
    classes[7:9, 5:13, 6:8] = IGNORED
    return Brain(name, image, classes, np.eye(4))


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> BrainStacks:
    monkeypatch.setattr(brains, "load_brain", brain)
    brains.boxed.cache_clear()
    brains.weights.cache_clear()
    return SMALL


def test_the_box_has_the_brain_in_its_middle(small: BrainStacks) -> None:
    image, classes = brains.boxed("a", small.box)
    assert image.shape == small.box == classes.shape
    expected = (brightness("a").float() / 255)[:, None, None].expand(8, 14, 10)
    torch.testing.assert_close(image[:, 1:15, 3:13], expected)
    outside = torch.ones(small.box, dtype=torch.bool)
    outside[:, 1:15, 3:13] = False
    assert not image[outside].any() and not classes[outside].any()


def test_a_box_that_would_leave_the_volume_is_moved_into_it(small: BrainStacks) -> None:
    image, _ = brains.boxed("a", (20, 18, 16))
    assert image.shape == (20, 18, 16) and int((image > 0).sum()) == 8 * 14 * 10


def test_what_is_learnt_is_of_the_training_subjects_and_depends_on_seed_and_step_alone(small: BrainStacks) -> None:
    x, y = small.batch(0, 5)
    assert x.shape == (3, 1, 3, 8, 8) and y.shape == (3, 1, 8, 8) and y.dtype == torch.int64
    assert all(torch.equal(a, b) for a, b in zip((x, y), small.batch(0, 5), strict=True))
    assert not torch.equal(x, small.batch(0, 6)[0]) and not torch.equal(x, small.batch(1, 5)[0])
    still = replace(small.ranges, gain=(1.0, 1.0), gamma=(1.0, 1.0), noise=(0.0, 0.0))
    only = replace(small, train=("b",), ranges=still)
    brightest = max(float(only.batch(0, step)[0].max()) for step in range(10))
    assert brightest == pytest.approx(float(brightness("b").max()) / 255)


def test_stacks_are_the_whole_of_a_test_subject_with_a_slice_more_at_either_end(small: BrainStacks) -> None:
    found = dict(small.subjects())
    assert list(found) == ["d", "e"]
    image, classes = brains.boxed("d", small.box)
    assert torch.equal(torch.cat([x[0, 0, 1:-1] for x, _ in found["d"]]), image)
    assert torch.equal(torch.cat([y[0] for _, y in found["d"]]), classes.long())
    first, second = (x[0, 0] for x, _ in found["d"])
    assert torch.equal(first[0], image[0]) and torch.equal(first[-1], image[4]) and torch.equal(second[0], image[3])
    assert torch.equal(second[-1], image[-1])


def test_ignored_voxels_count_neither_in_the_loss_nor_in_a_score(small: BrainStacks) -> None:
    _, y = next(small.subjects())[1][0]
    logits = torch.zeros(1, len(CLASSES), *y.shape[1:])
    other = logits.clone()
    other[0, 3][y[0] == IGNORED] = 5.0
    assert (y == IGNORED).any() and torch.equal(small.counted(y), y != IGNORED)
    assert float(small.loss(logits, y)) == float(small.loss(other, y))


def test_networks_of_either_kind_label_the_same_slices(small: BrainStacks) -> None:
    x, y = next(small.subjects())[1][0]
    for network in (small.plain((4, 6, 8)), small.plain((4, 6), "stride", "instance"), small.e2enet((4, 8, 12))):
        assert network.eval()(x).shape == (1, len(CLASSES), *y.shape[1:])
    core, example = small.core(small.plain((4, 6, 8)))
    assert isinstance(core, PlainUNet) and core(example).shape[0] == 2
    assert [x.shape for x in small.timed()] == [(1, 1, 6, 16, 16)] * 2
    assert [x.shape for x in small.probed()] == [(1, 1, 6, 8, 16)] * 2


def test_all_brains_fit_the_box() -> None:
    shared("malc")
    task = BrainStacks()
    for name in (*task.train[:2], *task.test[:1]):
        image, _ = brains.boxed(name, task.box)
        whole = brains.load_brain(name).image
        assert image.shape == task.box and int((image > 0).sum()) == int((whole > 0).sum())


def test_every_family_can_begin_to_learn_the_real_task(small: BrainStacks, tmp_path: Path) -> None:
    learning = Learning(small, Budget(steps=2, autocast=True), features=(4, 8, 16), constant=4, epochs=1)
    trained = Trained(learning, tmp_path)
    for family in FAMILIES:
        assert trained.network(family).eval()(small.timed()[0]).isfinite().all(), family
