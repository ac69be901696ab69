"""What cannot be converted faithfully is refused, with the name of the layer and the reason."""

import threading

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import nanops
from nanops import ConversionError, InputError
from tests.nanops.nets import Modules, Tail, image, seeded, untied


def replaced_forward():
    layer = nn.Conv2d(1, 1, 3)
    layer.forward = lambda x: x
    return layer


def quantized_buffer():
    layer = nn.Identity()
    layer.register_buffer("table", torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8))
    return layer


def scripted_function():
    layer = nn.Identity()
    layer.function = torch.jit.script(lambda_source)
    return layer


def lambda_source(x: torch.Tensor) -> torch.Tensor:
    return x + 1


def uncopyable():
    layer = nn.Identity()
    layer.lock = threading.Lock()
    return layer


VISIBLE = {
    "LSTM": (lambda: nn.LSTM(4, 4), "mix a NaN into every position"),
    "GRU cell": (lambda: nn.GRUCell(4, 4), "mix a NaN into every position"),
    "attention": (lambda: nn.MultiheadAttention(4, 1), "mix a NaN into every position"),
    "parallel": (lambda: nn.DataParallel(nn.Conv2d(1, 1, 3)), "convert the model inside"),
    "compiled": (lambda: torch.compile(nn.Conv2d(1, 1, 3)), "compile then"),
    "lazy": (lambda: nn.LazyConv2d(1, 3), "no shape yet"),
    "forward replaced": (replaced_forward, "forward was replaced on the object"),
}


@pytest.mark.parametrize("kind", VISIBLE)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_a_layer_that_cannot_be_converted_is_refused_at_once(kind):
    make, reason = VISIBLE[kind]
    layer = make()
    with pytest.raises(ConversionError, match=f"layer 'inner.0', a {type(layer).__name__}: .*{reason}"):
        nanops.convert(nn.ModuleDict({"inner": nn.Sequential(layer)}))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize(("make", "reason"), [
    (lambda: torch.jit.script(nn.Identity()), "convert what it was made from"),
    (lambda: torch.jit.trace(nn.Conv2d(1, 1, 3), image()), "convert what it was made from"),
    (quantized_buffer, "before it is quantized"),
    (scripted_function, "function is a scripted function"),
    (uncopyable, "cannot be copied"),
], ids=["scripted", "traced", "quantized", "scripted function", "not copyable"])  # fmt: skip
def test_what_torch_functions_do_not_see_is_refused(make, reason):
    with pytest.raises(ConversionError, match=reason):
        nanops.convert(nn.Sequential(make()))


def test_a_conversion_is_not_converted_again():
    converted = nanops.convert(Modules())
    for model in (converted, nn.Sequential(converted)):
        with pytest.raises(InputError, match=r"before its conversion, but .* was converted; see nanops\.restore"):
            nanops.convert(model)
    with pytest.raises(InputError, match=r"Expected a torch\.nn\.Module, got a str"):
        nanops.convert("model")


class Middle(nn.Module):
    """Calls what a test gives in the forward of a layer with a name, on an image with NaN."""

    def __init__(self, call):
        super().__init__()
        self.call = call

    def forward(self, y):
        return self.call(y)


def in_a_layer(call):
    return Tail(lambda m, y: m.odd(y), odd=Middle(call))


ODD = {
    "cumsum": lambda y: y.cumsum(2),
    "matmul": lambda y: y @ y,
    "einsum": lambda y: torch.einsum("nchw,ncwk->nchk", y, y),
    "scaled_dot_product_attention": lambda y: F.scaled_dot_product_attention(y, y, y),
    "std": lambda y: y.std(),
    "adaptive_max_pool2d": lambda y: F.adaptive_max_pool2d(y, 2),
    "grid_sample": lambda y: F.grid_sample(y, torch.zeros(2, 3, 3, 2), align_corners=False),
    "numpy": lambda y: torch.from_numpy(y.numpy()),
    "item": lambda y: y * y.flatten()[0].item(),
    "interpolate": lambda y: F.interpolate(y, scale_factor=2.0, mode="bicubic"),
}


@pytest.mark.parametrize("name", ODD)
def test_an_operator_that_mixes_is_refused_when_a_nan_reaches_it(name):
    converted = nanops.convert(in_a_layer(ODD[name]))
    with pytest.raises(ConversionError, match=f"layer 'odd': a NaN reached {name}"):
        converted(image())


