"""Do published checkpoint files load, with the names and shapes of the programs that wrote them, and no other files?

The files themselves are not at hand: what is written here has their structure.
"""

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from analyses.__main__ import main
from analyses.models.fastsurfer import FastSurferVINN
from analyses.models.fastsurfer_cnn import FastSurferCNN
from analyses.models.fondue import FONDUE
from analyses.models.mnist import MnistNet
from analyses.models.noise2noise import Noise2Noise
from analyses.models.published import load_checkpoint
from analyses.models.relaynet import ReLayNet
from analyses.models.squeezenet import SqueezeNet
from analyses.models.xception import Xception
from analyses.paths import DATA
from mcaprobe.errors import InputError

SMALL: dict[str, Callable[[], nn.Module]] = {
    "FastSurferVINN": lambda: FastSurferVINN(7, 5, 3, 4),
    "FastSurferCNN": lambda: FastSurferCNN(7, 4, 6),
    "FONDUE": lambda: FONDUE(7, 3),
    "Xception": lambda: Xception(7),
    "ReLayNet": ReLayNet,
    "SqueezeNet": SqueezeNet,
    "Noise2Noise": Noise2Noise,
}
INPUTS = {
    "FastSurferVINN": (1, 7, 32, 32), "FastSurferCNN": (1, 7, 32, 32), "FONDUE": (1, 7, 32, 32),
    "Xception": (1, 3, 96, 96), "ReLayNet": (1, 1, 32, 32), "SqueezeNet": (1, 3, 64, 64), "Noise2Noise": (1, 3, 32, 32),
}  # fmt: skip


