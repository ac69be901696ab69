"""Are the synthetic heads what they should be: reproducible, aligned with their labels, in range?"""

from dataclasses import replace

import numpy as np
import pytest
import torch

from analyses.training.contrast import ContrastRanges, gaussian_blur, grow_ventricles, monotone, refold, tissue_means
from analyses.training.deform import DeformRanges, plane_coordinates, random_coordinates, rotation, sample
from analyses.training.head import HeadRanges
from analyses.training.randomness import Dice
from analyses.training.sample import Augmentation, random_batch, random_sample
from analyses.training.template import CLASSES, Template, load_template, raw_map

SIZE = (96, 112)
CLEAN = ContrastRanges(
    white=(0.9, 0.9),
    grey_over_white=(0.66, 0.66),
    csf_over_white=(0.2, 0.2),
    any_contrast=0.0,
    sharpness=(8.0, 8.0),
    texture=(0.0, 0.0),
    deep_grey=(0.0, 0.0),
    tissue_field=(0.0, 0.0),
    speckle=(0.0, 0.0),
    bias=(0.0, 0.0),
    blur=(0.0, 0.0),
    noise=(0.0, 0.0),
    gamma=(1.0, 1.0),
)
MASKED = HeadRanges(probability=0.0, mask_error=(0.0, 0.0))


@pytest.fixture(scope="module")
def template() -> Template:
    return load_template()


def test_the_template_is_the_raw_one(template: Template) -> None:
    t1 = raw_map("t1")
    assert t1.dtype == np.uint8
    assert np.array_equal((template.fields[0] * 255).round().numpy().astype(np.uint8), t1)
    assert int((t1 > 0).sum()) == 1_886_539
    assert torch.bincount(template.labels.flatten().long()).tolist() == [
        6_788_750,
        160_496,
        1_090_506,
        635_537,
    ]


def test_fractions_sum_to_one_in_the_brain_and_order_the_means(template: Template) -> None:
    brain = template.labels > 0
    torch.testing.assert_close(template.fields[1:4].sum(0)[brain], torch.ones(int(brain.sum())))
    assert template.means[0] < template.means[1] < template.means[2]


def test_one_key_one_head(template: Template) -> None:
    a, b, c = (random_sample(template, (0, i), SIZE, Augmentation()) for i in (5, 5, 6))
    assert torch.equal(a[0], b[0])
    assert torch.equal(a[1], b[1])
    assert not torch.equal(a[0], c[0])


def test_a_batch_is_its_samples_whatever_came_before(template: Template) -> None:
    torch.rand(3)
    x, y = random_batch(template, 7, 3, 2, SIZE, Augmentation())
    one = random_sample(template, (7, 7), SIZE, Augmentation())
    assert torch.equal(x[1], one[0])
    assert torch.equal(y[1], one[1])


@pytest.mark.parametrize("index", range(6))
def test_a_head_has_the_range_and_the_classes_it_should(template: Template, index: int) -> None:
    x, y = random_sample(template, (1, index), SIZE, Augmentation())
    assert x.shape == (7, *SIZE)
    assert x.dtype == torch.float32
    assert bool(((x >= 0) & (x <= 1)).all())
    assert y.shape == SIZE
    assert set(y.unique().tolist()) <= set(range(len(CLASSES)))


@pytest.mark.parametrize("index", [0, 1, 2, 3])
def test_labels_follow_the_image_under_any_deformation(template: Template, index: int) -> None:
    deform = DeformRanges(height=(60.0, 120.0))
    x, y = random_sample(template, (2, index), SIZE, Augmentation(deform, CLEAN, MASKED, real=0.0))
    means = torch.tensor([0.0, 0.18, 0.9 * 0.66, 0.9])
    seen = (x[3][..., None] - means).abs().argmin(-1)

    def agreement(shift: int) -> float:
        return float((seen.roll(shift, 0) == y)[8:-8][y[8:-8] > 0].float().mean())

    assert agreement(0) > 0.97
    assert agreement(0) > agreement(2) + 0.08


def test_without_deformation_a_slice_is_the_templates_own(template: Template) -> None:
    shape = (197, 233, 7)
    coordinates = plane_coordinates(shape, (98.0, 116.0, 80.0))
    fields = sample(template.fields, coordinates)
    torch.testing.assert_close(fields, template.fields[..., 77:84], atol=2e-3, rtol=1e-4)
    labels = sample(template.labels[None], coordinates, nearest=True)[0]
    assert torch.equal(labels.to(torch.uint8), template.labels[..., 77:84])


