"""Train: a batch of random heads, a step, and every few minutes a checkpoint from which the same bits follow."""

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from analyses.models.checkpoint import Hyperparameters, read_tensors, write_tensors
from analyses.training.sample import Augmentation, random_batch
from analyses.training.template import Template
from mcaprobe.errors import InputError


@dataclass(frozen=True, slots=True)
class TrainingSettings:
    """What decides the bits of the result, apart from the machine."""

    steps: int = 3000
    seed: int = 0
    batch: int = 4
    size: tuple[int, int] = (128, 160)
    learning_rate: float = 3e-3
    weight_decay: float = 1e-4
    warm_up: int = 100  # steps
    cool_down: float = 0.3  # share of the steps
    precision: str = "float32"  # or bfloat16, for the activations only
    threads: int = 1
    compile: bool = False  # fused by torch.compile: twice as fast on a CPU after two minutes, other last bits
    sizes: Hyperparameters = field(default_factory=Hyperparameters)
    augmentation: Augmentation = field(default_factory=Augmentation)
    harder: Augmentation = field(default_factory=Augmentation.harder)
    harder_from: int = 800  # step

    def as_json(self) -> str:
        """Return the settings as JSON."""
        return json.dumps(asdict(self), sort_keys=True)


def cool_down_start(settings: TrainingSettings) -> int:
    """Return the step from which the learning rate sinks; before it nothing depends on the number of steps."""
    return settings.steps - round(settings.cool_down * settings.steps)


def learning_rate(step: int, settings: TrainingSettings) -> float:
    """Return the rate of a step: linear to its peak, constant, then linear to 0."""
    rise = min(1.0, (step + 1) / settings.warm_up)
    start = cool_down_start(settings)
    fall = min(1.0, (settings.steps - step) / (settings.steps - start + 1))
    return settings.learning_rate * min(rise, fall)


def segmentation_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Return cross entropy plus one minus the soft Dice of the foreground classes, over the whole batch."""
    logits = logits.float()
    classes = logits.shape[1]
    shares = logits.softmax(1)
    wanted = F.one_hot(target, classes).permute(0, 3, 1, 2).float()
    both = (shares * wanted).sum((0, 2, 3))
    total = (shares + wanted).sum((0, 2, 3))
    dice = (2 * both + 1) / (total + 1)  # the 1: a class that is absent and not predicted costs nothing
    return F.cross_entropy(logits, target) + 1 - dice[1:].mean()


class Trainer:
    """A network, its optimizer, and the number of steps taken."""

    def __init__(self, settings: TrainingSettings, template: Template, device: torch.device) -> None:
        self.settings, self.template, self.device = settings, template, device
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            network = settings.sizes.build()
        self.network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.forward = torch.compile(self.network) if settings.compile else self.network
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
        )
        self.step = 0

    def train_step(self, x: Tensor, y: Tensor) -> float:
        """Take one step on slices (N, 7, H, W) and classes (N, H, W); return the loss before it."""
        self.network.train()
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.step, self.settings)
        x = x.to(self.device, memory_format=torch.channels_last)
        mixed = self.settings.precision == "bfloat16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=mixed):
            logits = self.forward(x)
        loss = segmentation_loss(logits, y.to(self.device))
        if not torch.isfinite(loss):
            raise FloatingPointError(f"Expected a finite loss, got {float(loss)} at step {self.step}.")
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.network.parameters(), 5.0)
        self.optimizer.step()
        self.step += 1
        return float(loss.detach())

    def batches(self, prefetch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the batches from the current step on; `prefetch` of them are made ahead, in one other thread."""
        s = self.settings

        def make(step: int) -> tuple[Tensor, Tensor]:
            augmentation = s.augmentation if step < s.harder_from else s.harder
            return random_batch(self.template, s.seed, step, s.batch, s.size, augmentation)

        if prefetch == 0:
            yield from map(make, range(self.step, s.steps))
            return
        with ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            waiting: list[Future[tuple[Tensor, Tensor]]] = []
            for step in range(self.step, s.steps + prefetch):
                if step < s.steps:
                    waiting.append(pool.submit(make, step))
                if len(waiting) > prefetch or step >= s.steps:
                    if not waiting:
                        return
                    yield waiting.pop(0).result()

    def run(self, prefetch: int, every: float, save: Callable[[], None], report: Callable[[int, float], None]) -> None:
        """Train to the last step; save every `every` seconds and at the end; report each step's loss."""
        last = time.monotonic()
        for x, y in self.batches(prefetch):
            report(self.step, self.train_step(x, y))
            if time.monotonic() - last > every or self.step == self.settings.steps:
                save()
                last = time.monotonic()

    def save_state(self, path: Path) -> None:
        """Write everything from which the run goes on, in one safetensors file."""
        tensors = {f"network.{k}": v for k, v in self.network.state_dict().items()}
        for name, parameter in self.network.named_parameters():
            for key, value in self.optimizer.state[parameter].items():
                tensors[f"optimizer.{key}.{name}"] = value
        write_tensors(path, tensors, {"settings": self.settings.as_json(), "step": str(self.step)})

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
        network = {k.removeprefix("network."): v for k, v in tensors.items() if k.startswith("network.")}
        self.network.load_state_dict(network)
        for name, parameter in self.network.named_parameters():
            state = {key: tensors[f"optimizer.{key}.{name}"] for key in ("step", "exp_avg", "exp_avg_sq")}
            # The step counter of AdamW stays on the host; the moments lie as the parameter does.
            moments = {k: torch.empty_like(parameter).copy_(v) for k, v in state.items() if k != "step"}
            self.optimizer.state[parameter] = {"step": state["step"], **moments}
        self.step = step
