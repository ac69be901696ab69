"""What was done with each operator of a run, and what must the user be told of it?"""

import warnings
from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_flatten

KINDS = ("exact", "compiled", "modelled", "decomposed", "unmodelled")


class UnmodelledOperatorWarning(UserWarning):
    """An operator without a noise model was rounded at its output only."""


class ModelRouteWarning(UserWarning):
    """The route exact was asked for, and a call that has no compiled kernel was modelled."""


class OperatorLog:
    """The kind of each operator, and one warning for each that was not perturbed as asked.

    Attributes:
        kinds: By the operator's name: `exact` (it never rounds), `compiled` (every instruction was rounded),
            `modelled`, `decomposed` (into others) or `unmodelled`; of several calls the last in this list.
    """

    def __init__(self, exact_was_asked: bool) -> None:
        self.kinds: dict[str, str] = {}
        self._exact_was_asked = exact_was_asked
        self._warned: set[str] = set()

    def note(self, func: Any, kind: str) -> None:
        """Take in one call; an operator that is exact on integers and modelled on floats counts as modelled."""
        name = func._schema.name.split("::")[1]
        self.kinds[name] = max(self.kinds.get(name, "exact"), kind, key=KINDS.index)

    def warn(self, func: Any, kind: str, args: Any, kwargs: Any) -> None:
        """Warn once of a call that is unmodelled, or modelled although the route exact was asked for."""
        name = func._schema.name
        if kind == "unmodelled":
            self._once(
                f"{name} has no noise model: it is rounded at its output only, which is too optimistic.",
                UnmodelledOperatorWarning,
            )
        elif kind == "modelled" and self._exact_was_asked:
            tensors = [t for t in tree_flatten((args, kwargs))[0] if isinstance(t, Tensor) and t.is_floating_point()]
            formats = sorted({f"{str(t.dtype)[6:]} on {t.device.type}" for t in tensors})
            self._once(
                f"{name} has no compiled kernel for {' and '.join(formats)}: it runs by the route model.",
                ModelRouteWarning,
            )

    def _once(self, sentence: str, category: type[Warning]) -> None:
        if sentence not in self._warned:
            self._warned.add(sentence)
            warnings.warn(sentence, category, stacklevel=5)
