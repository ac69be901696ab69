"""How does a network with FasterFusion blocks come back from its state dict? By the channels of the tensors in it."""

from collections.abc import Mapping
from typing import TypeVar

from torch import Tensor, nn

from analyses.compress.fasterfusion.unconverted import expect_unconverted
from analyses.compress.fasterfusion.units import Unit, replaced, units_of
from analyses.models.fasterfusion import FORMS, Block, Channels
from mcaprobe.errors import InputError

Network = TypeVar("Network", bound=nn.Module)
_NAMED = 5  # tensors that a sentence names


def reload(network: Network, state: Mapping[str, Tensor]) -> Network:
    """Return a copy of a network with the blocks of a state dict, in its forms and of its channels, and its values.

    Args:
        network: The network that blocks were placed in, with any weights.
        state: `state_dict()` of such a network after `place`, `fuse` or `fold`.

    Raises:
        InputError: tensors that do not fit this network; a converted network.
    """
    expect_unconverted(network)
    blocks = {unit: block for unit in units_of(network) if (block := _stored(unit, state)) is not None}
    found = replaced(network, blocks)
    own = found.state_dict()
    wrong = [n for n in {**own, **state} if n not in own or n not in state or own[n].shape != state[n].shape]
    if wrong:
        more = f" and {len(wrong) - _NAMED} more" if len(wrong) > _NAMED else ""
        raise InputError(f"Expected the tensors of this {type(network).__name__} with blocks; missing, unknown or of "
                         f"another shape: {', '.join(wrong[:_NAMED])}{more}.")  # fmt: skip
    found.load_state_dict(state)
    return found


def _stored(unit: Unit, state: Mapping[str, Tensor]) -> Block | None:
    """Return the block whose tensors a state dict has in a unit's place, with no values, or None."""
    has = {name: state.get(f"{unit.path}.{name}.weight" if unit.path else f"{name}.weight") for name in
           ("spatial", "pointwise", "norm", "last")}  # fmt: skip
    first, rest, last = has["spatial"], has["pointwise"], has["last"]
    if first is None:
        return None
    inputs = first.shape[1] + (0 if rest is None else rest.shape[1])
    form = "fused" if last is None else "training" if has["norm"] is not None else "folded"
    outputs = len(first) if last is None else len(last)
    channels = Channels(inputs, outputs, first.shape[1], None if last is None else len(first))
    return FORMS[form](unit.conv.weight.ndim - 2, channels, unit.conv.stride).to(first).train(unit.module.training)
