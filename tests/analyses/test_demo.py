"""Is the network of the demo there, trained, and fed as it says?"""

import json
import warnings
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

import mcaprobe
from analyses.metrics import dice_of_classes
from analyses.models.checkpoint import read_tensors, write_tensors
from analyses.models.demo import INPUT_OPTIONS, WEIGHTS, build_model
from analyses.models.fastsurfer import FastSurferVINN
from analyses.training.template import SOURCE, load_template
from analyses.volumes import centre_pad, load_head, segment, slices_of
from mcaprobe import kernels
from mcaprobe.errors import InputError
from mcaprobe.images import SliceOptions, load_slice
from mcaprobe.volumes import TEMPLATE

LEAST = {
    "background": 0.99,
    "csf": 0.78,
    "grey": 0.92,
    "white": 0.915,
}  # Dice on five slices of the image it was trained on


@pytest.fixture(scope="module")
def head() -> Tensor:
    return load_head(Path(TEMPLATE))


def test_the_checkpoint_segments_the_template(head: Tensor) -> None:
    network = build_model()
    levels = [30, 55, 75, 100, 120]
    x, (top, left) = centre_pad(slices_of(head, range(0, head.shape[2]))[levels])
    with torch.no_grad():
        found = torch.cat([network(one[None]).argmax(1) for one in x])
    found = found[:, top : top + head.shape[0], left : left + head.shape[1]]
    wanted = load_template().labels.permute(2, 0, 1)[levels]
    scores = dice_of_classes(found, wanted, torch.ones_like(wanted, dtype=torch.bool), 4)
    for name, score in zip(("background", "csf", "grey", "white"), scores, strict=True):
        assert score > LEAST[name], (name, scores)


def test_a_slice_for_the_demo_is_a_slice_of_the_evaluation(head: Tensor) -> None:
    index = 60
    ours = centre_pad(slices_of(head, range(index, index + 1)))[0]
    theirs = load_slice(TEMPLATE, SliceOptions(**INPUT_OPTIONS, index=index)).tensor  # type: ignore[arg-type]
    torch.testing.assert_close(ours, theirs)


def test_a_volume_is_segmented_slice_by_slice(head: Tensor) -> None:
    network = build_model()
    part = head[..., 70:73]
    whole = segment(network, part, batch=2)
    assert whole.shape == part.shape
    x, (top, left) = centre_pad(slices_of(part, range(1, 2)))
    with torch.no_grad():
        one = network(x).argmax(1)[0, top : top + part.shape[0], left : left + part.shape[1]]
    assert float((whole[..., 1] == one).float().mean()) > 0.9999  # a batch may be summed in another order


def test_neighbours_repeat_at_the_edge() -> None:
    volume = torch.arange(5.0).expand(2, 2, 5)
    assert slices_of(volume, range(0, 1))[0, :, 0, 0].tolist() == [0, 0, 0, 0, 1, 2, 3]
    assert slices_of(volume, range(4, 5))[0, :, 0, 0].tolist() == [1, 2, 3, 4, 4, 4, 4]


def test_the_network_says_how_it_is_fed_and_is_small() -> None:
    network = build_model()
    assert network.input_options == INPUT_OPTIONS
    assert not network.training
    assert WEIGHTS.stat().st_size < 5_000_000


def test_the_header_says_how_the_checkpoint_was_made() -> None:
    with safe_open(WEIGHTS, framework="pt") as file:
        record = json.loads(file.metadata()["training"])
        sizes = json.loads(file.metadata()["hyperparameters"])
    assert record["command"].startswith("python -m analyses train tissue --steps ")
    assert record["steps done"] == record["settings"]["steps"]
    assert SOURCE.format("t1") in record["training image"]
    assert {"torch", "numpy", "nilearn"} <= record["versions"].keys()
    assert {"seed", "steps", "augmentation"} <= record["settings"].keys()
    assert sizes == {"slices": 7, "filters": 24, "interpolation_filters": 12, "classes": 4}


def test_missing_weights_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"Expected a checkpoint at .*none\.safetensors, found no file\."):
        build_model(tmp_path / "none.safetensors")


def test_the_first_differing_key_is_named(tmp_path: Path) -> None:
    tensors, metadata = read_tensors(WEIGHTS)
    path = tmp_path / "net.safetensors"
    fewer = {name: t for name, t in tensors.items() if not name.startswith(("decode2.conv1", "decode3"))}
    write_tensors(path, fewer, metadata)
    with pytest.raises(InputError, match=r"Expected decode2\.conv1\.bias of shape \(24,\) in .*, got no such key"):
        build_model(path)
    write_tensors(path, tensors | {"encode1.conv0.weight": torch.zeros(24, 3, 3, 3)}, metadata)
    with pytest.raises(InputError, match=r"encode1\.conv0\.weight of shape \(24, 12, 3, 3\) .* \(24, 3, 3, 3\)"):
        build_model(path)
    write_tensors(path, tensors, {"format": "other"})
    with pytest.raises(InputError, match=r"Expected format .*/1 in .*, got other"):
        build_model(path)


@pytest.mark.parametrize("mode", ["random", "nearness", "up_down", "rr", "pb", "full"])
def test_no_operator_of_the_network_is_unmodelled(mode: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with torch.no_grad(), mcaprobe.perturb(mode=mode) as block:
            build_model()(torch.rand(1, 7, 32, 32))
    assert set(block.operators.values()) <= {"exact", "compiled", "modelled", "decomposed"}
    assert block.operators["convolution"] == ("compiled" if block.route == "exact" else "modelled")
    assert block.operators["max_unpool2d"] == "exact"


@pytest.mark.parametrize(("route", "kind"), [("auto", "compiled"), ("model", "modelled")])
def test_no_operator_of_the_full_size_network_is_unmodelled(route: str, kind: str) -> None:
    if route == "auto" and kernels.library() is None:
        pytest.skip(kernels.absence())
    network = FastSurferVINN(inner_size=(32, 32)).eval()
    with torch.no_grad(), mcaprobe.perturb(route=route) as block:
        network(torch.rand(1, 7, 48, 48), scale_factor=0.8)
    assert set(block.operators.values()) <= {"exact", "compiled", "modelled", "decomposed"}
    assert block.operators["upsample_bilinear2d"] == kind
