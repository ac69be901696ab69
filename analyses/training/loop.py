"""Train: a batch, a step, and every few minutes a checkpoint from which the same bits follow."""

import json
import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from analyses.models.checkpoint import read_tensors, write_tensors
from mcaprobe.errors import InputError

Pair = tuple[Tensor, Tensor]


@dataclass(frozen=True, slots=True)
class Settings:
    """What decides the bits of the result, apart from the task and the machine."""

    steps: int = 3000
    seed: int = 0
    batch: int = 4
    learning_rate: float = 3e-3
    weight_decay: float = 1e-4
    warm_up: int = 100  # steps
    cool_down: float = 0.3  # share of the steps
    precision: str = "float32"  # or bfloat16, for the activations only
    threads: int = 1
    compile: bool = False  # fused by torch.compile: twice as fast on a CPU after two minutes, other last bits
    check_every: int = 0  # steps between two looks at the validation data; 0: none
    patience: int = 0  # looks without a better one after which training stops; 0: it never does

    def as_json(self) -> str:
        """Return the settings as JSON."""
        return json.dumps(asdict(self), sort_keys=True)


class Task(Protocol):
    """What is learnt: a network from batches that the step alone decides."""

    def network(self) -> nn.Module:
        """Return the network with random weights."""

    def batch(self, step: int) -> Pair:
        """Return the inputs and targets of a step."""

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Return what is made small."""

    def validation(self) -> Iterator[Pair]:
        """Yield the batches on which the best step is chosen."""


def cool_down_start(settings: Settings) -> int:
    """Return the step from which the learning rate sinks; before it nothing depends on the number of steps."""
    return settings.steps - round(settings.cool_down * settings.steps)


def learning_rate(step: int, settings: Settings) -> float:
    """Return the rate of a step: linear to its peak, constant, then linear to 0."""
    rise = min(1.0, (step + 1) / settings.warm_up)
    start = cool_down_start(settings)
    fall = min(1.0, (settings.steps - step) / (settings.steps - start + 1))
    return settings.learning_rate * min(rise, fall)


class Trainer:
    """A network, its optimizer, the number of steps taken, and the best network so far where there is a look.

    Attributes:
        checks: Validation losses, one a look.
        best: Weights at the smallest of them.
    """

    def __init__(self, settings: Settings, task: Task, device: torch.device) -> None:
        self.settings, self.task, self.device = settings, task, device
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            network = task.network()
        self.network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.forward = torch.compile(self.network) if settings.compile else self.network
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
        )
        self.step = 0
        self.checks: list[float] = []
        self.best: dict[str, Tensor] = {}

    def train_step(self, x: Tensor, y: Tensor) -> float:
        """Take one step on inputs and targets, (N, ...); return the loss before it."""
        self.network.train()
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.step, self.settings)
        loss = self._loss(self.forward, x, y)
        if not torch.isfinite(loss):
            raise FloatingPointError(f"Expected a finite loss, got {float(loss)} at step {self.step}.")
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.network.parameters(), 5.0)
        self.optimizer.step()
        self.step += 1
        return float(loss.detach())

    def _loss(self, forward: Callable[[Tensor], Tensor], x: Tensor, y: Tensor) -> Tensor:
        x = x.to(self.device, memory_format=torch.channels_last)
        mixed = self.settings.precision == "bfloat16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=mixed):
            output = forward(x)
        return self.task.loss(output.float(), y.to(self.device))

    @torch.no_grad()
    def check(self) -> float:
        """Look at the validation data, keep the network where it is the best so far, and return the mean loss."""
        self.network.eval()
        losses = [float(self._loss(self.network, x, y)) for x, y in self.task.validation()]
        mean = math.fsum(losses) / len(losses)
        if not self.checks or mean < min(self.checks):
            self.best = {key: value.clone() for key, value in self.network.state_dict().items()}
        self.checks.append(mean)
        return mean

    @property
    def exhausted(self) -> bool:
        """Whether the last looks, as many as the patience, brought nothing better."""
        if not self.checks or not self.settings.patience:
            return False
        since_best = len(self.checks) - 1 - self.checks.index(min(self.checks))
        return since_best >= self.settings.patience

    def result(self) -> dict[str, Tensor]:
        """Return the weights of the best look, or without one the last ones."""
        return self.best or dict(self.network.state_dict())

    def batches(self, prefetch: int) -> Iterator[Pair]:
        """Yield the batches from the current step on; `prefetch` of them are made ahead, in one other thread."""
        make, steps = self.task.batch, self.settings.steps
        if prefetch == 0:
            yield from map(make, range(self.step, steps))
            return
        with ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            waiting: list[Future[Pair]] = []
            for step in range(self.step, steps + prefetch):
                if step < steps:
                    waiting.append(pool.submit(make, step))
                if len(waiting) > prefetch or step >= steps:
                    if not waiting:
                        return
                    yield waiting.pop(0).result()

    def run(self, prefetch: int, every: float, save: Callable[[], None], report: Callable[[int, float], None]) -> None:
        """Train to the last step or until `exhausted`; save every `every` seconds and at the end; report each loss."""
        last = time.monotonic()
        if self.exhausted:
            return
        for x, y in self.batches(prefetch):
            report(self.step, self.train_step(x, y))
            done = self.step == self.settings.steps
            if self.settings.check_every and (done or self.step % self.settings.check_every == 0):
                self.check()
                done = done or self.exhausted
            if time.monotonic() - last > every or done:
                save()
                last = time.monotonic()
            if done:
                return

    def save_state(self, path: Path) -> None:
        """Write everything from which the run goes on, in one safetensors file."""
        tensors = {f"network.{k}": v for k, v in self.network.state_dict().items()}
        tensors |= {f"best.{k}": v for k, v in self.best.items()}
        for name, parameter in self.network.named_parameters():
            for key, value in self.optimizer.state[parameter].items():
                tensors[f"optimizer.{key}.{name}"] = value
        about = {"settings": self.settings.as_json(), "step": str(self.step), "checks": json.dumps(self.checks)}
        write_tensors(path, tensors, about)

    def load_state(self, path: Path) -> None:
        """Go on from a state written by a run with the same settings.

        The number of steps may differ while the learning rate was not yet sinking in either run: the result is
        that of a run with the new number from its start.

        Raises:
            InputError: the file is missing, broken, or of another run.
        """
        tensors, metadata = read_tensors(path)
        theirs, ours = json.loads(metadata.get("settings", "{}")), json.loads(self.settings.as_json())
        step = int(metadata.get("step", 0))
        before = replace(self.settings, steps=theirs.get("steps", 0))
        if step <= min(cool_down_start(self.settings), cool_down_start(before)):
            theirs["steps"] = ours["steps"]
        for key in sorted(theirs.keys() | ours.keys()):
            if theirs.get(key) != ours.get(key):
                raise InputError(f"Expected {key} = {ours.get(key)} in {path} to resume, got {theirs.get(key)}.")
        self.network.load_state_dict(_part(tensors, "network."))
        for name, parameter in self.network.named_parameters():
            state = {key: tensors[f"optimizer.{key}.{name}"] for key in ("step", "exp_avg", "exp_avg_sq")}
            # The step counter of AdamW stays on the host; the moments lie as the parameter does.
            moments = {k: torch.empty_like(parameter).copy_(v) for k, v in state.items() if k != "step"}
            self.optimizer.state[parameter] = {"step": state["step"], **moments}
        self.step, self.checks = step, json.loads(metadata.get("checks", "[]"))
        self.best = _part(tensors, "best.")


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
