"""Which images of a dataset does `mcaprobe bids` take?"""

import json
from pathlib import Path

import pytest

from mcaprobe.bids_app.dataset import Selection, images_of, read_filter
from mcaprobe.bids_app.segmentations import segmentation_of
from mcaprobe.errors import InputError
from tests.mcaprobe.bids_sets import SEGMENTATION, describe, make_set

pytest.importorskip("ancpbids", reason="the package ancpbids, of the extra bids, is not installed")

NAMES = ("sub-01/anat/sub-01_T1w", "sub-02/ses-a/anat/sub-02_ses-a_run-1_T1w",
         "sub-02/ses-a/anat/sub-02_ses-a_acq-mprage_run-02_T1w", "sub-02/ses-b/anat/sub-02_ses-b_T1w",
         "sub-10/ses-b/anat/sub-10_ses-b_T1w")  # fmt: skip


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    """Five T1w images among others that are none."""
    folder = make_set(tmp_path_factory.mktemp("sets") / "set", NAMES)
    first = folder / "sub-01/anat/sub-01_T1w.nii.gz"
    for other in ("sub-01/anat/sub-01_T2w.nii.gz", "derivatives/x/sub-01/anat/sub-01_desc-preproc_T1w.nii.gz",
                  "sourcedata/sub-77/anat/sub-77_T1w.nii.gz", "sub-01/anat/sub-01_T1w.json"):  # fmt: skip
        (folder / other).parent.mkdir(parents=True, exist_ok=True)
        (folder / other).write_bytes(first.read_bytes())
    (folder / "sub-10/ses-b/anat/sub-10_ses-b_T1w.nii.gz").unlink()
    (folder / "sub-10/ses-b/anat/sub-10_ses-b_T1w.nii.gz").symlink_to(first)
    return folder


def names(dataset: Path, **selection: object) -> list[str]:
    return [image.name for image in images_of(dataset, Selection(**selection))]


def stems(*numbers: int) -> list[str]:
    return sorted(Path(NAMES[i]).name for i in numbers)


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        ({}, (0, 1, 2, 3, 4)),
        ({"participants": ["02"]}, (1, 2, 3)),
        ({"participants": ["sub-01", "10"]}, (0, 4)),
        ({"sessions": ["ses-b"]}, (3, 4)),
        ({"participants": ["02"], "sessions": ["b"]}, (3,)),
        ({"images": ["*ses-a*"]}, (1, 2)),
        ({"images": ["sub-01_T1w", "sub-02_ses-b_T1w"]}, (0, 3)),
        ({"entities": {"run": ("2",)}}, (2,)),
        ({"entities": {"run": ("1", "02")}}, (1, 2)),
        ({"entities": {"run": None}}, (0, 3, 4)),
        ({"entities": {"acq": None, "ses": ("a",)}}, (1,)),
    ],
    ids=str,
)
def test_every_part_of_a_selection_has_to_allow_an_image(dataset, selection, expected) -> None:
    assert names(dataset, **selection) == stems(*expected)


def test_an_image_knows_where_its_derivatives_lie(dataset) -> None:
    (image,) = images_of(dataset, Selection(images=["*mprage*"]))
    assert image.folder == Path("sub-02/ses-a/anat") and image.prefix == "sub-02_ses-a_acq-mprage_run-02"
    assert image.uri == "bids:raw:sub-02/ses-a/anat/sub-02_ses-a_acq-mprage_run-02_T1w.nii.gz"


@pytest.mark.parametrize(
    ("about", "expected"),
    [
        ({"t1w": {"session": "a", "run": 1}}, (1,)),
        ({"t1w": {"subject": ["01", "sub-10"]}, "bold": {"run": 3}}, (0, 4)),
        ({"t1w": {"acquisition": None, "run": [1, 2]}}, (1,)),
        ({"t1w": {}}, (0, 1, 2, 3, 4)),
    ],
    ids=str,
)
def test_a_filter_file_is_read_as_other_apps_read_it(dataset, tmp_path, about, expected) -> None:
    (tmp_path / "filter.json").write_text(json.dumps(about))
    assert names(dataset, entities=read_filter(tmp_path / "filter.json")) == stems(*expected)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{", "is not JSON"),
        ('{"bold": {}}', "Expected a filter such as"),
        ('{"t1w": {"sesion": "a"}}', "names sesion: the nearest are session"),
        ('{"t1w": {"run": 1.5}}', "Expected a text, a number, a list of them or null for run"),
    ],
)
def test_a_filter_that_means_nothing_is_refused(tmp_path, text, sentence) -> None:
    (tmp_path / "filter.json").write_text(text)
    with pytest.raises(InputError, match=sentence):
        read_filter(tmp_path / "filter.json")


def test_a_folder_without_a_description_is_no_dataset(tmp_path) -> None:
    with pytest.raises(InputError, match="it is no folder"):
        images_of(tmp_path / "nothing", Selection())
    with pytest.raises(InputError, match=r"Expected a BIDS dataset in .*: .*dataset_description.json is missing"):
        images_of(tmp_path, Selection())
    describe(tmp_path)
    with pytest.raises(InputError, match="There is no T1w image"):
        images_of(tmp_path, Selection())


def test_a_filter_that_leaves_nothing_says_so(dataset) -> None:
    with pytest.raises(InputError, match="The filter leaves none of 5 T1w images"):
        images_of(dataset, Selection(entities={"run": ("7",)}))


def test_a_segmentation_has_the_entities_of_its_image(dataset) -> None:
    for image in images_of(dataset, Selection()):
        found = segmentation_of(image, dataset / SEGMENTATION, None)
        assert found.name == f"{image.prefix}_dseg.nii.gz"


def test_one_of_several_segmentations_is_chosen_by_desc(dataset, tmp_path) -> None:
    (image,) = images_of(dataset, Selection(participants=["01"]))
    place = tmp_path / "sub-01" / "anat"
    place.mkdir(parents=True)
    with pytest.raises(InputError, match="There is no segmentation sub-01"):
        segmentation_of(image, tmp_path, None)
    for name in ("desc-aseg", "desc-aparc", "space-MNI_desc-aseg", "run-1_desc-aseg"):
        (place / f"sub-01_{name}_dseg.nii.gz").touch()
    with pytest.raises(InputError, match=r"got sub-01_desc-aparc_dseg.nii.gz, sub-01_desc-aseg_dseg.nii.gz: choose"):
        segmentation_of(image, tmp_path, None)
    assert segmentation_of(image, tmp_path, "aseg").name == "sub-01_desc-aseg_dseg.nii.gz"
