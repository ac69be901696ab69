"""What becomes of an operator without a model of its noise? Its output is rounded, once."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from mcaprobe.noise.site import Site


def round_output(func: Any) -> Callable[..., Any]:
    """The rule of an operator without a model: the stock result counts as inexact, and is rounded once."""

    def rule(site: Site, *args: Any, **kwargs: Any) -> Any:
        def rounded(t: Any) -> Any:
            if isinstance(t, Tensor) and t.is_complex():
                return torch.view_as_complex(site.unknown(torch.view_as_real(t)))
            return site.unknown(t) if isinstance(t, Tensor) and t.is_floating_point() else t

        return tree_map(rounded, func(*args, **kwargs))

    return rule
