"""Does the picture of labels show each voxel that differs, where it is?"""

import csv
import json

import numpy as np
import pytest
import torch

from analyses import trained
from analyses.__main__ import main
from analyses.brains import Brain
from analyses.commands import overlay as command
from analyses.experiments import overlay as experiment
from analyses.experiments.overlay import ALL, Overlay, rows
from analyses.figures.overlay import CUTS, RED, picture, section
from analyses.models.checkpoint import Hyperparameters, save_network
from analyses.structures import CLASSES

AFFINE = np.array([[-1.0, 0, 0, 129], [0, 0, 1, -145], [0, -1, 0, 151], [0, 0, 0, 1]])  # of the conformed template
SIZES = Hyperparameters(7, 8, 8, len(CLASSES))
CORONAL, AXIAL, SAGITTAL, CEREBELLUM = CUTS


def voxel(x: int, y: int, z: int) -> tuple[int, int, int]:
    """Return the voxel of a point in millimetres."""
    return 129 - x, 151 - z, y + 145


def marked(*points: tuple[int, int, int]) -> Overlay:
    """Return a head whose labels all agree but at some points (millimetres)."""
    image = torch.full((256, 256, 256), 100, dtype=torch.uint8)
    stock = torch.ones_like(image)
    labels = stock.clone()
    for point in points:
        labels[voxel(*point)] = 2
    return Overlay(image, AFFINE, {"stock": stock, "method": labels})


@pytest.mark.parametrize(
    ("cut", "inside", "row", "column"),
    [
        (CORONAL, (50, -22, 80), 2, 23), (AXIAL, (50, 70, 6), 4, 23), (SAGITTAL, (20, 70, 80), 2, 177),
        (CEREBELLUM, (50, -64, 20), 2, 10),
    ],
)  # fmt: skip
def test_a_voxel_that_differs_is_red_where_it_lies(cut, inside, row: int, column: int) -> None:  # type: ignore[no-untyped-def]
    """The head's right side (x > 0) is on the left of coronal and axial cuts, its front right in sagittal ones."""
    overlay = marked(inside, (inside[0] + 1, inside[1] + 1, inside[2] + 1))  # the second lies off every cut
    rgb, differing = picture(cut, overlay, overlay.labels["method"])
    red = np.argwhere((rgb == (1, 0, 0)).all(-1))
    assert differing == 1 and red.tolist() == [[row, column]], RED


def test_a_cut_holds_the_millimetres_of_its_box() -> None:
    volume = marked().image
    assert section(CORONAL, volume, AFFINE).shape == (156, 147)  # z from -73 to 82, x from -73 to 73
    assert section(AXIAL, volume, AFFINE).shape == (182, 147)
    assert section(SAGITTAL, volume, AFFINE).shape == (156, 182)


def test_rows_count_what_each_structure_loses_and_gains() -> None:
    found = list(rows(marked((0, 0, 0), (1, 2, 3))))
    assert len(found) == 1 + len(CLASSES)
    assert found[0] == {"method": "method", "structure": ALL, "voxels_torch": 256**3, "differing": 2}
    assert (found[2]["structure"], found[2]["lost"], found[2]["gained"]) == (CLASSES[1], 2, 0)
    assert (found[3]["structure"], found[3]["lost"], found[3]["gained"]) == (CLASSES[2], 0, 2)
    assert sum(row["differing"] for row in found[3:]) == 2


@pytest.fixture
def small(tmp_path, monkeypatch):  # type: ignore[no-untyped-def]
    """A random network and a small bright box in a black volume, in place of the trained one and the template."""
    image = torch.zeros(256, 256, 256, dtype=torch.uint8)
    generator = torch.Generator().manual_seed(0)
    image[110:140, 150:153, 100:130] = torch.randint(50, 255, (30, 3, 30), generator=generator, dtype=torch.uint8)
    brain = Brain("mni152", image, torch.zeros_like(image), AFFINE)
    monkeypatch.setattr(command, "template", lambda name: brain)
    monkeypatch.setattr(trained, "CACHE", tmp_path)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        weights = SIZES.build().state_dict()
    save_network(trained.structures_path("axial"), weights, SIZES, {"steps done": 1})
    return tmp_path


def test_a_command_keeps_its_labels_and_draws_them_again(small, monkeypatch, capsys) -> None:  # type: ignore[no-untyped-def]
    arguments = ["overlay", "--every", "6", "--threads", "1", "--out", str(small / "results")]
    arguments += ["--labels", str(small / "labels.safetensors")]
    assert main(arguments) == 0, capsys.readouterr().err
    path = small / "results" / "overlay.csv"
    first, manifest = path.read_bytes(), json.loads(path.with_suffix(".json").read_text())
    with path.open(newline="") as file:
        found = list(csv.DictReader(file))
    assert len(found) == len(experiment.METHODS) * (1 + len(CLASSES))
    assert manifest["network"] == "structures_axial.safetensors" and path.with_suffix(".png").stat().st_size > 10_000

    def fail(*args: object) -> None:
        raise AssertionError("computed again")

    monkeypatch.setattr(command, "run", fail)
    assert main(arguments) == 0
    assert path.read_bytes() == first and json.loads(path.with_suffix(".json").read_text()) == manifest
    for more in (["--every", "5"], ["--again"]):
        with pytest.raises(AssertionError, match="computed again"):
            main([*arguments, *more])


def test_what_is_missing_or_wrong_is_one_sentence(small, capsys) -> None:  # type: ignore[no-untyped-def]
    for wrong, sentence in (
        (["--every", "0"], "Expected --every of at least 1, got 0."),
        (["--plane", "coronal"], "`python -m analyses train structures --plane coronal` makes it."),
    ):
        assert main(["overlay", *wrong, "--out", str(small)]) == 2
        assert sentence in capsys.readouterr().err
