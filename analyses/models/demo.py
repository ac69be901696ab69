"""The demo's network: FastSurferVINN at a third of its width, trained on one template (see `analyses train tissue`)."""

from pathlib import Path

from analyses.models.checkpoint import load_network
from analyses.models.fastsurfer import FastSurferVINN

WEIGHTS = Path(__file__).with_name("weights") / "tissue_vinn.safetensors"
NOTE = "The network was trained on the MNI152 template alone, already skull-stripped; any other image is new to it."
INPUT_OPTIONS: dict[str, object] = {
    "plane": "axial",
    "context": 3,
    "size": (256, 256),
    "intensity": "quantile",
    "voxel_size": 1.0,
}


def build_model(weights: Path = WEIGHTS) -> FastSurferVINN:
    """Return the trained network in eval mode; classes are background, CSF, grey and white matter.

    `input_options` on the network says how a slice must be prepared: an RAS+ volume of 1 mm, axial slices with
    three neighbours on each side as channels, intensities over the 99.9 % quantile of the non-zero voxels clipped
    to [0, 1], padded to 256 x 256.

    Raises:
        mcaprobe.errors.InputError: the weights are missing or do not fit (the first differing key is named).
    """
    network, training = load_network(weights)
    network.input_options = dict(INPUT_OPTIONS)  # type: ignore[assignment]
    network.mcaprobe_note = NOTE  # type: ignore[assignment]
    network.training_record = training  # type: ignore[assignment]
    return network
