"""What did each layer and each functional call of a model put out, by name?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils.weak import WeakTensorKeyDictionary

from mcaprobe import calls
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
    """

    def __init__(self) -> None:
        super().__init__()
        self.operators: dict[str, str] = {}
        self.aliases: dict[str, str] = {}


@contextmanager
def record(model: nn.Module, layers: str | Sequence[str] = "*", sink: Sink | None = None) -> Iterator[Recorded]:
    """Record the outputs of the module calls and functional calls of `model` inside the block.

    Names: `decoder.1.conv2` is a module call, `decoder.1:max_unpool2d` a functional call inside the forward
    of decoder.1, `:cat` one inside the forward of the model, `:output` the output of the model itself. The
    second call of a name is `name:2`. Outputs in a tuple, list, dict or dataclass add `.0`, `.key`, `.field`;
    indices of a pooling add `.indices`.

    Recorded are floating outputs that are new: no views of an input, no input returned as it is, unless the
    call changed it in place. Of functional calls no whole copies and casts, no factories (calls without a
    floating input, fills, random numbers), and none that a torch.nn layer without children makes itself.
    Integer outputs are recorded for poolings only. Calls outside the forward of a module are not the model's.

    Args:
        model: Any module; nothing of it is changed but hooks, which are gone after the block.
        layers: Glob or globs of names (case matters).
        sink: Called as sink(name, operator, tensor) right after each recorded call, in execution order, with
            the tensor itself, outside of autograd, inference mode, perturbations and recordings. Without a
            sink the dict keeps a detached copy of each, which later in-place calls do not reach.
    Raises:
        InputError: at the end of a block that raised nothing, where a glob matches no name of any call; for a
            scripted model, whose calls cannot be seen.
    """
    if isinstance(model, torch.jit.ScriptModule):
        raise InputError(
            f"Expected a module whose forward runs in Python, got the scripted {type(model).__name__}: the "
            "calls inside cannot be seen. Give the module it was made from."
        )
    recorder = _Recorder([layers] if isinstance(layers, str) else list(layers), sink)
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
    """A module call in progress: its path, and the storages of its inputs with their versions."""

    path: str
    module: nn.Module
    inputs: dict[int | None, int]


@dataclass(slots=True)
class _Recorder:
    """State of one block.

    Attributes:
        frames: Module calls in progress, the innermost last.
        passes: Calls so far, by name without pass number.
        names: Every name that could have been recorded.
        unchanged: Names whose output is an input or a view of one.
        known: The first name of each recorded tensor still alive, with its version then.
        writes: In-place calls on tensors without a version of their own, by storage.
    """

    globs: list[str]
    sink: Sink | None
    recorded: Recorded = field(default_factory=Recorded)
    frames: list[_Frame] = field(default_factory=list)
    passes: Counter[str] = field(default_factory=Counter)
    names: dict[str, None] = field(default_factory=dict)
    unchanged: dict[str, None] = field(default_factory=dict)
    known: Any = field(default_factory=WeakTensorKeyDictionary)
    writes: Counter[int | None] = field(default_factory=Counter)

    def entering(self, path: str) -> Callable[..., None]:
        """Return the pre-forward hook of the module at `path`."""

        def enter(module: nn.Module, args: Any, kwargs: Any) -> None:
            with torch._C.DisableTorchFunction():
                inputs = {calls.storage_of(t): self.version(t) for t in calls.tensors_in((args, kwargs))}
            self.frames.append(_Frame(path, module, inputs))

        return enter

    def leave(self, module: nn.Module, args: Any, output: Any) -> None:
        """Forward hook of every module; after an exception torch calls it with output None."""
        frame = self.frames.pop()
        while frame.module is not module:
            frame = self.frames.pop()
        with torch._C.DisableTorchFunction():
            self.take(frame.path or OUTPUT, type(module).__name__, output, frame.inputs)

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
            self.take(f"{self.frames[-1].path}:{operator}", operator, output, inputs)
        return output

    def version(self, tensor: Tensor) -> int:
        """Return a number that changes when the tensor is changed in place."""
        if calls.has_version(tensor):
            return tensor._version
        return self.writes[calls.storage_of(tensor)]

    def take(self, name: str, operator: str, output: Any, inputs: dict[int | None, int]) -> None:
        """Record the new tensors in the output of one call; `inputs`: storages and versions before it."""
        outputs = calls.outputs_of(operator, output)
        if not outputs:
            return
        self.passes[name] += 1
        numbered = name if self.passes[name] == 1 else f"{name}:{self.passes[name]}"
        for suffix, tensor in outputs:
            if self.first_name(tensor) is not None:
                self.emit(numbered + suffix, operator, tensor)
            elif calls.is_floating(tensor) or suffix == ".indices":
                if operator not in RESHAPES and self.is_new(tensor, inputs):
                    self.emit(numbered + suffix, operator, tensor)
                else:
                    self.unchanged[numbered + suffix] = None

    def is_new(self, tensor: Tensor, inputs: dict[int | None, int]) -> bool:
        """Return whether a tensor is neither an input nor a view of one, or was changed by the call."""
        storage = calls.storage_of(tensor)
        return storage is None or storage not in inputs or inputs[storage] != self.version(tensor)

    def first_name(self, tensor: Tensor) -> str | None:
        """Return the name under which this tensor was recorded, unless it has been changed since."""
        name, version = self.known.get(tensor, (None, None))
        return name if version == self.version(tensor) else None

    def emit(self, name: str, operator: str, tensor: Tensor) -> None:
        """Hand one output to the sink or the dict, or note that it has a name already."""
        self.names[name] = None
        if not any(fnmatchcase(name, glob) for glob in self.globs):
            return
        first = self.first_name(tensor)
        if first is not None:
            self.recorded.aliases[name] = first
            if self.sink is None:
                self.recorded[name] = self.recorded[first]
            return
        self.known[tensor] = (name, self.version(tensor))
        self.recorded.operators[name] = operator
        with _outside_of_everything():
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
