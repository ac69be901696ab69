"""Which block of the network does each layer on the axis belong to?"""

from collections.abc import Sequence
from statistics import fmean

from matplotlib.axes import Axes

NAMED = 14  # blocks with a name below the axis, at most


def mark_blocks(axis: Axes, layers: Sequence[str]) -> None:
    """Shade every other block of layers that lie at 0, 1, 2, ..., and write the blocks' names below."""
    blocks = list(dict.fromkeys(layer.split(".")[0] for layer in layers))
    ticks = []
    for i, block in enumerate(blocks):
        places = [j for j, layer in enumerate(layers) if layer.split(".")[0] == block]
        ticks.append(fmean(places))
        if i % 2:
            axis.axvspan(places[0] - 0.5, places[-1] + 0.5, color="0.94", zorder=0)
    few = slice(None, None, max(1, -(-len(blocks) // NAMED)))
    axis.set_xticks(ticks[few], blocks[few], rotation=40, ha="right", fontsize=8)
