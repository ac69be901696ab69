"""A conversion leaves the original as it was, shares its tensors, and is undone."""

import copy
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import nanops
from nanops import InputError
from tests.nanops.images import same_bits
from tests.nanops.nets import Modules, Tail, image, seeded


def test_the_original_stays_as_it_is():
    model = seeded(Modules())
    y, state, kinds = model(image()), copy.deepcopy(model.state_dict()), [type(m) for m in model.modules()]
    converted = nanops.convert(model)
    assert not same_bits(converted(image()), y)
    assert same_bits(model(image()), y) and [type(m) for m in model.modules()] == kinds
    assert all(same_bits(t, state[name]) for name, t in model.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks or hasattr(m, "_nanops") for m in model.modules())


def test_parameters_and_buffers_are_the_same_objects_under_the_same_names():
    model = seeded(Modules())
    converted = nanops.convert(model)
    ours, theirs = converted.state_dict(keep_vars=True), model.state_dict(keep_vars=True)
    assert list(ours) == list(theirs) and all(ours[name] is theirs[name] for name in theirs)
    assert [n for n, _ in converted.named_modules()] == [n for n, _ in model.named_modules()]
    assert isinstance(converted, Modules) and isinstance(converted.conv1, nn.Conv2d)


def test_training_the_original_trains_the_copy():
    model = seeded(Modules())
    converted = nanops.convert(model)
    before = converted(image())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model(image()).square().mean().backward()
    optimizer.step()
    after = converted(image())
    assert not same_bits(after, before) and same_bits(after, nanops.convert(model)(image()))


def test_restore_returns_the_original():
    model = Modules()
    assert nanops.restore(nanops.convert(model)) is model


THINGS = {"stock": Modules(), "str": "a string", "layer": nanops.convert(Modules()).conv1}


@pytest.mark.parametrize("thing", THINGS.values(), ids=THINGS)
def test_restore_refuses_what_convert_did_not_return(thing):
    with pytest.raises(InputError, match=r"made by nanops\.convert, got"):
        nanops.restore(thing)


def test_modes_are_those_of_the_copy():
    model = seeded(Modules())
    converted = nanops.convert(model)
    converted.train()
    assert converted.norm.training and not model.norm.training


def test_a_copy_of_a_conversion_is_converted_and_stands_alone():
    model = seeded(Modules())
    converted = nanops.convert(model)
    other = copy.deepcopy(converted)
    y = converted(image())
    assert same_bits(other(image()), y)
    with torch.no_grad():
        other.conv1.weight.zero_()
    assert same_bits(converted(image()), y) and not same_bits(other(image()), y)
    assert nanops.restore(other) is not model and nanops.restore(other).conv1.weight is other.conv1.weight


def test_a_model_is_converted_in_several_ways_at_once():
    model = seeded(Modules())
    one, two = nanops.convert(model, threshold=0.3), nanops.convert(model, "aggressive")
    expected = one(image()), two(image())
    assert not same_bits(*expected)
    assert same_bits(one(image()), expected[0]) and same_bits(two(image()), expected[1])


def test_threads_convert_for_themselves():
    model = seeded(Modules())
    converted = nanops.convert(model)
    expected = converted(image()), model(image())
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda m: m(image()), [converted, model] * 20))
    assert all(same_bits(y, expected[i % 2]) for i, y in enumerate(found))


def test_a_checkpoint_computes_the_same_again():
    class Checkpointed(Modules):
        def forward(self, x):
            y, i = self.pool(torch.relu(self.norm(self.conv1(x))))
            y = checkpoint(self.middle, self.unpool(y, i), use_reentrant=False)
            return self.conv2(y)

    class Plain(Modules):
        def forward(self, x):
            y, i = self.pool(torch.relu(self.norm(self.conv1(x))))
            return self.conv2(self.middle(self.unpool(y, i)))

    gradients = []
    for kind in (Checkpointed, Plain):
        model = seeded(kind())
        nanops.convert(model, threshold=0.3)(image()).square().sum().backward()
        gradients.append(model.middle.weight.grad)
    assert torch.equal(*gradients) and gradients[0].abs().sum() > 0


def test_an_exception_ends_the_conversion():
    model = seeded(Modules())
    converted = nanops.convert(model)
    with pytest.raises(InputError, match="In layer 'conv1'"):
        converted(image(channels=3))
    assert torch.overrides._get_current_function_mode_stack() == []
    assert converted(image()).shape == (2, 2, 16, 16)


