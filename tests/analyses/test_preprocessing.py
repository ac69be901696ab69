"""Does an image become FastSurfer's and come back, whatever its axes, and do planes lose nothing?"""

from itertools import permutations, product

import nibabel as nib
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nibabel.orientations import apply_orientation, inv_ornt_aff
from nibabel.spatialimages import SpatialImage

from analyses.brains import even
from analyses.preprocessing import conform as module
from analyses.preprocessing.conform import conform, conform_labels, is_conformed, rescale, restore_labels
from analyses.preprocessing.planes import (
    AXES,
    aggregate,
    from_plane,
    sagittal_to_full,
    thick_slices,
    to_plane,
    volume_of,
)
from analyses.structures import CLASSES, IGNORED, STRUCTURES, classes_of
from mcaprobe.errors import InputError

SMALL = 16
SIGNS = list(product((1, -1), repeat=3))
ORIENTATIONS = [np.array(list(zip(axes, signs, strict=True))) for axes in permutations(range(3)) for signs in SIGNS]


@pytest.fixture
def small(monkeypatch):
    """Conform to 16 voxels instead of 256."""
    monkeypatch.setattr(module, "SIZE", SMALL)


def image(shape, seed=0, zooms=(1.0, 1.0, 1.0), dtype=np.int16, top=900):
    """An image with a random affine offset, random values and a border of zeros."""
    rng = np.random.default_rng(seed)
    data = np.zeros(shape, dtype)
    inner = tuple(slice(1, n - 1) for n in shape)
    data[inner] = rng.integers(1, top, [n - 2 for n in shape])
    affine = np.diag([*zooms, 1.0])
    affine[:3, 3] = rng.integers(-40, 40, 3)
    return nib.Nifti1Image(data, affine)


def turned(img, orientation):
    """The same image with its axes exchanged and reversed, and the affine to match."""
    data = apply_orientation(np.asarray(img.dataobj), orientation)
    return nib.Nifti1Image(data, img.affine @ inv_ornt_aff(orientation, img.shape))


@pytest.mark.parametrize("orientation", ORIENTATIONS, ids=str)
def test_the_axes_of_a_file_do_not_matter(small, orientation):
    """FreeSurfer calls voxel n / 2 the middle: of a reversed axis that is the next one. Every voxel keeps its place."""
    plain = image((10, 12, 8))
    expected, found = conform(plain), conform(turned(plain, orientation))
    moved = np.linalg.inv(found.affine) @ expected.affine
    shift = moved[:3, 3]
    assert np.allclose(moved[:3, :3], np.eye(3)) and np.allclose(shift, np.rint(shift)) and np.abs(shift).max() <= 1
    data = np.roll(np.asarray(found.dataobj), tuple(-np.rint(shift).astype(int)), (0, 1, 2))
    assert np.array_equal(data, np.asarray(expected.dataobj)) and data.any()


@settings(max_examples=25, deadline=None)
@given(st.tuples(*[st.integers(2, 6)] * 3), st.integers(0, 10**6), st.sampled_from(ORIENTATIONS))
def test_labels_come_back_as_they_were(halves, seed, orientation):
    labels = turned(image(tuple(2 * n for n in halves), seed, top=300), orientation)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "SIZE", SMALL)
        there = conform_labels(labels)
        back = restore_labels(there, labels)
    assert there.shape == (SMALL,) * 3 and np.array_equal(np.asarray(back.dataobj), np.asarray(labels.dataobj))
    assert np.allclose(back.affine, labels.affine)
    counts = [np.unique(np.asarray(x.dataobj)[np.asarray(x.dataobj) > 0], return_counts=True) for x in (labels, there)]
    assert all(np.array_equal(a, b) for a, b in zip(*counts, strict=True))


@pytest.mark.parametrize("zooms", [(1.0, 1.0, 1.0), (0.8, 1.1, 1.3), (2.0, 2.0, 2.0)])
def test_each_voxel_is_interpolated_at_its_place_in_the_world(small, zooms):
    img = image((9, 7, 8), zooms=zooms, dtype=np.uint8, top=255)
    data, found = np.asarray(img.dataobj, float), conform(img)
    to_source = np.linalg.inv(img.affine) @ found.affine
    for voxel in product(range(0, SMALL, 3), repeat=3):
        place = (to_source @ [*voxel, 1])[:3]
        low = np.floor(place).astype(int)
        value = 0.0
        for corner in product((0, 1), repeat=3):
            at = low + corner
            weight = np.prod([s if c else 1 - s for s, c in zip(place - low, corner, strict=True)])
            if weight > 1e-12 and all(0 <= a < n for a, n in zip(at, data.shape, strict=True)):
                value += weight * data[tuple(at)]
        inside = all(0 <= p <= n - 1 for p, n in zip(place, data.shape, strict=True))
        assert abs(float(np.asarray(found.dataobj)[voxel]) - (value if inside else 0)) <= 0.501


def test_the_middle_of_the_image_becomes_the_middle_of_256_voxels():
    img = image((10, 12, 8))
    found = conform(img)
    assert found.shape == (256, 256, 256) and found.get_data_dtype() == np.uint8
    assert nib.aff2axcodes(found.affine) == ("L", "I", "A")
    middles = [x.affine @ [*(n / 2 for n in x.shape), 1] for x in (img, found)]
    assert np.allclose(*middles)


def test_a_conformed_image_stays_as_it_is():
    first = conform(image((10, 12, 8)))
    second = conform(first)
    assert is_conformed(first) and not is_conformed(image((10, 12, 8)))
    assert np.array_equal(np.asarray(first.dataobj), np.asarray(second.dataobj))
    assert np.array_equal(first.affine, second.affine)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 3), st.floats(0, 0.95))
