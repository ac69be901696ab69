"""Does denoising leave an image where and what it was, apart from the noise?"""

import nibabel as nib
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from analyses.models.fondue import FONDUE
from analyses.preprocessing.denoise import axes_of, denoise
from mcaprobe.errors import InputError


def middle(x: Tensor, zoom: float) -> Tensor:
    return x[:, 3:4]


def mean(x: Tensor, zoom: float) -> Tensor:
    return x.mean(1, keepdim=True)


def image(shape=(5, 7, 6), sizes=(1.0, 1.0, 1.0), seed=0) -> nib.Nifti1Image:  # type: ignore[no-untyped-def]
    affine = np.diag([-sizes[0], sizes[1], sizes[2], 1.0])
    affine[:3, 3] = (4, -9, 30)
    return nib.Nifti1Image(np.random.default_rng(seed).integers(-50, 900, shape).astype(np.int16), affine)


@settings(max_examples=20, deadline=None)
@given(st.tuples(*[st.integers(1, 9)] * 3).filter(lambda s: np.prod(s) > 1), st.integers(0, 99), st.integers(1, 4))
def test_a_network_that_changes_nothing_changes_nothing(shape, seed, batch):  # type: ignore[no-untyped-def]
    img = image(shape, seed=seed)
    if np.ptp(np.asarray(img.dataobj)) == 0:
        return
    found = denoise(img, middle, batch)
    assert found.shape == shape and np.array_equal(found.affine, img.affine) and found.get_data_dtype() == np.float32
    assert np.allclose(np.asarray(found.dataobj), np.asarray(img.dataobj), atol=1e-3)


def test_each_axis_counts_a_third_and_edges_repeat() -> None:
    img = image()
    data = np.asarray(img.dataobj, float)
    expected = np.zeros_like(data)
    for axis in range(3):
        n = data.shape[axis]
        for i in range(n):
            around = [data.take(min(max(i + k, 0), n - 1), axis) for k in range(-3, 4)]
            np.moveaxis(expected, axis, 0)[i] += np.mean(around, 0) / 3
    assert np.allclose(np.asarray(denoise(img, mean, 2).dataobj), expected, atol=0.01)


def test_thick_slices_are_denoised_in_their_own_plane_alone() -> None:
    assert axes_of([1.0, 1.0, 1.9]) == (0, 1, 2) and axes_of([1.0, 2.0, 1.0]) == (1,)
    seen: list[tuple[tuple[int, ...], float]] = []

    def watch(x: Tensor, zoom: float) -> Tensor:
        seen.append((tuple(x.shape), zoom))
        return x[:, 3:4]

    denoise(image((5, 7, 6), (0.9, 0.8, 4.0)), watch, 6)
    assert seen == [((6, 7, 5, 7), pytest.approx(0.9))]


def test_the_network_of_the_paper_runs_on_an_image() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = FONDUE(filters=2).eval()
    found = np.asarray(denoise(image((9, 8, 7)), network).dataobj)
    assert found.shape == (9, 8, 7) and np.isfinite(found).all()
    data = np.asarray(image((9, 8, 7)).dataobj)
    assert data.min() - 1 <= found.min() and found.max() <= data.max() + 1


def test_images_that_cannot_be_denoised_are_one_sentence() -> None:
    with pytest.raises(InputError, match="Expected intensities that differ, got 3 everywhere"):
        denoise(nib.Nifti1Image(np.full((3, 3, 3), 3, np.int16), np.eye(4)), middle)
    with pytest.raises(InputError, match="Expected a 3-D image"):
        denoise(nib.Nifti1Image(np.zeros((3, 3), np.int16), np.eye(4)), middle)