def test_coordinates_move_smoothly_and_keep_their_size() -> None:
    ranges = DeformRanges()
    for seed in range(5):
        coordinates = random_coordinates(Dice.of(seed), (64, 64, 7), (98.0, 112.0, 81.0), ranges)
        steps = torch.stack([coordinates.diff(dim=axis)[:, :63, :63, :6] for axis in (1, 2, 3)])
        volume = torch.linalg.det(steps.permute(2, 3, 4, 0, 1)).abs()
        assert 0.3 < float(volume.median()) < 4
        assert float((volume < 0.05).float().mean()) < 0.05


def test_a_rotation_is_a_rotation() -> None:
    matrix = rotation(0.3, -0.1, 0.2)
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(3))
    torch.testing.assert_close(torch.linalg.det(matrix), torch.tensor(1.0))


def test_smooth_noise_meets_its_knots_and_is_linear_between_them() -> None:
    noise = Dice.of(3).smooth(2, (40, 30, 7), 10.0)
    assert noise.shape == (2, 40, 30, 7)
    bends = noise.diff(n=2, dim=1).abs().amax((0, 2, 3)) > 1e-4
    assert int(bends.sum()) <= 8  # at most two neighbouring voxels see each of the four knots inside


def test_refolding_without_noise_keeps_the_largest_tissue(template: Template) -> None:
    fractions = template.fields[1:4, 60:120, 60:120, 70:77]
    ranges = replace(ContrastRanges(), folding=(0.0, 0.0), sharpness=(2.0, 2.0))
    assert torch.equal(refold(Dice.of(0), fractions, ranges).argmax(0), fractions.argmax(0))


def test_ventricles_grow_inside_and_nowhere_else(template: Template) -> None:
    fields = template.fields[:, 40:160, 40:190, 85:92]
    fractions, depth = fields[1:4], -fields[4]
    grown = grow_ventricles(Dice.of(0), fractions, depth, ContrastRanges(ventricles=(5.0, 5.0)))
    brain, deep = depth > 0, depth > 15
    torch.testing.assert_close(grown.sum(0)[brain], torch.ones(int(brain.sum())))
    before, after = (f.argmax(0)[deep].eq(0).float().mean() for f in (fractions, grown))
    assert float(after) > 1.3 * float(before) > 0
    shallow = (depth > 0) & (depth < 4)
    torch.testing.assert_close(grown[:, shallow], fractions[:, shallow], atol=0.25, rtol=0)
    assert grow_ventricles(Dice.of(0), fractions, depth, ContrastRanges()) is fractions


def test_nearly_all_contrasts_follow_t1() -> None:
    ordered = [bool((tissue_means(Dice.of(i), ContrastRanges()).diff() > 0).all()) for i in range(200)]
    assert np.mean(ordered) > 0.9


def test_a_monotone_change_keeps_the_order_of_the_voxels() -> None:
    x = torch.linspace(0, 1, 101)[None, None]
    y = monotone(Dice.of(1), x, torch.tensor([0.28, 0.66, 0.88]))
    assert bool((y.diff() >= 0).all())


def test_blur_keeps_a_constant_and_the_sum() -> None:
    torch.testing.assert_close(gaussian_blur(torch.ones(8, 8, 7), 0.8), torch.ones(8, 8, 7))
    point = torch.zeros(9, 9, 7)
    point[4, 4, 3] = 1
    torch.testing.assert_close(gaussian_blur(point, 0.8).sum(), torch.tensor(1.0))


def test_a_head_surrounds_the_brain_with_background_that_is_not_zero(template: Template) -> None:
    heads = replace(HeadRanges(), probability=1.0)
    x, y = random_sample(template, (3, 0), SIZE, Augmentation(DeformRanges(height=(80.0, 80.0)), head=heads))
    assert float((x[3][y == 0] > 0).float().mean()) > 0.9
    x, y = random_sample(template, (3, 0), SIZE, Augmentation(DeformRanges(height=(80.0, 80.0)), head=MASKED))
    assert not x[3][y == 0].gt(0.05).float().mean() > 0.05
