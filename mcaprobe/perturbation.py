"""What becomes of each operator inside a perturbed block? A dispatch mode sees every aten operator below autograd.

Exact operators run as they are. Compiled ones (route exact) round after every instruction; modelled ones (route model)
run the stock kernel and add the noise that its roundings amount to. Composite operators are decomposed into those; the
rest are rounded at the output, listed as unmodelled and warned about once.
"""


from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_flatten, tree_map

from mcaprobe.kinds import RULES, kind_of, run_parts
from mcaprobe.lanes import LaneTensor, LockstepError, is_perturbed, join_lanes, lane_count, pick_lane
from mcaprobe.noise import products
from mcaprobe.noise.compiled import CompiledSite, compiles
from mcaprobe.noise.deviations import Deviation, Deviations
from mcaprobe.noise.exact import narrows
from mcaprobe.noise.site import Site
from mcaprobe.noise.unmodelled import round_output
from mcaprobe.operator_log import OperatorLog
from mcaprobe.operators import (
    check_dtypes,
    composite,
    creates,
    floating,
    functional,
    in_stock_format,
    is_out,
    random_generator,
    written_tensor,
)
from mcaprobe.rounding import NEAREST, Arithmetic
from mcaprobe.routes import EXACT, resolve
from mcaprobe.streams import Stream

aten = torch.ops.aten


