"""Are the calls of a model recorded, once each, under the promised names, with the value they had?"""

from collections import OrderedDict
from contextlib import suppress

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mcaprobe.emulator import lockstep
from mcaprobe.errors import InputError
from mcaprobe.lanes import LaneTensor, lanes_of
from mcaprobe.recorder import record
from tests.mcaprobe.packed_outputs import PACKED, image
from tests.mcaprobe.small_models import Model


class UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.ModuleList([nn.Sequential(nn.Conv2d(2, 2, 3, padding=1), nn.PReLU()) for _ in range(2)])
        self.decoder = nn.ModuleList([nn.Sequential(nn.Conv2d(2, 2, 3, padding=1), nn.PReLU()) for _ in range(2)])
        self.classifier = nn.Conv2d(4, 3, 1)

    def forward(self, x):
        skips = []
        start = x
        for block in self.encoder:
            skip = block(x)
            x, index = F.max_pool2d(skip, 2, return_indices=True)
            skips.append((skip, index))
        for block in self.decoder:
            skip, index = skips.pop()
            x = block(torch.maximum(F.max_unpool2d(x, index, 2), skip))
        return self.classifier(torch.cat([x, start], 1))


def test_a_u_net_is_recorded_call_by_call_in_execution_order():
    model = UNet()
    with record(model) as layers, torch.no_grad():
        y = model(image())
    assert list(layers) == [
        "encoder.0.0", "encoder.0.1", "encoder.0", ":max_pool2d", ":max_pool2d.indices",
        "encoder.1.0", "encoder.1.1", "encoder.1", ":max_pool2d:2", ":max_pool2d:2.indices",
        ":max_unpool2d", ":max_unpool2d.targets", ":maximum", "decoder.0.0", "decoder.0.1", "decoder.0",
        ":max_unpool2d:2", ":max_unpool2d:2.targets", ":maximum:2", "decoder.1.0", "decoder.1.1", "decoder.1",
        ":cat", "classifier", ":output", ":output.labels",
    ]  # fmt: skip
    assert layers.aliases == {
        "encoder.0": "encoder.0.1", "encoder.1": "encoder.1.1", "decoder.0": "decoder.0.1",
        "decoder.1": "decoder.1.1", ":output": "classifier",
        ":max_unpool2d.targets": ":max_pool2d:2.indices", ":max_unpool2d:2.targets": ":max_pool2d.indices",
    }  # fmt: skip
    assert layers.operators["encoder.0.0"] == "Conv2d" and layers.operators[":max_pool2d:2"] == "max_pool2d"
    assert layers[":output"] is layers["classifier"] and torch.equal(layers[":output"], y)
    assert layers[":max_pool2d.indices"].dtype == torch.int64
    assert layers.steps == {":max_pool2d.indices": "pool", ":max_pool2d:2.indices": "pool", ":output.labels": "labels"}