def test_intensities_are_those_of_the_sorted_voxels(seed, power, empty):
    rng = np.random.default_rng(seed)
    data = (1000 * rng.random((20, 20, 20)) ** power + 1) * (rng.random((20, 20, 20)) >= empty)
    found = rescale(data, data)
    width = (data.max() - data.min()) / 1000
    top = np.sort(data[data != 0])[-1 - int(0.001 * np.count_nonzero(data))]  # above it lies .1 % of what is not 0
    expected = np.clip((data - data.min()) * 255 / (top - data.min()), 0, 255)
    slack = 255 * 3 * width / (top - data.min()) + 0.51
    assert found.dtype == np.uint8 and (np.abs(found - expected) <= slack).all()
    assert (found[data == 0] == 0).all()
    order = np.argsort(data, axis=None)
    assert (np.diff(found.ravel()[order].astype(int)) >= 0).all()


def test_wrong_images_are_one_sentence():
    affine = np.eye(4)
    for data, message in (
        (np.zeros((4, 4), np.uint8), "Expected a 3-D image, got one of shape"),
        (np.full((4, 4, 4), np.nan), "Expected finite intensities, got 64 voxels that are NaN"),
        (np.zeros((4, 4, 4), np.int16), "Expected intensities that differ"),
    ):
        with pytest.raises(InputError, match=message):
            conform(nib.Nifti1Image(data, affine))
    with pytest.raises(InputError, match="affine that has an inverse"):
        conform(SpatialImage(np.ones((4, 4, 4)), np.diag([1.0, 1.0, 0.0, 1.0])))


def test_a_box_with_odd_sides_gets_a_row_of_zeros():
    found = even(image((5, 6, 7)))
    assert found.shape == (6, 6, 8) and not np.asarray(found.dataobj)[5].any()
    assert np.array_equal(np.asarray(found.dataobj)[:5, :, :7], np.asarray(image((5, 6, 7)).dataobj))


@pytest.mark.parametrize("plane", AXES)
def test_a_plane_shows_each_voxel_once(plane):
    volume = torch.arange(3 * 4 * 5).reshape(3, 4, 5)
    slices = to_plane(volume, plane)
    assert torch.equal(from_plane(slices, plane), volume)
    along = {"axial": 1, "coronal": 2, "sagittal": 0}[plane]  # of (L, I, A): the axis across the slices
    for i in range(volume.shape[along]):
        assert set(slices[..., i].flatten().tolist()) == set(volume.select(along, i).flatten().tolist())
    logits = torch.rand(slices.shape[2], 6, *slices.shape[:2])
    for c, found in enumerate(volume_of(logits, plane)):
        assert torch.equal(found, from_plane(logits[:, c].movedim(0, 2), plane))


@pytest.mark.parametrize("plane", AXES)
def test_neighbours_become_channels_and_the_last_one_repeats(plane):
    volume = torch.randint(0, 256, (7, 8, 9), dtype=torch.uint8)
    slices = to_plane(volume, plane)
    last = slices.shape[2] - 1
    for i, found in zip((0, 3, last), thick_slices(volume, plane, (0, 3, last)), strict=True):
        for channel in range(7):
            expected = slices[..., min(max(i + channel - 3, 0), last)]
            assert torch.equal(found[channel], expected / 255)


def test_planes_are_added_with_their_weights():
    sizes = {"axial": (4, 6, 5, 3), "coronal": (5, 6, 3, 4), "sagittal": (3, 6, 5, 4)}
    generator = torch.Generator().manual_seed(0)
    x = {plane: torch.randn(size, generator=generator) for plane, size in sizes.items()}
    found = aggregate(x)
    for left, down, front in product(range(3), range(4), range(5)):
        axial, coronal = x["axial"][down, :, front, left], x["coronal"][front, :, left, down]
        total = 0.4 * axial + 0.4 * coronal + 0.2 * x["sagittal"][left, :, front, down]
        assert int(found[left, down, front]) == int(total.argmax())
    with pytest.raises(InputError, match="Expected logits of the same classes in each plane"):
        aggregate({"axial": torch.zeros(2, 3, 4, 4), "coronal": torch.zeros(2, 4, 4, 4)})
    with pytest.raises(InputError, match="Expected a plane among axial, coronal, sagittal, got 'oblique'"):
        aggregate({"oblique": torch.zeros(2, 3, 4, 4)})


def test_a_sagittal_class_stands_for_both_sides():
    full = ["Unknown", "Left-Thalamus", "Brain-Stem", "Right-Thalamus", "ctx-lh-insula", "ctx-rh-insula"]
    sagittal = ["Unknown", "Brain-Stem", "Right-Thalamus", "ctx-lh-insula"]
    assert sagittal_to_full(full, sagittal).tolist() == [0, 2, 1, 2, 3, 3]
    with pytest.raises(InputError, match="for Left-Caudate, found neither Left-Caudate nor Right-Caudate"):
        sagittal_to_full([*full, "Left-Caudate"], sagittal)


def test_each_manual_label_belongs_to_one_structure_or_is_ignored():
    labels = [label for group in STRUCTURES.values() for label in group]
    assert len(labels) == len(set(labels)) and len(CLASSES) == 16
    found = classes_of(np.array([[0, 44, 45, 101, 59, 63, 69]]))
    assert found.tolist() == [[0, 1, 1, 2, 6, IGNORED, IGNORED]]
    with pytest.raises(InputError, match=r"Expected labels in 0\.\.207, got 0\.\.300"):
        classes_of(np.array([0, 300]))
