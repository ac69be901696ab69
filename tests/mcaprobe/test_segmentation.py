"""Do the labels of a segmentation become the right elements of each layer?"""

from pathlib import Path

import numpy as np
import pytest
import torch

import mcaprobe
from mcaprobe.__main__ import main
from mcaprobe.errors import InputError
from mcaprobe.images import SliceOptions, load_slice
from mcaprobe.segmentation import read_segmentation, regions_at
from mcaprobe.storage import read_csv
from mcaprobe.streams import piece_seed
from tests.mcaprobe import unit_faults as faults
from tests.mcaprobe.bids_sets import head, save
from tests.mcaprobe.run_directories import expect_equal
from tests.mcaprobe.small_models import HERE, build_small


def labelled(shape: tuple[int, int, int] = (20, 24, 18)) -> np.ndarray:
    """Return a number for each octant of a volume, 1 to 8, with a margin of zeros in the first axis."""
    i, j, k = np.indices(shape)
    labels = 1 + (i >= shape[0] // 2) + 2 * (j >= shape[1] // 2) + 4 * (k >= shape[2] // 2)
    labels[:2] = 0
    return labels.astype(np.int16)


def by_hand(labels: np.ndarray, affine: np.ndarray, picture) -> np.ndarray:
    """Return the label at each pixel of a slice, one after the other, through millimetres."""
    found = np.zeros(tuple(picture.mask.shape), int)
    for at in np.ndindex(found.shape):
        index = np.insert(np.array(at, float), picture.axis, 0.0)
        millimetres = picture.affine @ np.append(index, 1)
        voxel = [int(np.floor(v + 0.5 + 1e-6)) for v in np.linalg.solve(affine, millimetres)[:3]]
        if all(0 <= v < n for v, n in zip(voxel, labels.shape, strict=True)):
            found[at] = labels[tuple(voxel)]
    return found


@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
@pytest.mark.parametrize("grid", ["same", "finer", "turned"])
def test_a_pixel_is_of_the_label_whose_voxel_is_nearest(tmp_path, plane, grid) -> None:
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    image = save(tmp_path / "head.nii.gz", head(1), affine)
    labels, own = labelled(), affine.copy()
    if grid == "finer":
        labels, own = labelled((40, 48, 36)), np.diag([1.0, 1.0, 1.0, 1.0])
        own[:3, 3] = -0.25
    elif grid == "turned":
        labels, own[0, 0], own[0, 3] = np.ascontiguousarray(labels[::-1]), -2.0, 38.0
    path = save(tmp_path / "labels.nii.gz", labels, own)
    picture = load_slice(image, SliceOptions(plane=plane, size=(26, 20)))
    expected = by_hand(labels, own, picture)
    found = regions_at(read_segmentation(path), picture)
    assert set(found) == {f"label {n}" for n in np.unique(expected) if n}
    for name, where in found.items():
        assert np.array_equal(where.numpy(), expected == int(name.split()[1])), name


def test_a_run_has_a_row_for_each_region_of_each_layer(tmp_path) -> None:
    image, path = save(tmp_path / "head.nii.gz", head(1)), save(tmp_path / "labels.nii.gz", labelled())
    options = {"size": (24, 24), "index": 7}
    result = mcaprobe.run(build_small(), image, samples=4, block=2, input_options=options, segmentation=path, threads=1)
    regions = regions_at(read_segmentation(path), load_slice(image, SliceOptions(size=(24, 24), index=7)))
    for layer in ("conv1", "unpool"):
        bits, kinds = result[layer].significant_bits, result[layer].classes
        for name, where in regions.items():
            inside = where.expand(bits.shape)
            row, numbers = result[layer].row(name), bits[inside][kinds[inside] == 0]
            assert row.elements == int(inside.sum())
            assert row.bits_mean == pytest.approx(float(numbers.mean()), rel=1e-12)
    # The elements of a pooling lie between four pixels; halfway the higher index counts. It has 4 channels.
    assert result["pool"].row("label 1").elements == 4 * int(regions["label 1"][1::2, 1::2].sum())


def test_a_run_of_another_segmentation_is_another_run(tmp_path) -> None:
    image, path = save(tmp_path / "head.nii.gz", head(1)), save(tmp_path / "labels.nii.gz", labelled())
    arguments = {"samples": 2, "block": 2, "out": tmp_path / "run", "threads": 1}
    mcaprobe.run(f"{HERE}:build_small", image, segmentation=path, **arguments)
    save(path, np.where(labelled() == 1, 2, labelled()).astype(np.int16))
    with pytest.raises(InputError, match="holds another run: its regions sha256"):
        mcaprobe.run(f"{HERE}:build_small", image, segmentation=path, **arguments)
    with pytest.raises(InputError, match="holds another run: its segmentation"):
        mcaprobe.run(f"{HERE}:build_small", image, **arguments)


def test_digits_of_another_estimator_have_the_regions_too(tmp_path, capsys) -> None:
    image, path = save(tmp_path / "head.nii.gz", head(1)), save(tmp_path / "labels.nii.gz", labelled())
    mcaprobe.run(f"{HERE}:build_small", image, samples=4, block=2, out=tmp_path / "run", segmentation=path, threads=1)
    assert main(["digits", str(tmp_path / "run"), "--method", "general", "--layers", "conv1"]) == 0
    assert "label 1" in capsys.readouterr().out


@pytest.mark.parametrize("where", ["beside", "above"])
def test_labels_have_the_names_of_the_bids_table(tmp_path, where) -> None:
    folder = tmp_path / "sub-01" / "anat"
    path = save(folder / "sub-01_desc-octants_dseg.nii.gz", labelled())
    (tmp_path / "dataset_description.json").write_text("{}")
    (tmp_path / "desc-other_dseg.tsv").write_text("index\tname\n1\tof another\n")
    table = folder / "sub-01_desc-octants_dseg.tsv" if where == "beside" else tmp_path / "desc-octants_dseg.tsv"
    table.write_text("index\tname\tcolour\n1\tone\tred\n2\ttwin\tblue\n3\ttwin\tblue\n4\tbrain\tgrey\n")
    found = read_segmentation(path)
    assert [found.name(n) for n in range(1, 6)] == ["one", "twin (label 2)", "twin (label 3)", "brain (label 4)",
                                                    "label 5"]  # fmt: skip


def test_globs_choose_among_the_regions(tmp_path) -> None:
    image, path = save(tmp_path / "head.nii.gz", head(1)), save(tmp_path / "labels.nii.gz", labelled())
    run = {"samples": 2, "block": 2, "threads": 1, "segmentation": path}
    result = mcaprobe.run(build_small(), image, regions=["label [12]"], **run)
    assert {row.region for row in result["conv1"].rows} == {"all", "brain", "background", "label 1", "label 2"}
    with pytest.raises(InputError, match=r"No region of .* is called label 9: the nearest are label"):
        mcaprobe.run(build_small(), image, regions="label 9", **run)


def broken_table(folder: Path) -> Path:
    path = save(folder / "x_dseg.nii.gz", labelled())
    (folder / "x_dseg.tsv").write_text("number\tlabel\n1\tone\n")
    return path


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda folder: save(folder / "half.nii.gz", np.full((20, 24, 18), 0.5, np.float32)), "whole numbers"),
        (lambda folder: save(folder / "none.nii.gz", np.zeros((20, 24, 18), np.int16)), "has no label where"),
        (lambda folder: save(folder / "far.nii.gz", labelled(), np.diag([2, 2, 2, 1]) + np.eye(4, k=3) * 500.0),
         "has no label where"),
        (lambda folder: folder / "nothing.nii.gz", "There is no file"),
        (broken_table, "Expected the columns index"),
    ],
)  # fmt: skip
def test_what_cannot_be_regions_is_one_sentence(tmp_path, make, sentence) -> None:
    image = save(tmp_path / "head.nii.gz", head(1))
    with pytest.raises(InputError, match=sentence):
        mcaprobe.run(build_small(), image, samples=2, segmentation=make(tmp_path))