def test_a_layer_of_a_conversion_is_converted_by_itself():
    model = seeded(Modules())
    converted = nanops.convert(model, threshold=0.3)
    x = image(channels=4)
    x[:, :, 8:12] = torch.nan
    y = converted.middle(x)
    assert y.isnan().any() and not y.isnan().all()  # the final policy is that of the whole model
    assert same_bits(y, nanops.convert(model.middle, threshold=0.3, final="keep")(x))


class Recorder:
    def __init__(self):
        self.seen = []

    def __call__(self, module, args, output):
        self.seen.append((type(module).__name__, output.mean(), output.std()))


def test_hooks_of_the_original_fire_on_the_copy():
    model = seeded(Modules())
    recorder = Recorder()
    model.conv2.register_forward_hook(recorder)
    model.unpool.register_forward_hook(recorder)
    model.conv1.register_forward_pre_hook(lambda module, args: (args[0] * 2,))
    converted = nanops.convert(model, final="keep")
    y = converted(image())
    # Hooks see NaN as torch gives it: nothing is replaced or refused for them.
    assert [name for name, *_ in recorder.seen] == ["MaxUnpool2d", "Conv2d"] and recorder.seen[0][1].isnan()
    assert same_bits(y, nanops.convert(seeded(Modules()), final="keep")(image() * 2))
    model(image())
    assert len(recorder.seen) == 4


def test_a_hook_of_the_copy_is_plain_too_and_can_be_removed():
    converted = nanops.convert(seeded(Modules()), final="keep")
    recorder = Recorder()
    handle = converted.unpool.register_forward_hook(recorder)
    converted(image())
    handle.remove()
    converted(image())
    assert len(recorder.seen) == 1 and recorder.seen[0][2].isnan()


def test_a_hook_that_is_a_method_of_a_layer_belongs_to_its_copy():
    class Counting(nn.Conv2d):
        def __init__(self):
            super().__init__(1, 1, 3)
            self.calls = 0
            self.register_forward_hook(self.count)

        def count(self, module, args, output):
            self.calls += 1

    model = nn.Sequential(Counting())
    converted = nanops.convert(model)
    converted(image())
    assert (converted[0].calls, model[0].calls) == (1, 0)


@dataclass(frozen=True)
class Result:
    logits: torch.Tensor
    name: str = "net"


class Pair(dict):
    pass


OUTPUTS = {
    "tuple": (lambda y: (y, None, 3), lambda r: r[0]),
    "list in a dict": (lambda y: {"a": [y], "b": 1}, lambda r: r["a"][0]),
    "dataclass": (Result, lambda r: r.logits),
    "subclass of dict": (lambda y: Pair(a=y), lambda r: r["a"]),
    "named tuple": (lambda y: torch.return_types.max((y, y)), lambda r: r.values),
}


@pytest.mark.parametrize("kind", OUTPUTS)
def test_every_tensor_of_an_output_is_finished(kind):
    wrap, unwrap = OUTPUTS[kind]
    model = Tail(lambda m, y: wrap(y))
    kept, zero = nanops.convert(model, final="keep")(image()), nanops.convert(model)(image())
    assert type(kept) is type(zero) is type(wrap(image()))
    assert unwrap(kept).isnan().any() and same_bits(unwrap(zero), unwrap(kept).nan_to_num(nan=0.0))


def test_an_output_without_nan_is_the_very_output():
    made = []

    def tail(model, y):
        made.append({"a": (torch.ones(2),)})
        return made[0]

    assert nanops.convert(Tail(tail))(image()) is made[0]


def test_tensors_outside_the_lists_of_torch_are_shared_too():
    class Hidden(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = [nn.Conv2d(1, 1, 3)]
            self.scale = {"a": torch.ones(1)}

        def forward(self, x):
            return self.layers[0](x) * self.scale["a"]

    model = Hidden()
    converted = nanops.convert(model)
    assert converted.layers[0] is not model.layers[0] and converted.layers[0].weight is model.layers[0].weight
    assert converted.scale["a"] is model.scale["a"] and same_bits(converted(image()), model(image()))


def test_a_graph_of_torch_fx_is_converted():
    model = seeded(Modules())
    traced = nanops.convert(torch.fx.symbolic_trace(model), threshold=0.3)
    assert same_bits(traced(image()), nanops.convert(model, threshold=0.3)(image()))
    assert not same_bits(traced(image()), model(image()))