def filled(network: nn.Module, seed: int = 1) -> nn.Module:
    """Return the network with every parameter and statistic random, so that none can be forgotten."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if tensor.is_floating_point():
                tensor.copy_(torch.rand(tensor.shape, generator=generator) * 0.2 + ("running_var" in name))
    return network.eval()


@pytest.mark.parametrize(
    ("network", "count"),
    [
        (FastSurferVINN, 1_854_632), (lambda: FastSurferVINN(classes=51), 1_852_616), (FastSurferCNN, 1_799_206),
        (lambda: FastSurferCNN(classes=51), 1_797_386), (FONDUE, 3_069_548), (Xception, 22_855_952),
        (SqueezeNet, 1_248_424), (Noise2Noise, 700_611), (ReLayNet, 777_489), (MnistNet, 104_202),
    ],
    ids=["vinn", "vinn sagittal", "cnn", "cnn sagittal", "fondue", "xception", "squeezenet", "n2n", "oct", "mnist"],
)  # fmt: skip
def test_the_number_of_parameters_is_that_of_the_publication(network: Callable[[], nn.Module], count: int) -> None:
    assert sum(p.numel() for p in network().parameters()) == count


def published(name: str, state: dict[str, Tensor]) -> object:
    """Return what the program that trained a network wrote."""
    if name == "FastSurferVINN":
        return {"model_state": state, "optimizer_state": {"state": {}}, "epoch": 69, "config": "MODEL:\n", "best": 0.9}
    if name == "FastSurferCNN":
        return {"epoch": 30, "model_state_dict": {f"module.{k}": v for k, v in state.items()}}
    return {"state_dict": state, "epoch": 3} if name == "FONDUE" else state


@pytest.mark.parametrize("name", SMALL)
@torch.no_grad()
def test_a_file_of_each_program_loads_and_computes_the_same(name: str, tmp_path: Path) -> None:
    original, path = filled(SMALL[name]()), tmp_path / "published.pkl"
    old = {k: v for k, v in original.state_dict().items() if name != "ReLayNet" or "num_batches" not in k}
    torch.save(published(name, old), path)
    found = load_checkpoint(path)
    assert type(found) is type(original) and not found.training
    x = torch.rand(INPUTS[name], generator=torch.Generator().manual_seed(0))
    assert torch.equal(found(x), original(x)) and original(x).isfinite().all()
    assert all(torch.equal(v, found.state_dict()[k]) for k, v in old.items())


@pytest.mark.parametrize("name", SMALL)
def test_the_first_parameter_that_does_not_fit_is_named(name: str, tmp_path: Path) -> None:
    state, path = filled(SMALL[name]()).state_dict(), tmp_path / "published.pkl"
    keys = [k for k in state if k.endswith("bias") or k.endswith("weight")]
    wrong = keys[len(keys) // 2]
    torch.save(published(name, state | {wrong: torch.zeros(1, 2, 3)}), path)
    with pytest.raises(InputError, match=rf"^Expected {wrong} to be \(.*\) in .*{name}\), found \(1, 2, 3\)\.$"):
        load_checkpoint(path)
    torch.save(published(name, {k: v for k, v in state.items() if k != wrong}), path)
    with pytest.raises(InputError, match=rf"^Expected {wrong} to be \(.*\) in .*, found no such key\.$"):
        load_checkpoint(path)
    torch.save(published(name, state | {"more": torch.zeros(2)}), path)
    with pytest.raises(InputError, match=r"^Expected more to be no such key in .*, found \(2,\)\.$"):
        load_checkpoint(path)


def test_other_files_are_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    with pytest.raises(InputError, match="found no file"):
        load_checkpoint(path)
    path.write_bytes(b"no checkpoint")
    with pytest.raises(InputError, match=r"Expected a file of torch\.save"):
        load_checkpoint(path)
    torch.save({"epoch": 3}, path)
    with pytest.raises(InputError, match=r"Expected a state dict, or one under model_state, .*, found none"):
        load_checkpoint(path)
    torch.save({"layer.weight": torch.zeros(2)}, path)
    with pytest.raises(InputError, match=r"one of FastSurferVINN, .* got others \(the first: layer.weight\)"):
        load_checkpoint(path)


class Config:
    """An object that a program saved beside its parameters."""

    ran = False

    def __init__(self) -> None:
        self.width = 3

    def __setstate__(self, state: object) -> None:
        type(self).ran = True


def test_a_file_with_other_objects_names_the_first_and_the_converter_reads_it(tmp_path: Path, capsys) -> None:  # type: ignore[no-untyped-def]
    network, path, out = filled(FastSurferVINN(7, 5, 3, 4)), tmp_path / "a.pkl", tmp_path / "a.safetensors"
    scalar = np.float64(0.5)
    torch.save({"config": Config(), "best": scalar, "model_state": network.state_dict()}, path)
    with pytest.raises(InputError, match=r"holds the object tests.analyses.test_published.Config, which cannot be rea"):
        load_checkpoint(path)
    assert main(["convert", str(path), str(out)]) == 0
    assert not Config.ran and "FastSurferVINN" in capsys.readouterr().out
    found = load_checkpoint(out)
    assert all(torch.equal(v, found.state_dict()[k]) for k, v in network.state_dict().items())


class Harmful:
    """What a malicious file does when it is unpickled."""

    def __reduce__(self) -> object:
        return (pickle.loads, (pickle.dumps(Config()),))


def test_the_converter_executes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.pkl"
    state = filled(SMALL["FONDUE"]()).state_dict()
    torch.save({"harm": Harmful(), "state_dict": state}, path)
    Config.ran = False
    assert main(["convert", str(path), str(tmp_path / "a.safetensors")]) == 0
    assert not Config.ran


def test_the_converter_refuses_what_is_no_checkpoint(tmp_path: Path, capsys) -> None:  # type: ignore[no-untyped-def]
    path, out = tmp_path / "a.pkl", tmp_path / "a.safetensors"
    path.write_bytes(pickle.dumps({"a": 1}))
    assert main(["convert", str(path), str(out)]) == 2
    assert main(["convert", str(tmp_path / "none.pkl"), str(out)]) == 2
    torch.save({"state_dict": {"a": torch.zeros(1)}}, path)
    assert main(["convert", str(path), str(out)]) == 2
    assert main(["convert", str(path), str(tmp_path / "a.pt")]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 4 and all(line.startswith("error: Expected ") for line in errors)
    assert not out.exists()


def test_a_safetensors_file_of_another_network_is_refused(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(1)}, tmp_path / "a.safetensors")
    with pytest.raises(InputError, match="the first: a"):
        load_checkpoint(tmp_path / "a.safetensors")


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("relaynet/relaynet_good_state_dict.pt", ReLayNet), ("squeezenet_dc/squeezenet_v1.0_state_dict.pt", SqueezeNet),
        ("noise2noise/n2n-gaussian.pt", Noise2Noise),
    ],
)  # fmt: skip
def test_the_files_at_hand_load(name: str, kind: type[nn.Module]) -> None:
    path = DATA / "models" / name
    if not path.is_file():
        pytest.skip(f"no pretrained network at {path}")
    assert isinstance(load_checkpoint(path), kind)