CALLS = {
    "F.max_pool2d": (lambda m, x: F.max_pool2d(x, 2), [":max_pool2d"]),
    "with indices": (
        lambda m, x: F.max_pool2d(x, 2, return_indices=True),
        [":max_pool2d", ":max_pool2d.indices"],
    ),
    "adaptive": (
        lambda m, x: F.adaptive_max_pool2d(x, 2, True),
        [":adaptive_max_pool2d", ":adaptive_max_pool2d.indices"],
    ),
    "torch.maximum": (lambda m, x: torch.maximum(x, -x), [":neg", ":maximum"]),
    "torch.cat": (lambda m, x: torch.cat([x, x], 1), [":cat"]),
    "F.interpolate": (lambda m, x: F.interpolate(x, scale_factor=2), [":interpolate"]),
    "F.softmax": (lambda m, x: F.softmax(x, 1), [":softmax"]),
    "F.pad": (lambda m, x: F.pad(x, (1, 1)), [":pad"]),
    "x + y": (lambda m, x: x + x, [":add"]),
    "1 - x": (lambda m, x: 1 - x, [":rsub"]),
    "x / 2 ** x": (lambda m, x: x / 2**x, [":rpow", ":div"]),
    "x @ y": (lambda m, x: x @ x, [":matmul"]),
    "methods": (lambda m, x: x.add(x).relu().mean((2, 3)), [":add", ":relu", ":mean"]),
    "repeated": (lambda m, x: x + x + x, [":add", ":add:2"]),
    "einsum": (lambda m, x: torch.einsum("bchw,bdhw->bcd", x, x), [":einsum"]),
    "reduction to a scalar": (lambda m, x: x.square().sum(), [":square", ":sum"]),
    "views": (lambda m, x: x.view(2, -1).t()[0].unsqueeze(0).expand(3, 2)[:, :1].squeeze(), []),
    "views of tuples": (lambda m, x: torch.chunk(x, 2, 1)[0], []),
    "tuples": (lambda m, x: torch.max(x, 1), [":max.0", ":max.indices"]),
    "sorted": (lambda m, x: torch.sort(x, 1)[0], [":sort.0"]),
    "copies and casts": (lambda m, x: x.clone().double().to(torch.float32).contiguous().reshape(-1), []),
    "factories": (lambda m, x: torch.zeros_like(x) if x.new_ones(2).shape else torch.rand(3).normal_(), []),
    "embedding": (lambda m, x: F.embedding(torch.tensor([0, 1]), x[0, 0]), [":embedding"]),
    "comparisons and integers": (lambda m, x: (x > 0) & (x.argmax() == 1), [":argmax"]),
    "metadata": (lambda m, x: x.shape[0] + x.dim() + x.numel(), []),
    "eval dropout": (lambda m, x: F.dropout(x, training=False), []),
    "in place": (lambda m, x: x.clone().add_(x).mul_(2), [":add_", ":mul_"]),
    "augmented": (lambda m, x: (x := x.clone(), x.__iadd__(1), x)[2], [":add_"]),
    "F.relu(inplace)": (lambda m, x: F.relu(x.clone(), inplace=True), [":relu"]),
    "out=": (lambda m, x: torch.add(x, x, out=torch.empty_like(x)), [":add"]),
    "fills": (lambda m, x: x.clone().zero_().fill_(3).copy_(x), []),
}  # fmt: skip


@pytest.mark.parametrize("mode", [torch.no_grad, torch.enable_grad, torch.inference_mode])
@pytest.mark.parametrize(("forward", "expected"), CALLS.values(), ids=CALLS)
def test_calls_with_new_floating_outputs_are_recorded(forward, expected, mode):
    model = Model(forward)
    with record(model) as layers, mode():
        model(image())
    assert [name for name in layers if not name.startswith(":output")] == expected
    for value in layers.values():
        assert not value.requires_grad and not value.is_inference()


@pytest.mark.parametrize(("pack", "suffixes"), PACKED.values(), ids=PACKED)
def test_outputs_in_containers_are_named_by_their_place(pack, suffixes):
    inner = Model(lambda m, x: pack(x + 1, x + 2))
    model = Model(lambda m, x: (m.part(x), None)[1], part=inner)
    with record(model, "part.*") as layers:
        model(image())
    assert list(layers) == ["part" + suffix for suffix in suffixes]


def test_modules_that_return_indices_name_them():
    model = Model(
        lambda m, x: m.unpool(*m.pool(x)), pool=nn.MaxPool2d(2, return_indices=True), unpool=nn.MaxUnpool2d(2)
    )
    with record(model) as layers:
        model(image())
    assert list(layers) == [
        "pool", "pool.indices", "unpool", "unpool.targets", ":output", ":output.labels"
    ]  # fmt: skip
    assert layers.aliases == {"unpool.targets": "pool.indices", ":output": "unpool"}
    assert layers.operators["pool.indices"] == "MaxPool2d"


