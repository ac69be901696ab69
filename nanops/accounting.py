"""What did a model skip? Windows and multiply-accumulates of each call, layer and slice."""

import csv
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.utils.hooks import RemovableHandle

from nanops import ledger
from nanops.dense import dense_call
from nanops.errors import InputError


@dataclass(frozen=True, slots=True)
class LayerCall:
    """One convolution on a batch, in one forward of the model; the tensors have one entry a slice, int64.

    Args:
        layer: Path of the module that was running, "" for the model itself.
        forward: Which forward of the model, from 0.
        counted: The slices that count, boolean.
        call: What the operator reported.
    """

    layer: str
    forward: int
    counted: Tensor
    call: ledger.Call

    @property
    def spared(self) -> Tensor:
        """Multiply-accumulates of the skipped windows of each slice."""
        call = self.call
        return (call.skipped * call.macs).to(torch.int64) if call.spared is None else call.spared

    @property
    def macs(self) -> int:
        """Multiply-accumulates that a dense convolution makes for one slice."""
        return round(self.call.windows * self.call.macs)


@dataclass(slots=True)
class Totals:
    """Sums over calls and slices.

    Args:
        windows: All windows.
        skipped: Those that were skipped.
        uniform: Those filled with the known output of background.
        macs: Multiply-accumulates of dense convolutions.
        spared: Those of skipped windows.
        executed: Those that the kernels made, at most: a window that is computed counts in full.
        calls: Calls of operators.
        routes: Kernels that ran.
    """

    windows: int = 0
    skipped: int = 0
    uniform: int = 0
    macs: int = 0
    spared: int = 0
    executed: int = 0
    calls: int = 0
    routes: set[str] = field(default_factory=set)

    def add(self, call: LayerCall, slices: Tensor) -> None:
        """Add the slices of a call that a boolean tensor names."""
        chosen, n = call.call, int(slices.sum())
        self.windows += chosen.windows * n
        self.macs += call.macs * n
        self.skipped += int(chosen.skipped[slices].sum())
        self.uniform += int(chosen.uniform[slices].sum())
        self.spared += int(call.spared[slices].sum())
        self.executed += int(chosen.executed[slices].sum())
        self.calls += 1
        self.routes.add(chosen.route)

    @property
    def window_share(self) -> float:
        """Skipped windows over all, NaN where there is none."""
        return self.skipped / self.windows if self.windows else float("nan")

    @property
    def mac_share(self) -> float:
        """Multiply-accumulates of skipped windows over all."""
        return self.spared / self.macs if self.macs else float("nan")

    @property
    def executed_share(self) -> float:
        """Multiply-accumulates that were made over those of dense convolutions."""
        return self.executed / self.macs if self.macs else float("nan")


class Skipped:
    """What `count_skipped` found. Nothing counted is NaN, not 0."""

    def __init__(self, ignore_empty: bool) -> None:
        self.ignore_empty = ignore_empty
        self.calls: list[LayerCall] = []
        self.replaced: list[ledger.Replaced] = []

    @property
    def total(self) -> Totals:
        """Sums over everything."""
        totals = Totals()
        for call in self.calls:
            totals.add(call, call.counted)
        return totals

    @property
    def layers(self) -> dict[str, Totals]:
        """Sums of each layer, in the order of their first call."""
        found: dict[str, Totals] = {}
        for call in self.calls:
            found.setdefault(call.layer, Totals()).add(call, call.counted)
        return found

    @property
    def slices(self) -> list[Totals]:
        """Sums of each slice, over the forwards in their order.

        Raises:
            InputError: the layers of one forward had batches of different sizes.
        """
        found: dict[tuple[int, int], Totals] = {}
        sizes: dict[int, int] = {}
        for call in self.calls:
            n = len(call.counted)
            if sizes.setdefault(call.forward, n) != n:
                expected = sizes[call.forward]
                raise InputError(f"Expected {expected} slices in each layer, got {n} in layer {call.layer!r}.")
            for i in range(n):
                if call.counted[i]:
                    found.setdefault((call.forward, i), Totals()).add(call, torch.arange(n) == i)
        return [found[key] for key in sorted(found)]

    @property
    def mean_over_layers(self) -> float:
        """Skipped over all windows, averaged over the layers, each with the same weight: the paper's figure."""
        shares = [t.window_share for t in self.layers.values() if t.windows]
        return sum(shares) / len(shares) if shares else float("nan")

    @property
    def window_share(self) -> float:
        """The paper's figure: another name of `mean_over_layers`."""
        return self.mean_over_layers

    @property
    def windows_share(self) -> float:
        """Skipped over all windows of the model, whatever they cost."""
        return self.total.window_share

    @property
    def mac_weighted(self) -> float:
        """Multiply-accumulates of skipped windows over those of all: the share of the work that need not be done."""
        return self.total.mac_share

    @property
    def executed_share(self) -> float:
        """Multiply-accumulates that the kernels made over those of dense convolutions: the work that was done."""
        return self.total.executed_share

    def table(self) -> list[dict[str, Any]]:
        """Return one row a layer and one, "total", for the model."""
        rows = [*self.layers.items(), ("total", self.total)]
        return [
            {
                "layer": layer, "calls": t.calls, "windows": t.windows, "skipped": t.skipped, "uniform": t.uniform,
                "macs": t.macs, "spared": t.spared, "executed": t.executed, "window_share": t.window_share,
                "mac_share": t.mac_share, "executed_share": t.executed_share, "routes": " ".join(sorted(t.routes)),
            }
            for layer, t in rows
        ]  # fmt: skip

    def to_csv(self, path: str | Path) -> None:
        """Write the table."""
        rows = self.table()
        with Path(path).open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)