def test_a_tensor_has_no_regions(tmp_path) -> None:
    path = save(tmp_path / "labels.nii.gz", labelled())
    with pytest.raises(InputError, match="needs an image as input"):
        mcaprobe.run(build_small(), torch.zeros(1, 1, 16, 16), samples=2, segmentation=path)


def test_a_broken_image_of_labels_is_no_traceback(tmp_path) -> None:
    path = save(tmp_path / "labels.nii.gz", labelled())
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(InputError, match="truncated or damaged"):
        read_segmentation(path)


@pytest.fixture(scope="module")
def eighths(tmp_path_factory):
    """A head, its octants as labels in another grid, and its run of six slices with them."""
    folder = tmp_path_factory.mktemp("eighths")
    own = np.diag([1.0, 1.0, 1.0, 1.0])
    own[:3, 3] = -0.25
    image = save(folder / "head.nii.gz", head(1))
    labels = save(folder / "labels.nii.gz", labelled((40, 48, 36)), own)
    return image, labels, volume(image, labels, folder / "run")


WHOLE = {"samples": 3, "block": 3, "keep_moments": "conv2", "threads": 1}


def volume(image, labels, out, **more):
    options = {"slices": "6:12:2", "regions": ["label [1258]"], **WHOLE, **more}
    return mcaprobe.run(f"{HERE}:build_small", image, out=out, segmentation=labels, **options)


