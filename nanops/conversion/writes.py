"""Which functions of torch may write into a tensor, or change what a computation that waits depends on?"""

from typing import Any

from nanops.conversion.knowledge import HEADS, LOCAL, ZEROED
from nanops.conversion.replacements import REPLACEMENTS

# Of metadata: what assigns to a tensor, or to the state that a computation depends on.
STATE = frozenset({"__set__", "__delete__", "set_grad_enabled", "_set_grad_enabled", "untyped_storage", "data_ptr"})
_PURE = (LOCAL | HEADS | ZEROED | set(REPLACEMENTS)) - {"setitem", "instance_norm"}
# Work in place if the second or a later argument says so, by position or name.
_MAYBE = frozenset({
    "relu", "relu6", "elu", "celu", "selu", "silu", "mish", "hardswish", "hardsigmoid", "hardtanh", "leaky_relu",
    "threshold", "rrelu", "dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout",
})  # fmt: skip


def keeps_inputs(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Return whether a function surely writes into none of its arguments."""
    if name.endswith("_") and not name.endswith("__"):
        return False
    if name in _MAYBE and (len(args) > 1 or kwargs):
        return False
    flags = any(value is True for value in (*args, *kwargs.values()))  # such as `training`
    return name.strip("_") in _PURE and "out" not in kwargs and not flags