class Perturbation(TorchDispatchMode):
    """The block in which operators are perturbed.

    Attributes:
        route: `exact` or `model`.
        log: What was done with each operator.
        deviations: Noise of the sums of products by number of the call, from an unperturbed run alone; samples that run
            alone after it take them over.

    Args:
        route: May be `auto`.
        threads: Lanes computed at the same time.
        inside: Threads of a compiled kernel.
    """

    def __init__(
        self, samples: Sequence[int | None], arithmetic: Arithmetic, seed: int, route: str, threads: int, inside: int
    ) -> None:
        super().__init__()
        self.samples = tuple(samples)
        self.arithmetic = arithmetic
        self.seed = seed
        self.route = resolve(route, arithmetic.mode, "cpu")
        self.log = OperatorLog(route == EXACT)
        self.deviations: dict[int, list[Deviation]] = {}
        self._inside = inside
        self._calls = 0
        self._decomposing: list[Any] = []
        pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) if threads > 1 else None
        self._pool = pool

    @property
    def operators(self) -> dict[str, str]:
        """What was done with each operator, by its name (OperatorLog.kinds)."""
        return self.log.kinds

    def spread(self, x: Tensor) -> Tensor:
        """Return the input as every lane sees it; a block of one lane works on plain tensors."""
        if len(self.samples) == 1 or isinstance(x, LaneTensor):
            return x
        with _disable_current_modes():
            return LaneTensor([x.clone() for _ in self.samples])

    def close(self) -> None:
        """End the worker threads."""
        if self._pool is not None:
            self._pool.shutdown()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        self._check_lanes(args, kwargs)
        kind = kind_of(func, args, kwargs, self._decomposing)
        if kind == "modelled" and self._compiles(func, args, kwargs):
            kind = "compiled"
        # An operator of integers is looked at again, an in-place one as its functional twin.
        if kind not in ("decomposed", "promoted") and not (
            kind == "unmodelled" and functional(func) and func._schema.is_mutable
        ):
            self.log.note(func, kind)
        if kind == "exact":
            return self._exact(func, args, kwargs)
        if kind == "decomposed":
            return self._decompose(func, args, kwargs)
        if kind == "promoted":
            return self._promote(func, args, kwargs)
        if func is aten.copy_.default:
            with self:
                return args[0].copy_(args[1].to(args[0].dtype))
        if functional(func) is not None and func._schema.is_mutable:
            return self._mutate(func, args, kwargs)
        check_dtypes(func, args, kwargs)
        self.log.warn(func, kind, args, kwargs)
        return self._perturb(RULES.get(func.overloadpacket) or round_output(func), func, args, kwargs)

    def _compiles(self, func: Any, args: Any, kwargs: Any) -> bool:
        """Return whether the route is exact and there are kernels for all floating-point tensors of a call."""
        known = func.overloadpacket in RULES or functional(func) in RULES
        if self.route != EXACT or not (known or narrows(func, args, kwargs)):
            return False
        tensors = [t for t in tree_flatten((args, kwargs))[0] if isinstance(t, Tensor)]
        floats = [t.dtype for t in tensors if t.is_floating_point() or t.is_complex()]
        single = all(dtype == torch.float32 for dtype in floats) or narrows(func, args, kwargs)
        single = single and kwargs.get("dtype") != torch.float64  # sum(dtype=...) converts first
        return single and all(t.device.type == "cpu" for t in tensors)

    def _exact(self, func: Any, args: Any, kwargs: Any) -> Any:
        lanes = lane_count(args, kwargs)
        perturbed = is_perturbed(args, kwargs)
        if lanes is None:
            result = func(*args, **kwargs)
            if len(self.samples) > 1 and creates(func, args):
                # A fresh buffer may be written to by every lane later on.
                return tree_map(lambda t: LaneTensor([t.clone() for _ in self.samples], perturbed), result)
            return _mark(result, perturbed)
        if func._schema.is_mutable:
            return self._write(func, args, kwargs, lanes)
        return join_lanes(self._each_alike(func, args, kwargs, lanes), perturbed)

    def _write(self, func: Any, args: Any, kwargs: Any, lanes: int) -> Any:
        """Run an in-place operator in every lane and return the tensor that it wrote to."""
        target = written_tensor(func, args, kwargs)
        if not isinstance(target, LaneTensor):
            raise LockstepError(f"{func._schema.name} writes perturbed values into a tensor made outside the run.")
        self._each_alike(func, args, kwargs, lanes)
        # (copy.deepcopy may: it sets an empty tensor to the storage that it fills, and drops that tensor.)
        if target.lanes[0].shape != target.shape and (is_out(func) or func is aten.resize_.default):
            expected, got = tuple(target.lanes[0].shape), tuple(target.shape)
            raise LockstepError(f"Expected an out= of shape {expected} for {func._schema.name}, got {got}.")
        target.perturbed = target.perturbed or is_perturbed(args, kwargs)
        return target

    def _mutate(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Run an inexact in-place operator as its functional twin, then copy."""
        target = written_tensor(func, args, kwargs)
        rest = {k: v for k, v in kwargs.items() if v is not target}
        with self:
            value = functional(func)(*args, **rest)
            if target.shape != value.shape and is_out(func):
                target.resize_(value.shape)  # as torch does with an empty out=
            target.copy_(value)
        return target

    def _promote(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Run an operator of integers; where it yields floats, such as 1 / 3, of the same numbers as floats."""
        probe = func(*pick_lane(args, 0), **pick_lane(kwargs, 0))
        if not floating(probe):
            self.log.note(func, "exact")
            return self._exact(func, args, kwargs)
        with self:
            floats = tree_map(lambda t: t.to(probe.dtype) if isinstance(t, Tensor) else t, args)
            return func(*floats, **kwargs)

    def _decompose(self, func: Any, args: Any, kwargs: Any) -> Any:
        self._decomposing.append(func)  # a decomposition that ends in the operator itself is none
        try:
            with self:
                if not composite(func):
                    self.log.note(func, "decomposed")
                result = run_parts(func, args, kwargs)
        finally:
            self._decomposing.pop()
        return result

    def _perturb(self, rule: Callable[..., Any], func: Any, args: Any, kwargs: Any) -> Any:
        if len(self.samples) > 1:
            _check_statistics(func, args)
        call = self._calls
        self._calls += 1
        varies = is_perturbed(args, kwargs)
        devices = [t.device for t in tree_flatten((args, kwargs))[0] if isinstance(t, Tensor)]
        device = next((d for d in devices if d.type != "cpu"), devices[0])

        chains = self._compiles(func, args, kwargs)
        sweeps = compiles(self.arithmetic, device)
        measures = not chains and func.overloadpacket in products.RULES
        known = self.deviations.get(call)

        def one(lane: int) -> Any:
            a, k = pick_lane(args, lane), pick_lane(kwargs, lane)
            sample = self.samples[lane]
            if sample is None and not (chains or measures):
                return func(*a, **k)
            arithmetic = Arithmetic(NEAREST) if sample is None and chains else self.arithmetic
            stream = Stream(self.seed, sample or 0, call, device)
            site = Site(arithmetic, stream, varies)
            if sweeps:
                site = CompiledSite(arithmetic, stream, varies, chains, self._inside)
            if sample is not None or not measures:
                site.deviations = Deviations(known)
                return in_stock_format(func, rule(site, *a, **k), a)
            site.deviations = Deviations(recording=True, each=self._map)
            rule(site, *a, **k)
            self.deviations[call] = site.deviations.recorded or []
            return func(*a, **k)

        if len(self.samples) == 1:
            return _mark(one(0), True)
        if chains:  # the kernels share the threads
            return join_lanes([one(i) for i in range(len(self.samples))], True)
        if self.samples[0] is not None or not measures:
            return join_lanes(self._each(one, len(self.samples)), True)
        first = one(0)
        known = self.deviations.pop(call)
        return join_lanes([first, *self._each(lambda i: one(i + 1), len(self.samples) - 1)], True)

    def _map(self, function: Callable[[Any], Any], items: Sequence[Any]) -> Any:
        """Apply a function to each item, side by side where there are threads."""
        return map(function, items) if self._pool is None else self._pool.map(_below_autograd(function), items)

    def _each(self, function: Callable[[int], Any], lanes: int) -> list[Any]:
        return list(self._map(function, range(lanes)))

    def _each_alike(self, func: Any, args: Any, kwargs: Any, lanes: int) -> list[Any]:
        """Run the stock operator in every lane; one that draws random numbers draws the same ones in each."""

        def one(lane: int) -> Any:
            return func(*pick_lane(args, lane), **pick_lane(kwargs, lane))

        if torch.Tag.nondeterministic_seeded not in func.tags:
            return self._each(one, lanes)
        generator = random_generator(args, kwargs)
        state = generator.get_state()
        results = []
        for lane in range(lanes):
            generator.set_state(state)
            results.append(one(lane))
        return results

    def _check_lanes(self, args: Any, kwargs: Any) -> None:
        for leaf in tree_flatten((args, kwargs))[0]:
            if isinstance(leaf, LaneTensor) and len(leaf.lanes) != len(self.samples):
                raise LockstepError(
                    f"Expected tensors of the {len(self.samples)} lanes of this block, got a tensor of "
                    f"{len(leaf.lanes)} lanes."
                )


def _mark(result: Any, perturbed: bool) -> Any:
    if perturbed:
        for leaf in tree_flatten(result)[0]:
            if isinstance(leaf, Tensor):
                leaf.perturbed = True  # type: ignore[attr-defined]
    return result


def _check_statistics(func: Any, args: Any) -> None:
    if func is aten.native_batch_norm.default and args[3] is not None and args[5]:
        raise LockstepError(
            "Batch norm in training mode updates its running statistics, which all samples share: "
            "call model.eval(), or run one sample at a time."
        )


def _below_autograd(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Run in another thread as a dispatch mode does: without autograd, and in inference mode where the caller is."""
    inference = torch.is_inference_mode_enabled()

    def run(item: Any) -> Any:
        with torch.inference_mode(inference), torch.no_grad():
            return function(item)

    return run
