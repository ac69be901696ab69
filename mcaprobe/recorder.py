"""What did each layer and each functional call of a model put out, by name?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils.weak import WeakTensorKeyDictionary

from mcaprobe import calls, steps
from mcaprobe.errors import InputError

Sink = Callable[[str, str, Tensor], None]
OUTPUT = ":output"
RESHAPES = frozenset(layer.__name__ for layer in calls.RESHAPES)


class Recorded(dict[str, Tensor]):
    """Recorded outputs by name, in execution order; empty where a sink took them.

    Attributes:
        operators: Class or function name of each recorded output, `Conv2d` or `max_pool2d`.
        aliases: Other names of a recorded tensor, with the name that came first: a container whose output is
            its last child's. An alias is a key of the dict as well, and never goes to a sink.
        steps: What each recorded integer output selects, one of `steps.STEPS`.
        labelled: The output that labels were taken of, while a sink is called with them; else None.
    """

    def __init__(self) -> None:
        super().__init__()
        self.operators: dict[str, str] = {}
        self.aliases: dict[str, str] = {}
        self.steps: dict[str, str] = {}
        self.labelled: Tensor | None = None


@contextmanager
def record(
    model: nn.Module,
    layers: str | Sequence[str] = "*",
    sink: Sink | None = None,
    pause: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> Iterator[Recorded]:
    """Record the outputs of the module calls and functional calls of `model` inside the block.

    Names: `decoder.1.conv2` is a module call, `decoder.1:max_unpool2d` a functional call inside the forward
    of decoder.1, `:cat` one inside the forward of the model, `:output` the output of the model itself. The
    second call of a name is `name:2`. Outputs in a tuple, list, dict or dataclass add `.0`, `.key`, `.field`.

    Recorded are floating outputs that are new: no views of an input, no input returned as it is, unless the
    call changed it in place. Of functional calls no whole copies and casts, no factories (calls without a
    floating input, fills, random numbers), and none that a torch.nn layer without children makes itself.
    Calls outside the forward of a module are not the model's.

    Integers are recorded where they are decisions: `.indices` of a pooling; `.targets`, the positions that a max
    unpooling writes to (as a rule an alias of the pooling's indices); the results of argmax and argmin, and
    `.indices` of max(dim), min(dim) and topk, that the model calls; and `.labels` of each floating output (N, C, ...)
    of the model with C >= 2, which the recorder takes itself: `:output.labels`, the argmax over axis 1, int64
    (N, ...); of equal values the first wins, and NaN wins over all.

    Args:
        model: Any module; nothing of it is changed but hooks, which are gone after the block.
        layers: Glob or globs of names (case matters).
        sink: Called as sink(name, operator, tensor) right after each recorded call, in execution order, with
            the tensor itself, outside of autograd, inference mode, perturbations and recordings. Without a
            sink the dict keeps a detached copy of each, which later in-place calls do not reach.
        pause: Entered around the sink and around what the recorder computes itself.
    Raises:
        InputError: at the end of a block that raised nothing, where a glob matches no name of any call; for a
            scripted model, whose calls cannot be seen.
    """
    if isinstance(model, torch.jit.ScriptModule):
        raise InputError(
            f"Expected a module whose forward runs in Python, got the scripted {type(model).__name__}: the "
            "calls inside cannot be seen. Give the module it was made from."
        )
    recorder = _Recorder([layers] if isinstance(layers, str) else list(layers), sink, pause)
    with ExitStack() as stack:
        for path, module in _visible_modules(model):
            pre = module.register_forward_pre_hook(recorder.entering(path), prepend=True, with_kwargs=True)
            stack.callback(pre.remove)
            post = module.register_forward_hook(recorder.leave, always_call=True)
            stack.callback(post.remove)
        with _FunctionCalls(recorder):
            yield recorder.recorded
    recorder.expect_matches()


@dataclass(slots=True)
class _Frame:
    """A module call in progress: its path, the storages of its inputs with their versions, where it unpools to."""

    path: str
    module: nn.Module
    inputs: dict[int | None, int]
    targets: Tensor | None


@dataclass(slots=True)
class _Recorder:
    """State of one block.

    Attributes:
        frames: Module calls in progress, the innermost last.
        passes: Calls so far, by name without pass number.
        names: Every name that could have been recorded.
        unchanged: Names whose output is an input or a view of one.
        known: The first name of each recorded tensor still alive, with its version then.
        selected: The step of each selection still alive, with its version then, recorded or not.
        labelled: The name of the labels of each output still alive, with its version then.
        writes: In-place calls on tensors without a version of their own, by storage.
    """

    globs: list[str]
    sink: Sink | None
    pause: Callable[[], AbstractContextManager[Any]]
    recorded: Recorded = field(default_factory=Recorded)
    frames: list[_Frame] = field(default_factory=list)
    passes: Counter[str] = field(default_factory=Counter)
    names: dict[str, None] = field(default_factory=dict)
    unchanged: dict[str, None] = field(default_factory=dict)
    known: Any = field(default_factory=WeakTensorKeyDictionary)
    selected: Any = field(default_factory=WeakTensorKeyDictionary)
    labelled: Any = field(default_factory=WeakTensorKeyDictionary)
    writes: Counter[int | None] = field(default_factory=Counter)

    def entering(self, path: str) -> Callable[..., None]:
        """Return the pre-forward hook of the module at `path`."""

        def enter(module: nn.Module, args: Any, kwargs: Any) -> None:
            with torch._C.DisableTorchFunction():
                inputs = {calls.storage_of(t): self.version(t) for t in calls.tensors_in((args, kwargs))}
            targets = steps.targets_of(type(module).__name__, args, kwargs)
            self.frames.append(_Frame(path, module, inputs, targets))

        return enter

    def leave(self, module: nn.Module, args: Any, output: Any) -> None:
        """Forward hook of every module; after an exception torch calls it with output None."""
        frame = self.frames.pop()
        while frame.module is not module:
            frame = self.frames.pop()
        with torch._C.DisableTorchFunction():
            self.take(frame.path or OUTPUT, type(module).__name__, output, frame.inputs, frame.targets)

    def call(self, func: Callable[..., Any], args: Any, kwargs: dict[str, Any]) -> Any:
        """Run a torch function and record what it returns, if it is to be recorded."""
        inside = self.frames and not calls.is_torch_leaf(self.frames[-1].module)
        excluded = calls.is_excluded(func)
        writes = calls.writes_in_place(func, kwargs)
        if not writes and (not inside or excluded):
            return func(*args, **kwargs)
        tensors = list(calls.tensors_in((args, kwargs)))
        inputs = {calls.storage_of(t): self.version(t) for t in tensors}
        output = func(*args, **kwargs)
        if writes:
            target = kwargs.get("out", args[0] if args else kwargs.get("input"))
            self.writes.update(calls.storage_of(t) for t in calls.tensors_in(target) if not calls.has_version(t))
        if inside and not excluded and any(calls.is_floating(t) for t in tensors):
            operator = calls.operator_name(func)
            targets = steps.targets_of(operator, args, kwargs)
            self.take(f"{self.frames[-1].path}:{operator}", operator, output, inputs, targets)
        return output

    def version(self, tensor: Tensor) -> int:
        """Return a number that changes when the tensor is changed in place."""
        if calls.has_version(tensor):
            return tensor._version
        return self.writes[calls.storage_of(tensor)]

    def take(
        self, name: str, operator: str, output: Any, inputs: dict[int | None, int], targets: Tensor | None
    ) -> None:
        """Record the new tensors in the output of one call; `inputs`: storages and versions before it."""
        outputs = calls.outputs_of(operator, output)
        if not outputs:
            return
        self.passes[name] += 1
        numbered = name if self.passes[name] == 1 else f"{name}:{self.passes[name]}"
        for suffix, tensor, own in outputs:
            step = own or self.unless_changed(self.selected, tensor)  # a module may hand on what a call inside chose
            if not calls.is_floating(tensor) and step is None:
                continue
            full = numbered + suffix
            new = operator not in RESHAPES and self.is_new(tensor, inputs)
            if not new and self.first_name(tensor) is None:
                self.unchanged[full] = None
                continue
            self.emit(full, operator, tensor, step)
            if name == OUTPUT and steps.has_labels(tensor):
                self.label(full + steps.LABELS_SUFFIX, operator, tensor)
        if targets is not None:
            self.emit(numbered + steps.TARGETS_SUFFIX, operator, targets, steps.UNPOOL)

    def is_new(self, tensor: Tensor, inputs: dict[int | None, int]) -> bool:
        """Return whether a tensor is neither an input nor a view of one, or was changed by the call."""
        storage = calls.storage_of(tensor)
        return storage is None or storage not in inputs or inputs[storage] != self.version(tensor)

    def first_name(self, tensor: Tensor) -> str | None:
        """Return the name under which this tensor was recorded, unless it has been changed since."""
        return self.unless_changed(self.known, tensor)

    def unless_changed(self, noted: Any, tensor: Tensor) -> str | None:
        """Return what is noted of a tensor, unless the tensor has been changed since."""
        what, version = noted.get(tensor, (None, None))
        return what if version == self.version(tensor) else None

    def wanted(self, name: str) -> bool:
        """Return whether the globs match a name, which could be recorded."""
        self.names[name] = None
        return any(fnmatchcase(name, glob) for glob in self.globs)

    def emit(self, name: str, operator: str, tensor: Tensor, step: str | None) -> None:
        """Hand one output to the sink or the dict, or note that it has a name already."""
        if step is not None:
            self.selected[tensor] = (step, self.version(tensor))
        if not self.wanted(name):
            return
        first = self.first_name(tensor)
        if first is not None:
            self.alias(name, first)
            return
        self.known[tensor] = (name, self.version(tensor))
        with _outside_of_everything(), self.pause():
            self.hand_on(name, operator, tensor, step)

    def label(self, name: str, operator: str, output: Tensor) -> None:
        """Record the labels of an output of the model; the output itself may have another name, or none."""
        if not self.wanted(name):
            return
        first = self.unless_changed(self.labelled, output)
        if first is not None:
            self.alias(name, first)
            return
        self.labelled[output] = (name, self.version(output))
        with _outside_of_everything(), self.pause():
            self.recorded.labelled = output
            try:
                self.hand_on(name, operator, steps.labels_of(output), steps.LABELS)
            finally:
                self.recorded.labelled = None

    def alias(self, name: str, first: str) -> None:
        """Note another name of a recorded tensor."""
        self.recorded.aliases[name] = first
        if self.sink is None:
            self.recorded[name] = self.recorded[first]

    def hand_on(self, name: str, operator: str, tensor: Tensor, step: str | None) -> None:
        """Give a tensor that has no name yet to the sink or the dict."""
        self.recorded.operators[name] = operator
        if step is not None:
            self.recorded.steps[name] = step
        if self.sink is None:
            self.recorded[name] = tensor.detach().clone()
        else:
            self.sink(name, operator, tensor)

    def expect_matches(self) -> None:
        """Refuse globs that no name matched; `*` may match nothing."""
        for glob in self.globs:
            if glob == "*" or any(fnmatchcase(name, glob) for name in self.names):
                continue
            views = [name for name in self.unchanged if fnmatchcase(name, glob)]
            why = f"{views[0]!r} only returns its input or a view of it" if views else _nearest(glob, [*self.names])
            raise InputError(f"Expected a layer that matches {glob!r}; {why}.")


@contextmanager
def _outside_of_everything() -> Iterator[None]:
    """Suspend function modes (recordings), dispatch modes (perturbations), inference mode and autograd."""
    no_functions = torch._C.DisableTorchFunction()
    with no_functions, _disable_current_modes(), torch.inference_mode(False), torch.no_grad():
        yield


class _FunctionCalls(TorchFunctionMode):
    """Shows every torch function of the block to the recorder; those inside it run unseen."""

    def __init__(self, recorder: _Recorder) -> None:
        super().__init__()
        self.recorder = recorder

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self.recorder.call(func, args, kwargs or {})


def _visible_modules(model: nn.Module, path: str = "") -> list[tuple[str, nn.Module]]:
    """Return path and module of the model and all below, each once, but nothing inside scripted modules."""
    found: dict[nn.Module, str] = {}

    def visit(module: nn.Module, path: str) -> None:
        if module in found:
            return
        found[module] = path
        if not isinstance(module, torch.jit.ScriptModule):
            for name, child in module.named_children():
                visit(child, f"{path}.{name}" if path else name)

    visit(model, path)
    return [(path, module) for module, path in found.items()]


def _nearest(glob: str, names: list[str]) -> str:
    """Return a half sentence with up to three names that look like the glob."""
    if not names:
        return "no call of the model was recorded at all"
    plain = glob.strip("*?")

    def likeness(name: str) -> float:
        # A glob may stand for the start of a name or for all of it.
        starts = (name, name[: len(plain)], name[-len(plain) :] if plain else name)
        return max(SequenceMatcher(None, plain, start).ratio() for start in starts)

    nearest = sorted(names, key=likeness, reverse=True)[:3]
    return f"the nearest names are {', '.join(repr(name) for name in nearest)}"