@contextmanager
def count_skipped(model: nn.Module, *, ignore_empty: bool = False) -> Iterator[Skipped]:
    """Count what the convolutions of a model skip inside the block.

    NaN convolutions report themselves, from the masks they worked with. Convolution layers of torch count as nothing
    skipped; functional ones of a model that was not converted are not seen (`convert(model, pooling=None)` shows them).
    A compiled model is counted as a whole only if it is compiled inside the block.

    Args:
        ignore_empty: Whether slices whose input is one number everywhere count for nothing.

    Yields:
        The counts, complete after each forward of the model; `replaced` lists the NaNs that the final policy replaced.
    """
    if not isinstance(model, nn.Module):
        raise InputError(f"Expected a torch.nn.Module, got a {type(model).__name__}.")
    skipped = Skipped(ignore_empty)
    with ledger.listen() as calls, ledger.listen_to_replacements() as replaced:
        skipped.replaced = replaced
        watch = _Watch(skipped, calls)
        handles = [handle for path, module in model.named_modules() for handle in watch.attach(path, module)]
        try:
            yield skipped
        finally:
            for handle in handles:
                handle.remove()
            watch.collect()


class _Watch:
    """Says which layer the new calls in a ledger belong to: that whose forward began last and has not ended."""

    def __init__(self, skipped: Skipped, calls: list[ledger.Call]) -> None:
        self.skipped, self.calls = skipped, calls
        self.running: list[tuple[str, int]] = []
        self.forward, self.seen = -1, 0
        self.empty: Tensor | None = None

    def attach(self, path: str, module: nn.Module) -> Iterator[RemovableHandle]:
        """Yield the hooks of a module."""
        # The hooks of nn.Module itself: those of a converted module would suspend the conversion while they run.
        pre: Callable[..., RemovableHandle] = nn.Module.register_forward_pre_hook
        post: Callable[..., RemovableHandle] = nn.Module.register_forward_hook

        def enter(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            self.enter(path, (*args, *kwargs.values()))

        def leave(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            self.leave(path, module, args[0] if args else None, output)

        yield pre(module, enter, prepend=True, with_kwargs=True)
        yield post(module, leave, always_call=True)

    def enter(self, path: str, inputs: tuple[Any, ...]) -> None:
        self.collect()
        if not path or self.forward < 0:  # "" is the model; a part of it may be called by itself
            self.running.clear()
            self.forward += 1
            self.empty = _empty(next((x for x in inputs if isinstance(x, Tensor)), None))
        self.running.append((path, len(self.skipped.calls)))

    def leave(self, path: str, module: nn.Module, input: Any, output: Any) -> None:
        self.collect()
        # A forward that raised may have left more than itself.
        while self.running:
            found, before = self.running.pop()
            if found == path:
                if isinstance(module, _ConvNd) and isinstance(output, Tensor) and before == len(self.skipped.calls):
                    self.add(path, _dense(module, input, output))
                return

    def collect(self) -> None:
        """Give the calls since the last time to the layer that runs."""
        path = self.running[-1][0] if self.running else ""
        for call in self.calls[self.seen :]:
            self.add(path, call)
        self.seen = len(self.calls)

    def add(self, path: str, call: ledger.Call) -> None:
        n = len(call.skipped)
        counted = torch.ones(n, dtype=torch.bool)
        if self.skipped.ignore_empty and self.empty is not None and len(self.empty) == n:
            counted = ~self.empty
        self.skipped.calls.append(LayerCall(path, max(self.forward, 0), counted, call))


def _empty(x: Tensor | None) -> Tensor | None:
    """Return which slices of the input hold one number only."""
    if x is None or x.dim() < 2 or x.numel() == 0:
        return None
    flat = x.detach().flatten(1)
    return (flat == flat[:, :1]).all(1).cpu()


def _dense(module: _ConvNd, input: Any, output: Tensor) -> ledger.Call:
    padding = module.padding if module.transposed else 0  # an ordinary one's shows in its output
    steps = module.stride, padding, module.dilation, module.groups
    return dense_call(input, module.weight, output, *steps, transposed=module.transposed)
