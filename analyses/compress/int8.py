"""What does a network compute with int8 weights and activations? Post-training static quantization, torch's own.

torch.ao.quantization in eager mode (torch 2.13 has neither quantize_pt2e nor torchao's): each convolution, transposed
convolution and linear layer rounds its input to 8 bits, multiplies integers, and gives float32 to what lies between,
such as instance norm, for which torch has no integer kernel. No graph is traced, so that any forward will do.
"""

import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from analyses.compress.fasterfusion.unconverted import expect_unconverted
from analyses.compress.magnitude import Layer, layers_of
from mcaprobe.errors import InputError

Network = TypeVar("Network", bound=nn.Module)
# torch 2.13's other kernels for transposed convolutions give wrong values: off by the output's size.
BACKENDS: dict[type[nn.Module], str] = {
    nn.Conv1d: "x86", nn.Conv2d: "x86", nn.Conv3d: "x86", nn.Linear: "x86",
    nn.ConvTranspose2d: "qnnpack", nn.ConvTranspose3d: "fbgemm",
}  # fmt: skip
# Mean error of a layer over its mean output, on what it was calibrated with; right kernels make 0.01 to 0.1, wrong 1.
MOST_ERROR = 0.5


def quantized_int8(network: Network, batches: Iterable[Tensor]) -> Network:
    """Return a copy in eval mode whose convolutions and linear layers have int8 weights.

    Weights: symmetric, one scale a channel, of transposed convolutions one a layer. Inputs and outputs of these layers:
    8 bits unsigned, with the range that torch's histogram observer finds on the batches.

    Args:
        batches: Inputs for calibration, one or more.

    Raises:
        InputError: no batch; a layer that torch's integer kernels cannot compute here, or compute wrongly; one that no
            batch reaches, or NaN does. The sentence names the layer.
    """
    expect_unconverted(network)
    copy = deepcopy(network).eval()
    layers = layers_of(copy)
    for path, layer in layers.items():
        _check(path, layer)
    with warnings.catch_warnings():
        # Eager mode is announced to move to torchao; reduce_range is the default of the x86 backend.
        warnings.filterwarnings("ignore", message=".*torch.ao.quantization is deprecated", category=DeprecationWarning)
        warnings.filterwarnings("ignore", message=".*reduce_range")
        warnings.filterwarnings("ignore", message=".*quantized tensor creation functions")
        probed = _calibrated(copy, layers, batches)
        for path, (wrapper, example) in probed.items():
            _replace(copy, path, _converted(path, wrapper, layers[path], example))
    return copy


def quantized_layers(network: nn.Module) -> dict[str, torch.dtype]:
    """Return the type of the weights of each quantized layer by path, torch.qint8 where all is well."""
    return {
        path.removesuffix(".module"): module.weight().dtype
        for path, module in network.named_modules()
        if callable(getattr(module, "weight", None))
    }


def _check(path: str, layer: Layer) -> None:
    kind = type(layer)
    backend = BACKENDS.get(kind)
    if backend is None:
        kinds = ", ".join(k.__name__ for k in BACKENDS)
        raise InputError(f"Expected layers that torch has right integer kernels for ({kinds}), got {kind.__name__} in "
                         f"{path!r}.")  # fmt: skip
    engines = torch.backends.quantized.supported_engines
    if backend not in engines:
        raise InputError(f"Expected the backend {backend} for {path!r}, got a torch with {', '.join(engines)} only.")
    if isinstance(layer, _ConvNd) and layer.padding_mode != "zeros":
        raise InputError(f"Expected zeros as padding of {path!r}, got {layer.padding_mode!r}.")
    if layer.weight.dtype != torch.float32 or layer.weight.device.type != "cpu":
        raise InputError(f"Expected float32 weights on the CPU in {path!r}, got {layer.weight.dtype} on "
                         f"{layer.weight.device}.")  # fmt: skip
    if not bool(layer.weight.isfinite().all()):
        raise InputError(f"Expected finite weights in {path!r}, got NaN or infinity.")


