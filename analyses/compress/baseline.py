"""Which networks did Sauron's paper prune? Its nnU-Nets, by data set (supplement, C.3 and tables 4, 6 and 7).

Five levels; the number of filters doubles from level to level up to 480; two convolutions a level, down and up, each
with a bias, an instance normalisation without weights and a leaky ReLU; transposed convolutions and heads have a bias;
a head at each level of the way up but the lowest (figure 5). The paper prints no number of parameters; that the
normalisation has no weights and all convolutions a bias is what gives the published code's.
"""

from torch import Tensor, nn

from analyses.models.nnunet import CONV, NORM, TRANSPOSED, PlainUNet, Unit
from mcaprobe.errors import InputError

LEVELS, MOST_FILTERS = 5, 480
# Axes of space, classes, filters of the first level.
CONFIGURATIONS = {"Rats": (2, 2, 32), "ATLAS": (3, 2, 24), "KiTS": (3, 3, 24)}


class SupervisedUNet(PlainUNet):
    """A `PlainUNet` with weights where Sauron's nnU-Net has them, and with heads for deep supervision.

    In training mode it returns the logits of each head, from the resolution of the input down; in eval mode the first.
    """

    def __init__(self, dims: int, channels: int, classes: int, features: tuple[int, ...]) -> None:
        super().__init__(dims, channels, classes, features)
        for unit in [module for module in self.modules() if isinstance(module, Unit)]:
            unit.norm = NORM[dims](unit.conv.out_channels, eps=1e-5, affine=False)
        for i, (wide, narrow) in enumerate(zip(features[1:], features, strict=False)):
            self.up[i] = TRANSPOSED[dims](wide, narrow, 2, 2)
        self.classifier = CONV[dims](features[0], classes, 1)
        self.heads = nn.ModuleList(CONV[dims](width, classes, 1) for width in features[1:-2])
        self.reset_parameters()

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:  # type: ignore[override]
        """Return logits (N, classes, *size), in training mode a tuple with those at 1/2, 1/4... of the size as well.

        Raises:
            InputError: as `PlainUNet`.
        """
        self.check(x)
        stages = self.decoded(x)
        logits: Tensor = self.classifier(stages[0])
        if not self.training:
            return logits
        return (logits, *(head(stage) for head, stage in zip(self.heads, stages[1:], strict=False)))


def baseline(name: str) -> SupervisedUNet:
    """Return the nnU-Net of a data set, one channel in: "Rats", "ATLAS" or "KiTS".

    Raises:
        InputError: no such configuration.
    """
    if name not in CONFIGURATIONS:
        raise InputError(f"Expected a data set out of {', '.join(CONFIGURATIONS)}, got {name!r}.")
    dims, classes, first = CONFIGURATIONS[name]
    features = tuple(min(first * 2**level, MOST_FILTERS) for level in range(LEVELS))
    return SupervisedUNet(dims, 1, classes, features)