def test_a_reused_module_and_a_second_pass_are_numbered():
    act = nn.PReLU()
    model = nn.Sequential(OrderedDict(a=nn.Conv2d(2, 2, 1), act=act, b=nn.Conv2d(2, 2, 1), again=act))
    with record(model) as layers:
        model(image())
        model(image() + 1)
    assert list(layers) == [
        "a", "act", "b", "act:2", ":output", ":output.labels",
        "a:2", "act:3", "b:2", "act:4", ":output:2", ":output:2.labels",
    ]  # fmt: skip
    assert not torch.equal(layers["a"], layers["a:2"])


def test_functional_calls_of_a_reused_module_are_numbered_with_it():
    block = Model(lambda m, x: F.relu(x) * 2)
    model = Model(lambda m, x: m.block(m.block(x)), block=block)
    with record(model) as layers:
        model(image())
    assert list(layers) == [
        "block:relu", "block:mul", "block", "block:relu:2", "block:mul:2", "block:2", ":output", ":output.labels"
    ]  # fmt: skip


def test_calls_inside_torch_layers_are_their_own_but_not_those_of_users_subclasses():
    class Standardised(nn.Conv2d):
        def forward(self, x):
            return F.conv2d(x, self.weight - self.weight.mean(), self.bias)

    model = nn.Sequential(nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2), nn.Softmax(1), Standardised(2, 2, 1))
    with record(model) as layers:
        model(image())
    assert list(layers) == ["0", "1", "2", "3:mean", "3:sub", "3:conv2d", "3", ":output", ":output.labels"]


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_recorded_value_is_that_of_its_call_although_later_calls_write_into_it(mode):
    def forward(m, x):
        y = m.conv(x)
        m.relu(y)
        y.add_(1)
        y[:, :1].mul_(2)
        y[0, 0, 0, 0] = 5
        return m.last(y)

    torch.manual_seed(0)
    model = Model(forward, conv=nn.Conv2d(2, 2, 1), relu=nn.ReLU(inplace=True), last=nn.Identity())
    with record(model) as layers, mode():
        final = model(image())
    # The item assignment is no call of its own, but shows in the output of the model.
    assert list(layers) == ["conv", "relu", ":add_", ":mul_", ":output", ":output.labels"]
    conv = model.conv(image())
    assert torch.equal(layers["conv"], conv)
    assert torch.equal(layers["relu"], conv.relu())
    assert torch.equal(layers[":add_"], conv.relu() + 1)
    assert torch.equal(layers[":mul_"], 2 * (conv.relu() + 1)[:, :1])
    assert float(final[0, 0, 0, 0]) == 5


def test_a_container_that_changes_its_childs_output_in_place_is_no_alias():
    inner = Model(lambda m, x: m.conv(x).index_fill_(1, torch.tensor([0]), 7.0), conv=nn.Conv2d(2, 2, 1))
    model = Model(lambda m, x: m.inner(x), inner=inner)
    with record(model, ["inner", "inner.conv"]) as layers, torch.no_grad():
        model(image())
    assert layers.aliases == {} and not torch.equal(layers["inner"], layers["inner.conv"])


def test_a_sink_gets_each_tensor_itself_once_and_in_order():
    seen = []
    kept = []

    def forward(m, x):
        kept.append(m.conv(x))
        return kept[0]

    model = Model(forward, conv=nn.Conv2d(2, 2, 1))
    with record(model, sink=lambda *call: seen.append(call)) as layers:
        model(image())
    (name, operator, tensor), (last, _, labels) = seen
    assert last == ":output.labels" and torch.equal(labels, kept[0].argmax(1))
    assert (name, operator) == ("conv", "Conv2d") and tensor is kept[0]
    assert dict(layers) == {} and layers.aliases == {":output": "conv"}


def test_a_sinks_own_arithmetic_is_neither_recorded_nor_in_inference_mode():
    sums = []
    model = Model(lambda m, x: F.relu(x + 1))
    with record(model, sink=lambda n, o, t: sums.append((n, t.double().mean() * 2))), torch.inference_mode():
        model(image())
    assert [n for n, _ in sums] == [":add", ":relu", ":output.labels"]
    assert not any(value.is_inference() for _, value in sums)