def _calibrated(
    network: nn.Module, layers: dict[str, Layer], batches: Iterable[Tensor]
) -> dict[str, tuple[nn.Module, Tensor]]:
    """Return each layer with observers around it, by path, and the last input that it saw."""
    from torch.ao import quantization as torch_quantization  # warns when imported or used: within the filter above

    last: dict[str, Tensor] = {}
    wrappers: dict[str, nn.Module] = {}
    for path, layer in layers.items():
        wrapper = torch_quantization.QuantWrapper(layer).eval()
        wrapper.qconfig = _configuration(torch_quantization, layer)
        prepared = torch_quantization.prepare(wrapper)
        prepared.register_forward_pre_hook(_keeper(path, last))
        wrappers[path] = prepared
        _replace(network, path, prepared)
    count = 0
    with torch.no_grad():
        for x in batches:
            if not bool(x.isfinite().all()):
                raise InputError(f"Expected finite inputs for calibration, got NaN or infinity in batch {count}.")
            network(x)
            count += 1
    if not count:
        raise InputError("Expected a batch or more for calibration, got none.")
    missed = next((path for path in wrappers if path not in last), None)
    if missed is not None:
        raise InputError(f"Expected batches that reach every layer, got none that reaches {missed!r}.")
    return {path: (wrapper, last[path]) for path, wrapper in wrappers.items()}


def _configuration(torch_quantization: Any, layer: Layer) -> Any:
    default = torch_quantization.get_default_qconfig(BACKENDS[type(layer)])
    if isinstance(layer, _ConvNd) and layer.transposed:  # torch has no scale a channel for these
        return torch_quantization.QConfig(
            activation=default.activation, weight=torch_quantization.default_weight_observer
        )
    return default


def _keeper(path: str, last: dict[str, Tensor]) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
    def keep(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        if not bool(args[0].isfinite().all()):
            raise InputError(f"Expected finite activations in calibration, got NaN or infinity before {path!r}.")
        last[path] = args[0].detach()

    return keep


def _converted(path: str, wrapper: nn.Module, layer: Layer, example: Tensor) -> nn.Module:
    """Return the layer in integers, held against the float one on what it saw last."""
    from torch.ao import quantization as torch_quantization

    backend = BACKENDS[type(layer)]
    # torch's own convert: the copy that it makes has no hook of ours in the end.
    wrapper._forward_pre_hooks.clear()
    with _engine(backend), torch.no_grad():
        expected = layer(example)
        try:
            converted: nn.Module = torch_quantization.convert(wrapper)
            found = converted(example)
        except RuntimeError as error:
            line = str(error).splitlines()[0]
            raise InputError(f"Expected integer kernels of {backend} for {path!r}, got: {line}") from error
    size, off = float(expected.abs().mean()), float((found - expected).abs().mean())
    if off > MOST_ERROR * size + 1e-12:
        raise InputError(f"Expected {path!r} in int8 within {MOST_ERROR:g} of its mean output {size:.3g}, got an error "
                         f"of {off:.3g} with {backend}.")  # fmt: skip
    return converted


def _replace(network: nn.Module, path: str, layer: nn.Module) -> None:
    if not path:
        raise InputError("Expected a network that holds its layers, got a single layer; put it into nn.Sequential.")
    for name in _paths(network, path):
        parent, _, own = name.rpartition(".")
        setattr(network.get_submodule(parent), own, layer)


def _paths(network: nn.Module, path: str) -> list[str]:
    """Return all paths of the module at a path: a layer may be used in several places."""
    module = network.get_submodule(path)
    return [name for name, m in network.named_modules(remove_duplicate=False) if m is module]


@contextmanager
def _engine(name: str) -> Iterator[None]:
    before = torch.backends.quantized.engine
    torch.backends.quantized.engine = name
    try:
        yield
    finally:
        torch.backends.quantized.engine = before