def test_the_rows_of_a_piece_are_those_of_its_slice_with_the_same_segmentation(eighths, tmp_path) -> None:
    image, labels, whole = eighths
    for index, own in ((6, "label [12]"), (10, "label [58]")):
        mcaprobe.run(f"{HERE}:build_small", image, out=tmp_path / str(index), segmentation=labels, regions=own,
                     seed=piece_seed(0, index), input_options={"index": index}, **WHOLE)  # fmt: skip
        rows = [row for row in read_csv(whole.path / "pieces.csv") if row.pop("piece") == str(index)]
        assert rows == read_csv(tmp_path / str(index) / "table.csv")
        assert len({row["region"] for row in rows}) == 5


def test_the_rows_of_a_volume_are_those_of_all_elements_of_a_region(eighths) -> None:
    whole = eighths[2]
    layer = whole["conv2"]
    assert [row.region for row in layer.rows] == ["all", "brain", "background", *(f"label {n}" for n in (1, 2, 5, 8))]
    bits, classes = layer.significant_bits, layer.classes
    for name in ("label 1", "label 8"):
        inside = layer.masks[name].expand(bits.shape)
        numbers, row = bits[inside & (classes == mcaprobe.Class.NUMBER)], layer.row(name)
        assert row.elements == int(inside.sum()) > 0
        assert row.bits_mean == pytest.approx(float(numbers.mean()), rel=1e-12)
        assert row.bits_p05 == pytest.approx(float(np.quantile(numbers.numpy(), 0.05)), abs=1 / 8)
        assert row.share_noise == pytest.approx(float((classes[inside] == mcaprobe.Class.NOISE).double().mean()))
    expected = mcaprobe.summary.Histogram.of(layer.moments, {n: layer.masks[n] for n in layer.histogram.regions[1:]})
    assert torch.equal(layer.histogram.counts, expected.counts) and layer.histogram.regions == expected.regions


def test_workers_count_the_same_regions(eighths, tmp_path) -> None:
    image, labels, whole = eighths
    volume(image, labels, tmp_path / "run", executor=faults.Losing())
    expect_equal(whole.path, tmp_path / "run")


def test_a_volume_of_other_labels_is_another_run(eighths, tmp_path) -> None:
    image, labels, whole = eighths
    with pytest.raises(InputError, match="holds another run: its regions sha256"):
        volume(image, labels, whole.path, regions="label 1")
    with pytest.raises(InputError, match="is called label 9: "):
        volume(image, labels, tmp_path / "run", regions="label 9")
    far = np.eye(4)
    far[:3, 3] = 500
    with pytest.raises(InputError, match="has no label where the input"):
        volume(image, save(tmp_path / "far.nii.gz", labelled(), far), tmp_path / "run")


def test_the_command_takes_a_segmentation(eighths, tmp_path, capsys) -> None:
    image, labels, _ = eighths
    command = ["run", f"{HERE}:build_small", str(image), "--out", str(tmp_path / "run"), "--samples", "2", "--slice",
               "6", "--layers", "conv2", "--regions", "label [12]"]  # fmt: skip
    assert main(command) == 2 and "--regions chooses among the labels of --segmentation" in capsys.readouterr().err
    assert main([*command, "--segmentation", str(labels)]) == 0
    regions = [row.region for row in mcaprobe.load(tmp_path / "run").rows]
    assert regions == ["all", "brain", "background", "label 1", "label 2"]