def test_globs_select_by_name_and_case():
    model = UNet()
    for layers, expected in {
        "encoder.*": {f"encoder.{name}" for name in ("0", "0.0", "0.1", "1", "1.0", "1.1")},
        "decoder.?": {"decoder.0", "decoder.1"},
        "*:cat": {":cat"},
        "*.indices": {":max_pool2d.indices", ":max_pool2d:2.indices"},
    }.items():
        with record(model, layers) as found, torch.no_grad():
            model(image())
        assert set(found) == expected
    with record(model, ["classifier", ":cat"]) as found, torch.no_grad():
        model(image())
    assert list(found) == [":cat", "classifier"]
    # A container is recorded by its own name where its last child is not wanted.
    with record(model, "encoder.0") as found, torch.no_grad():
        model(image())
    assert list(found) == ["encoder.0"] and not found.aliases


def test_a_glob_that_matches_nothing_gets_the_nearest_names():
    model = UNet()
    for wrong, near in {
        "decodr.1": "'decoder.1'",
        "Classifier": "'classifier'",
        "encodr*": "'encoder.0",
        ":maxpool2d": "':max_pool2d'",
    }.items():
        with pytest.raises(InputError, match=near) as error, record(model, ["encoder*", wrong]):
            model(image())
        assert repr(wrong) in str(error.value)
    with pytest.raises(InputError, match="no call of the model"), record(model, "x"):
        pass
    flat = nn.Sequential(nn.Conv2d(2, 2, 1), nn.Flatten())
    with pytest.raises(InputError, match="'1' only returns its input or a view"), record(flat, "1"):
        flat(image())


