"""Which networks, converted how, on which real slices?"""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from analyses.benchmarks.processes import full_width
from analyses.experiments.unseen import inputs_in
from analyses.models.demo import INPUT_OPTIONS, build_model
from analyses.models.fondue import FONDUE
from analyses.models.nnunet import PlainUNet
from analyses.models.published import load_checkpoint
from analyses.paths import DATA
from mcaprobe.loading import load_input


@dataclass(frozen=True, slots=True)
class Subject:
    """A network, in eval mode, and its input, (N, C, H, W)."""

    network: str
    model: nn.Module
    input: str
    x: Tensor


def subjects(data: Path = DATA) -> list[Subject]:
    """Return the demo's network on the template and the images that are present below `data`, FastSurferVINN at the
    paper's width with random weights, and ReLayNet if it is there."""
    demo = build_model()
    images = [(i.name, load_input(i.path, demo, {}).tensor) for i in inputs_in(data)]
    name, template = images[0]
    found = [Subject("demo network, 24 filters", demo, image, x) for image, x in images]
    found.append(Subject("FastSurferVINN, 71 filters, untrained", full_width(), name, template))
    path = data / "models" / "relaynet" / "relaynet_good_state_dict.pt"
    if path.is_file():
        context = int(INPUT_OPTIONS["context"])  # type: ignore[call-overload]
        found.append(Subject("ReLayNet, published parameters", load_checkpoint(path), name, template[:, [context]]))
    return found


def convolutional(data: Path = DATA) -> list[Subject]:
    """Return one subject for each network, all on the template: those above, FONDUE, and nnU-Net's plain U-Net with
    pools, the latter two with random weights of a fixed seed."""
    template = {subject.network: subject for subject in reversed(subjects(data))}
    first = template["demo network, 24 filters"]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        fondue, unet = FONDUE().eval(), PlainUNet(2, 7, 4, (32, 64, 128, 256, 512, 512), downsampling="pool").eval()
    return [
        *reversed(template.values()),
        Subject("FONDUE, untrained", fondue, first.input, first.x),
        Subject("nnU-Net with pools, 2-D, untrained", unet, first.input, first.x),
    ]
