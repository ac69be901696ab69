"""How does a campaign run that leaves no files?"""

import time
from collections.abc import Iterable
from typing import Any

from mcaprobe.collecting import AnyMoments, UnitReport
from mcaprobe.lanes import LockstepError
from mcaprobe.manifest import now
from mcaprobe.planning import Survey, plan
from mcaprobe.products import Products
from mcaprobe.result import Result
from mcaprobe.runs import Run
from mcaprobe.units import run_unit


class InMemory(Run):
    """A campaign without a directory: the moments of the layers that were asked for stay in memory."""

    def run(self) -> Result:
        began = now()
        seen = self.look()
        needs = plan(self.settings, seen, None)
        total = len(self.settings.blocks())
        self.observer.start(self.settings.samples, 0, len(seen.layers))
        products = Products(self.campaign, seen, None)
        if needs.blocks >= total:
            try:
                self.absorb(self._unit(range(total), products))
            except LockstepError as error:
                self.go_alone(error)
                products.clear()
        if not self.report.layers:
            self._merged(seen, products)
        products.metrics(self.report.metrics)
        self.check_perturbed(products.rows)
        manifest = self.manifest("complete", seen, needs, [])
        manifest["times"] = {
            "started": began,
            "finished": now(),
            "seconds": time.perf_counter() - self.started,
        }
        return products.result(manifest)

    def _unit(self, blocks: range, collector: Any) -> UnitReport:
        part = self.settings.blocks()[blocks.start : blocks.stop]
        model, x = self.campaign.model.module, self.campaign.input.tensor
        return run_unit(self.settings, model, x, part, self.campaign.metrics, collector, self.observer, self.alone)

    def _merged(self, seen: Survey, products: Products) -> None:
        """Run chunk after chunk, with the total of every layer in memory."""
        totals = _Totals(products)
        total, first = len(self.settings.blocks()), 0
        needs = plan(self.settings, seen, None, one_at_a_time=self.alone is not None, totals=True)
        while first < total:
            part = range(first, min(first + needs.blocks, total))
            try:
                self.absorb(self._unit(part, totals))
            except LockstepError as error:
                self.go_alone(error)
                totals.clear()
                products.clear()
                needs = plan(self.settings, seen, None, one_at_a_time=True, totals=True)
                continue
            first = part.stop
        totals.finish(self.report.layers)


class _Totals:
    """Merges the blocks of chunks that arrive in order, then hands each layer on."""

    def __init__(self, products: Products) -> None:
        self.products = products
        self.moments: dict[str, Any] = {}

    def layer(self, name: str, operator: str, blocks: Iterable[AnyMoments]) -> None:
        for block in blocks:
            self.moments[name] = self.moments[name].merge(block) if name in self.moments else block

    def activation(self, name: str, sample: int | None, tensor: Any) -> None:
        self.products.activation(name, sample, tensor)

    def clear(self) -> None:
        self.moments.clear()

    def finish(self, layers: dict[str, str]) -> None:
        for name, operator in layers.items():
            self.products.layer(name, operator, iter([self.moments.pop(name)]))