@pytest.mark.parametrize("name", ODD)
def test_it_is_let_through_without_nan(name):
    model = in_a_layer(ODD[name])
    torch.testing.assert_close(nanops.convert(model)(untied()), model(untied()), rtol=0, atol=0)


class Indices(nn.Module):
    """Pools, lets a test change the indices, and unpools."""

    def __init__(self, change, **unpool):
        super().__init__()
        self.pool = nn.MaxPool2d(2, return_indices=True)
        self.unpool = nn.MaxUnpool2d(**{"kernel_size": 2, **unpool})
        self.change = change

    def forward(self, x):
        y, indices = self.pool(x)
        return self.unpool(y, self.change(indices))


MISUSED = {
    "arithmetic": (lambda i: i + 1, "add is called with the indices of pool"),
    "comparison": (lambda i: i[i > 3], "gt is called with the indices of pool"),
    "another dtype": (lambda i: i.to(torch.int32).long(), "to is called with the indices of pool"),
    "a view": (lambda i: i.flatten(1), "flatten is called with the indices of pool"),
    "a list": (lambda i: torch.cat([i, i]), "cat is called with the indices of pool"),
    "a value": (lambda i: i.sum(), "sum is called with the indices of pool"),
    "numpy": (lambda i: torch.from_numpy(i.numpy()), "numpy is called with the indices of pool"),
    "other indices": (lambda i: torch.zeros(2, 1, 8, 8, dtype=torch.int64), "come from no converted pool"),
}


@pytest.mark.parametrize("pooling", ["conservative", "hybrid"])
@pytest.mark.parametrize("case", MISUSED)
def test_ties_are_good_for_unpooling_only(case, pooling):
    change, sentence = MISUSED[case]
    with pytest.raises(ConversionError, match=sentence):
        nanops.convert(Indices(change), pooling)(image())


@pytest.mark.parametrize("pooling", ["aggressive", None])
def test_true_indices_may_be_used_for_anything(pooling):
    model = Indices(lambda i: (i + 1) - 1)
    converted = nanops.convert(model, pooling)
    torch.testing.assert_close(converted(untied()), model(untied()), rtol=0, atol=0)


def test_ties_are_not_returned():
    for final in ("zero", "keep"):
        with pytest.raises(ConversionError, match="it returns the indices"):
            nanops.convert(nn.MaxPool2d(2, return_indices=True), final=final)(image())


def test_an_unpool_has_the_window_of_its_pool():
    sentence = r"layer 'unpool': it unpools kernel \(3, 3\).* its pool pool had kernel \(2, 2\)"
    with pytest.raises(ConversionError, match=sentence):
        nanops.convert(Indices(lambda i: i, kernel_size=3, stride=2))(image())


def test_an_unpool_to_other_axes_than_the_pool_saw_is_refused():
    x = torch.rand(1, 1, 5, 5)
    with pytest.raises(ConversionError, match=r"unpools to \(4, 4\) what pool pooled from \(5, 5\)"):
        nanops.convert(Indices(lambda i: i))(x)


def test_pool_and_unpool_are_selected_together():
    with pytest.raises(ConversionError, match="layer 'unpool': it stays a stock unpool"):
        nanops.convert(Indices(lambda i: i), layers="pool")(image())
    with pytest.raises(ConversionError, match="layer 'unpool': its indices come from no converted pool"):
        nanops.convert(Indices(lambda i: i), layers="unpool")(image())


def test_a_mistake_inside_an_operator_names_the_layer():
    class Wrong(nn.Module):
        def forward(self, y):
            return F.conv2d(y, torch.ones(1, 1, 3, 3, dtype=torch.float64))

    model = Tail(lambda m, y: m.odd(y), odd=Wrong())
    with pytest.raises(InputError, match=r"In layer 'odd': Expected .* one floating dtype"):
        nanops.convert(model)(image())


def test_an_output_that_hides_tensors_is_refused():
    class Hidden:
        def __init__(self, y):
            self.y = y

    model = Tail(lambda m, y: Hidden(y))
    with pytest.raises(ConversionError, match="it returns a Hidden"):
        nanops.convert(model)(image())


def test_a_refusal_leaves_the_model_usable():
    converted = nanops.convert(seeded(Modules()))
    with pytest.raises(InputError):
        converted(image().double())
    assert converted(image()).isfinite().all()
