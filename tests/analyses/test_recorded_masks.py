"""Does a conversion with masks understand every name that the recorder gives to what a pool or unpool puts out?"""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import mcaprobe
import nanops
from analyses.models.fastsurfer import FastSurferVINN
from analyses.models.fondue import FONDUE
from analyses.models.mnist import MnistNet
from analyses.models.nnunet import PlainUNet
from analyses.models.noise2noise import Noise2Noise
from analyses.models.relaynet import ReLayNet
from analyses.models.xception import Xception
from mcaprobe.masks import Unstable
from mcaprobe.recorder import Recorded

POOLS = {f"{kind}{d}d" for d in (1, 2, 3) for kind in ("MaxPool", "MaxUnpool", "max_pool", "max_unpool", "Halved")}


class Halved(nn.MaxPool2d):
    """A pool of the user's own, without "pool" in its name."""


class Spelt(nn.Module):
    """A U-Net by functional calls in the model's forward and in those of its layers, some of them called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 3, padding=1)
        self.halve = Halved(2, return_indices=True)
        self.block = Twice()

    def forward(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        a, i = F.max_pool2d(self.conv(x), 2, return_indices=True)
        b, j = self.halve(a)
        b = self.block(self.block(b))
        c = torch.maximum(F.max_unpool2d(b, j, 2), a)
        y = F.max_unpool2d(c, indices=i, kernel_size=2)
        return F.max_pool2d(torch.max_pool2d(self.conv(y), 2), 2, 1), {"y": y + 1}


class Twice(nn.Module):
    """A layer that pools twice and keeps the size."""

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool2d(F.max_pool2d(x, 3, 1, 1) - 1, 3, 1, 1)


MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], int]] = {
    "FastSurferVINN": (lambda: FastSurferVINN(3, 4, 4, 2, inner_size=(32, 32)), (3, 40, 40), 20),
    "FONDUE": (lambda: FONDUE(slices=3, filters=2), (3, 64, 64), 25),
    "nnU-Net, 2-D": (lambda: PlainUNet(2, 2, 3, (4, 6, 6), downsampling="pool"), (2, 16, 16), 8),
    "nnU-Net, 3-D": (lambda: PlainUNet(3, 2, 3, (4, 6, 6), downsampling="pool"), (2, 16, 16, 16), 8),
    "ReLayNet": (ReLayNet, (1, 16, 16), 15),
    "Noise2Noise": (Noise2Noise, (3, 32, 32), 10),
    "Xception": (lambda: Xception(5, 3, 0.125, 1), (3, 71, 71), 8),
    "MNIST": (MnistNet, (1, 28, 28), 3),
    "functional": (Spelt, (1, 16, 16), 17),
}


def made(name: str) -> tuple[nn.Module, Tensor]:
    """Return a model and two images."""
    torch.manual_seed(0)
    build, shape, _ = MODELS[name]
    return build().eval(), torch.rand(2, *shape)


def recorded(model: nn.Module, x: Tensor) -> Recorded:
    with torch.inference_mode(), mcaprobe.record(model) as layers:
        model(x)
    return layers


def pooled(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """Return what max-pools and unpools put out in one forward, indices too, by all their names.

    What an unpool is given, its targets, it does not put out.
    """
    layers = recorded(model, x)
    out = {name: t for name, t in layers.items() if not name.endswith(".targets")}
    return {name: t for name, t in out.items() if layers.operators[layers.aliases.get(name, name)] in POOLS}


def tensors(output: object) -> list[Tensor]:
    if isinstance(output, Tensor):
        return [output]
    return [t for part in (output.values() if isinstance(output, dict) else output) for t in tensors(part)]  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", MODELS)
def test_every_name_of_a_pool_or_an_unpool_is_understood(name: str) -> None:
    model, x = made(name)
    found = pooled(model, x)
    assert len(found) == MODELS[name][2], list(found)
    masks = {n: torch.zeros(t.shape, dtype=torch.bool) for n, t in found.items()}
    with torch.inference_mode():
        plain = tensors(nanops.convert(model, None, final="keep")(x))
        empty = tensors(nanops.convert(model, "mask", masks=masks, final="keep")(x))
    assert all(torch.equal(a, b) for a, b in zip(plain, empty, strict=True))


@pytest.mark.parametrize("name", MODELS)
def test_nan_is_put_out_under_the_name_of_its_mask(name: str) -> None:
    model, x = made(name)
    final = "keep" if name == "functional" else "zero"
    for n, t in pooled(model, x).items():
        mask = torch.rand(1, *t.shape[1:]) < 0.5
        seen = recorded(nanops.convert(model, "mask", threshold=1.0, final=final, masks={n: mask}), x)
        if t.is_floating_point() and ":max_" not in n:
            assert torch.equal(seen[n].isnan(), mask.expand_as(t)), n
        else:
            # The recorder sees a function before its masks, and indices have none: NaN is in what comes next.
            assert any(value.is_floating_point() and value.isnan().any() for value in seen.values()), n


def test_the_masks_of_a_run_are_masks_of_a_conversion() -> None:
    model, x = made("FastSurferVINN")
    run = mcaprobe.run(model, x[:1], samples=5, threads=1, layers="*pool*")
    few = Unstable(below=20)
    masks = {name: mcaprobe.unstable(run, name, few).values for name in run.layers if not run[name].is_index}
    assert len(masks) == 8 and any(0 < m.sum() < m.numel() for m in masks.values())
    seen = recorded(nanops.convert(model, "mask", masks=masks), x)
    for name, mask in masks.items():
        nans, marks = seen[name].isnan(), mask.expand_as(seen[name])
        # Behind the first pool NaNs also come from the layers before.
        assert bool((nans >= marks).all()) and (name != "encode1.maxpool" or torch.equal(nans, marks)), name


def test_the_example_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = made("FastSurferVINN")
    readme = (Path(__file__).resolve().parents[2] / "README.md").read_text()
    (example,) = [block for block in readme.split("```") if "masks=masks" in block]
    monkeypatch.chdir(tmp_path)
    names = {"mcaprobe": mcaprobe, "nanops": nanops, "model": model, "x": x[:1]}
    exec(example.removeprefix("python"), names)
    assert names["masks"] and nanops.load_overrides("options.json") == {"encode1*": {"threshold": 0.8}}
    with torch.inference_mode():
        assert names["converted"](x).isfinite().all()