def hooks(model: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def test_hooks_vanish_after_the_block_also_after_an_exception():
    model = UNet()
    with record(model):
        assert hooks(model) > 0
    assert hooks(model) == 0
    with pytest.raises(ZeroDivisionError), record(model, "no such layer"):
        model(image())
        raise ZeroDivisionError
    with pytest.raises(RuntimeError, match="channels"), record(model) as layers:
        model(image(1, 3, 8, 8))
    assert hooks(model) == 0 and not layers
    with record(model) as layers:
        model(image())
    assert len(layers) > 20


def test_an_exception_that_the_model_catches_leaves_the_names_right():
    def broken(m, x):
        raise ArithmeticError

    def forward(m, x):
        with suppress(ArithmeticError):
            m.bad(x)
        return m.good(x + 1) * 2

    model = Model(forward, bad=Model(broken), good=nn.Conv2d(2, 2, 1))
    with record(model) as layers:
        model(image())
    assert list(layers) == [":add", "good", ":mul", ":output", ":output.labels"]


def test_a_sink_that_raises_stops_the_model_with_its_own_exception():
    def sink(name, operator, tensor):
        raise ArithmeticError(name)

    model = UNet()
    with pytest.raises(ArithmeticError, match=r"encoder\.0\.0"), record(model, sink=sink):
        model(image())
    assert hooks(model) == 0


def test_nested_blocks_record_each_for_themselves():
    model = UNet()
    with record(model) as outer:
        model(image())
        with record(model, "classifier") as inner:
            model(image())
        model(image())
    assert list(inner) == ["classifier"]
    assert {"classifier", "classifier:2", "classifier:3", ":cat:3"} <= set(outer)


def test_calls_outside_the_model_are_not_its_own():
    model = nn.Conv2d(2, 2, 1)
    with record(model) as layers:
        loss = F.mse_loss(model(image()) + 1, image())
        loss.backward()
    assert list(layers) == [":output", ":output.labels"] and set(layers.operators.values()) == {"Conv2d"}


def test_keyword_inputs_shared_modules_and_lists_of_modules_work():
    shared = nn.Linear(4, 4)
    model = Model(lambda m, *, x: m.b(input=m.a(x)), a=shared, b=shared)
    with record(model) as layers:
        model(x=image(1, 4))
    assert list(layers) == ["a", "a:2", ":output", ":output.labels"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_scripted_models_are_refused_and_scripted_parts_are_one_layer():
    part = torch.jit.trace(nn.Sequential(nn.Conv2d(2, 2, 1), nn.ReLU()), image())
    with pytest.raises(InputError, match="runs in Python"), record(part):
        pass
    model = Model(lambda m, x: m.part(x) + 1, part=part)
    with record(model) as layers, torch.no_grad():
        model(image())
    assert list(layers) == ["part", ":add", ":output", ":output.labels"]


def test_recording_changes_no_bit_of_the_output():
    torch.manual_seed(1)
    model = UNet()
    plain = model(image())
    with record(model):
        recorded = model(image())
    assert torch.equal(plain, recorded) and recorded.requires_grad


def test_nothing_is_kept_alive_by_the_recorder():
    import gc
    import weakref

    seen = []
    model = UNet()
    with record(model, sink=lambda n, o, t: seen.append(weakref.ref(t))), torch.no_grad():
        model(image())
        gc.collect()
        assert len(seen) > 10 and all(ref() is None for ref in seen)


def lanes(count: int = 3, *shape: int) -> LaneTensor:
    return LaneTensor([image(*shape) + k for k in range(count)])


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_lane_tensors_are_recorded_like_plain_ones(mode):
    torch.manual_seed(0)
    model = UNet()
    with record(model) as plain, mode():
        model(image())
    seen = {}
    with record(model, sink=lambda name, operator, tensor: seen.update({name: tensor})) as layers, mode():
        model(lanes())
    assert list(seen) == [name for name in plain if name not in plain.aliases]
    assert layers.aliases == plain.aliases
    for name, tensor in seen.items():
        assert isinstance(tensor, LaneTensor) and len(lanes_of(tensor)) == 3
        assert torch.equal(lanes_of(tensor)[0], plain[name])


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize(("forward", "expected"), CALLS.values(), ids=CALLS)
def test_lane_tensors_have_the_names_of_plain_ones(forward, expected, mode):
    found = []
    model = Model(forward)
    with record(model, sink=lambda name, operator, tensor: found.append(name)), mode():
        model(lanes())
    assert [name for name in found if not name.startswith(":output")] == expected


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_perturbed_lockstep_run_is_recorded_under_the_same_names(mode):
    torch.manual_seed(0)
    model = UNet()
    model.classifier = nn.Sequential(model.classifier, nn.ReLU(inplace=True), nn.Dropout(), nn.Flatten()).eval()
    with record(model) as plain, mode():
        model(image())
    seen, sums = {}, {}

    def sink(name, operator, tensor):
        seen[name] = [lane.clone() for lane in lanes_of(tensor)]
        sums[name] = lanes_of(tensor)[1].double().sum() / 3 if tensor.is_floating_point() else None

    with mode(), lockstep([0, 1], threads=1, route="model") as block, record(model, sink=sink) as layers:
        model(block.spread(image()))
    assert list(seen) == [name for name in plain if name not in plain.aliases]
    assert layers.operators == plain.operators
    for name, (ieee, first, second) in seen.items():
        assert torch.equal(ieee, plain[name])
        if name == "encoder.0.0":
            assert not torch.equal(first, ieee) and not torch.equal(first, second)
        # The sink's own arithmetic is not perturbed.
        assert sums[name] is None or sums[name] == first.double().sum() / 3


def test_in_place_calls_of_a_lockstep_run_are_recorded_with_the_value_they_had():
    def forward(m, x):
        y = m.conv(x)
        return m.relu(y).add_(1).mul_(y)

    model = Model(forward, conv=nn.Conv2d(2, 2, 1), relu=nn.ReLU(inplace=True))
    with record(model) as plain, torch.no_grad():
        model(image())
    with torch.no_grad(), lockstep([0, 1], threads=1, route="model") as block, record(model) as layers:
        model(block.spread(image()))
    assert list(layers) == list(plain) == ["conv", "relu", ":add_", ":mul_", ":output", ":output.labels"]
    assert layers.aliases == plain.aliases == {":output": ":mul_"}
    for name, value in layers.items():
        assert torch.equal(lanes_of(value)[0], plain[name])
