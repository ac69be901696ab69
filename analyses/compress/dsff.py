"""Which kernels of a model are active while it trains? Dynamic sparse feature fusion (E2ENet, section 2.2).

    masks = Masks(model, optimizer, FUSION, 0.8, Schedule(iterations=250_000), torch.Generator().manual_seed(0))
    for iteration in range(1, 250_001):
        ...
        optimizer.step()
        masks.step(iteration)          # weights and momentum are masked; every 1200 iterations kernels are exchanged
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import ceil, cos, pi
from pathlib import Path
from typing import Any

from torch import Generator, Tensor, nn
from torch.optim import Optimizer

from analyses.compress.masked import Choice, chosen, clear, exchanged, norms, random_mask
from mcaprobe.errors import InputError
from mcaprobe.storage import read_metadata, read_tensors, write_tensors
from nanops.errors import nearest

GENERATOR = "generator."  # of its state in a file; no parameter's name ends with a point


@dataclass(frozen=True, slots=True)
class Schedule:
    """When are kernels exchanged, and how many?

    Args:
        iterations: T, the length of the training.
        every: dT, iterations between two exchanges (Table 3; the text's "epochs" is a slip).
        share: Of the active kernels that the first exchange would replace, the paper's alpha.

    Raises:
        InputError: one of these makes no sense.
    """

    iterations: int
    every: int = 1200
    share: float = 0.5

    def __post_init__(self) -> None:
        if self.iterations < 1 or self.every < 1 or not 0 <= self.share <= 1:
            raise InputError(f"Expected iterations and every of 1 or more and a share in [0, 1], got "
                             f"{self.iterations}, {self.every} and {self.share}.")  # fmt: skip

    def rate(self, iteration: int) -> float:
        """Return r(t) = share / 2 (1 + cos(pi t / T)), the share of the active kernels that is exchanged."""
        if not 0 <= iteration <= self.iterations:
            raise InputError(f"Expected an iteration from 0 to {self.iterations}, got {iteration}.")
        return self.share / 2 * (1 + cos(pi * iteration / self.iterations))

    def due(self, iteration: int) -> bool:
        """Return whether kernels are exchanged after this iteration, counted from 1."""
        return iteration > 0 and iteration % self.every == 0

    def count(self, iteration: int, active: int, inactive: int) -> int:
        """Return u = ceil(r(t) active), at most as many as there are of either sort."""
        # Rounded first: of a product that is whole, the cosine's last digit would make one more.
        return min(ceil(round(self.rate(iteration) * active, 9)), active, inactive)


@dataclass(frozen=True, slots=True)
class Exchange:
    """What an update did to one tensor.

    Args:
        layer: Name of the parameter.
        iteration: At which.
        kernels: Bits of the mask.
        active: Those that are set, before and after.
        exchanged: Kernels that were dropped; as many were drawn.
    """

    layer: str
    iteration: int
    kernels: int
    active: int
    exchanged: int

    @property
    def flip_rate(self) -> float:
        """Share of the mask's bits that changed."""
        return 2 * self.exchanged / self.kernels


class Masks:
    """One bit for each (in, out) kernel of some parameters of a model; what is not active is 0 after every step.

    Tensors keep their own order, (out, in, ...) of convolutions and (in, out, ...) of transposed ones: a bit is a pair
    in either. The model itself knows nothing of its masks.

    Args:
        model: Any module; its chosen weights are masked at once.
        optimizer: Of these parameters; all that it keeps in a parameter's shape is masked too (momentum of SGD, moments
            of Adam).
        parameters: Globs over names of parameters, or a predicate of name and parameter.
        sparsity: S in [0, 1): each tensor has round((1 - S) N) active kernels, from now on and for ever.
        schedule: Of the exchanges.
        generator: Draws all that is random here; its state is part of `state_dict`.

    Raises:
        InputError: a glob that matches nothing, a sparsity that leaves a tensor no kernel.
    """

    def __init__(
        self, model: nn.Module, optimizer: Optimizer, parameters: Choice, sparsity: float, schedule: Schedule,
        generator: Generator,
    ) -> None:  # fmt: skip
        if not 0 <= sparsity < 1:
            raise InputError(f"Expected a sparsity in [0, 1), got {sparsity}.")
        self.parameters = chosen(model, parameters)
        owned = {id(p) for group in optimizer.param_groups for p in group["params"]}
        for name, parameter in self.parameters.items():
            if id(parameter) not in owned:
                raise InputError(f"Expected an optimizer of all masked parameters, got one without {name!r}.")
        self.optimizer, self.sparsity, self.schedule, self.generator = optimizer, sparsity, schedule, generator
        self.masks = {
            name: random_mask(name, tuple(parameter.shape), sparsity, generator)
            for name, parameter in self.parameters.items()
        }
        self.apply()

    def apply(self) -> None:
        """Set the inactive kernels and what the optimizer remembers of them to 0; due after each of its steps."""
        for name, parameter in self.parameters.items():
            clear(self.masks[name], self.optimizer, parameter)

    def update(self, iteration: int) -> list[Exchange]:
        """Replace the weakest kernels of each tensor by inactive ones, which start at 0; return what changed.

        Raises:
            InputError: an iteration outside the schedule, or weights that are not finite; then nothing has changed.
        """
        strengths = {name: norms(name, parameter) for name, parameter in self.parameters.items()}
        self.schedule.rate(iteration)
        done = []
        for name, mask in self.masks.items():
            active = int(mask.sum())
            count = self.schedule.count(iteration, active, mask.numel() - active)
            self.masks[name] = exchanged(mask, strengths[name], count, self.generator)
            done.append(Exchange(name, iteration, mask.numel(), active, count))
        self.apply()
        return done

    def step(self, iteration: int) -> list[Exchange]:
        """Apply the masks after step `iteration` of the optimizer, from 1, and update them where it is time."""
        self.apply()
        return self.update(iteration) if self.schedule.due(iteration) else []

    def densities(self) -> dict[str, float]:
        """Return the share of active kernels of each masked parameter."""
        return {name: int(mask.sum()) / mask.numel() for name, mask in self.masks.items()}

    def state_dict(self) -> dict[str, Any]:
        """Return copies of the masks, the generator's state, and the settings."""
        return {
            "masks": {name: mask.clone() for name, mask in self.masks.items()},
            GENERATOR: self.generator.get_state(),
            "sparsity": self.sparsity,
            "schedule": asdict(self.schedule),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state_dict`; weights and optimizer are to be loaded before, and are masked anew.

        Raises:
            InputError: masks of another model, sparsity or schedule; then nothing has changed.
        """
        for key in ("masks", GENERATOR, "sparsity", "schedule"):
            if key not in state:
                raise InputError(f"Expected a state of masks with {key!r}, got only {', '.join(map(repr, state))}.")
        expect_same("sparsity", self.sparsity, state["sparsity"])
        expect_same("schedule", asdict(self.schedule), dict(state["schedule"]))
        masks: Mapping[str, Tensor] = state["masks"]
        for name in (*self.masks, *masks):
            if name not in masks or name not in self.masks:
                where, names = ("file", masks) if name not in masks else ("model", self.masks)
                raise InputError(f"Expected masks of this model, got none of {name!r} in the {where}"
                                 f"{nearest(name, names)}")  # fmt: skip
        for name, mask in self.masks.items():
            ours, theirs = (f"{m.dtype} {tuple(m.shape)} with {int(m.sum())} active" for m in (mask, masks[name]))
            if ours != theirs:
                raise InputError(f"Expected a mask of {name!r} of {ours}, got {theirs}.")
        self.generator.set_state(state[GENERATOR].cpu())
        self.masks = {name: masks[name].clone().cpu() for name in self.masks}
        self.apply()

    def save(self, path: Path) -> None:
        """Write the state as a safetensors file."""
        state = self.state_dict()
        settings = json.dumps({key: state[key] for key in ("sparsity", "schedule")})
        write_tensors(path, {**state["masks"], GENERATOR: state[GENERATOR]}, {"dsff": settings})

    def load(self, path: Path) -> None:
        """Go on from a file of `save`.

        Raises:
            InputError: a file of something else, or of another model.
        """
        metadata = read_metadata(path)
        if "dsff" not in metadata:
            raise InputError(f"Expected a file of masks, got {path} without their settings.")
        tensors = read_tensors(path)
        if GENERATOR not in tensors:
            raise InputError(f"Expected a file of masks, got {path} without the state of their generator.")
        own = tensors.pop(GENERATOR)
        self.load_state_dict({GENERATOR: own, "masks": tensors, **json.loads(metadata["dsff"])})


def expect_same(what: str, ours: Any, theirs: Any) -> None:
    """Raise InputError where a file's setting is another one."""
    if ours != theirs:
        raise InputError(f"Expected masks of {what} {ours}, got {theirs}.")


def flip_rates(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> dict[str, float]:
    """Return, by layer, the share of kernels whose bit differs between two runs: the decision flips of the top-k.

    Args:
        first, second: Masks (`Masks.masks`) of one model, say of two runs that differ in nothing but rounding.

    Raises:
        InputError: masks of different models.
    """
    if first.keys() != second.keys():
        odd = sorted(first.keys() ^ second.keys())
        raise InputError(f"Expected masks of one model, got {odd[0]!r} on one side only.")
    for name, mask in first.items():
        if mask.shape != second[name].shape:
            raise InputError(f"Expected masks of one shape for {name!r}, got {tuple(mask.shape)} and "
                             f"{tuple(second[name].shape)}.")  # fmt: skip
    return {name: float((mask != second[name]).double().mean()) for name, mask in first.items()}
