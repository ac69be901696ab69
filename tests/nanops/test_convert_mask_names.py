"""A mask names the call that it is of; what is no name of a pool's or unpool's call is refused by its name."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import nanops
from nanops import ConversionError, InputError
from tests.nanops.masked_nets import Calling, Pair, marked, masked, some
from tests.nanops.nets import Functional, Modules, image, seeded, untied
from tests.nanops.pooling_cases import same


class Own(nn.MaxPool2d):
    """A subclass: its function is called in the forward of no layer of torch."""


class Down(nn.Module):
    """A layer that returns what the pool inside it returns, in many ways."""

    def __init__(self, pack):
        super().__init__()
        self.pack, self.conv = pack, nn.Conv2d(1, 1, 1)

    def forward(self, x):
        return self.pack(self.conv(x), *F.max_pool2d(x, 2, return_indices=True))


class PoolOf(Down):
    """The same under a name with "pool" in it."""


MASK = some(2, 1, 4, 4)
# A layer, the names of its call's mask, and where in what it returns the values are.
AROUND = {
    "a subclass": (lambda: Own(2), ["0", "0:max_pool2d", "0:max_pool2d.indices"], lambda r: r),
    "a sequence": (lambda: nn.Sequential(nn.Identity(), nn.MaxPool2d(2)), ["0", "0.1", "0.1.indices"], lambda r: r),
    "sequences": (lambda: nn.Sequential(nn.Sequential(Own(2))), ["0", "0.0", "0.0.0", "0.0.0:max_pool2d"], lambda r: r),
    "one value": (lambda: Down(lambda s, y, i: y), ["0", "0:max_pool2d"], lambda r: r),
    "a pair": (lambda: Down(lambda s, y, i: (y, i)), ["0.0", "0.1", "0:max_pool2d.indices"], lambda r: r[0]),
    "a pool's pair": (lambda: PoolOf(lambda s, y, i: (y, i)), ["0", "0.indices"], lambda r: r[0]),
    "three": (lambda: Down(lambda s, y, i: [s, y, i]), ["0.1", "0.2"], lambda r: r[1]),
    "two pools": (lambda: Down(lambda s, y, i: (F.max_pool2d(s, 2), y, i)), ["0.1", "0.2"], lambda r: r[1]),
    "tuples": (lambda: Down(lambda s, y, i: ((s, [y]), i)), ["0.0.1.0", "0.1"], lambda r: r[0][1][0]),
}  # fmt: skip


@pytest.mark.parametrize("case", AROUND)
def test_what_a_pool_returned_has_the_names_of_the_layers_around_it(case):
    make, names, values = AROUND[case]
    model, x = nn.Sequential(make()).eval(), untied(2, 1, 8)
    plain = values(model(x))
    for name in names:
        y = masked(model, {name: MASK})(x)
        assert same(values(y), marked(plain, MASK)), name
    several = {name: some(2, 1, 4, 4, seed=n) for n, name in enumerate(names)}
    union = torch.stack(list(several.values())).any(0)
    assert same(values(masked(model, several)(x)), marked(plain, union))


def test_the_model_itself_returns_a_pool_or_an_unpool():
    x = untied(2, 1, 8)
    for model, names in ((nn.MaxPool2d(2), [":output", ":output.indices"]), (Down(lambda s, y, i: y), [":output"]),
                         (nn.Sequential(nn.MaxPool2d(2)), [":output", "0"])):  # fmt: skip
        for name in names:
            assert same(masked(model, {name: MASK})(x), marked(model(x), MASK))
    pair = masked(nn.MaxPool2d(2, return_indices=True), {":output.indices": MASK})(x)
    assert same(pair[0], marked(F.max_pool2d(x, 2), MASK)) and pair[1].dtype == torch.int64
    y, _, z = masked(Pair(), {":output.0": MASK, ":output.1": some(2, 1, 4, 4, seed=1)})(x)
    assert same(y, marked(F.max_pool2d(x, 2), MASK | some(2, 1, 4, 4, seed=1))) and not z.isnan().any()


def test_a_layer_around_is_masked_when_it_returns_and_its_calls_are_numbered():
    seen = []

    def forward(m, x):
        y = F.max_pool2d(x, 2)
        seen.append(y)
        return y

    block = Calling(forward)
    model = Calling(lambda m, x: (m.block(x), m.block(x)), block=block)
    first, second = masked(model, {"block:2": MASK})(untied(2, 1, 8))
    assert same(first, seen[0]) and same(second, marked(first, MASK)) and not seen[1].isnan().any()


ELSEWHERE = {
    "an elementwise copy": (lambda s, y, i: y + 0, "0", "'0', which has a mask: it is not what a max-pool"),
    "the input": (lambda s, y, i: (s, y), "0.0", r"'0\.0', which has a mask: it is not what a max-pool"),
    "nothing there": (lambda s, y, i: (s, y), "0.2", r"'0\.2', which has a mask: it is not what a max-pool"),
    "indices alone": (lambda s, y, i: (s, i), "0.1", "they are the indices of '0:max_pool2d'"),
}


@pytest.mark.parametrize("case", ELSEWHERE)
def test_a_layer_around_has_to_return_what_a_pool_returned(case):
    pack, name, sentence = ELSEWHERE[case]
    with pytest.raises(ConversionError, match=sentence):
        masked(nn.Sequential(Down(pack)), {name: MASK})(untied(2, 1, 8))


BOOL = torch.zeros(1, 4, 16, 16, dtype=torch.bool)
REFUSED = {
    "masks without the pooling": ({"pooling": "conservative", "masks": {"unpool": BOOL}}, "pooling='mask' where masks"),
    "masks without any pooling": ({"pooling": None, "masks": {}}, "pooling='mask' where masks are given, got"),
    "no masks": ({"masks": None}, "a mapping of names to bool tensors as masks for pooling='mask', got None"),
    "a list": ({"masks": [BOOL]}, "a mapping of names to bool tensors as masks for pooling='mask', got a list"),
    "an empty mapping": ({"masks": {}}, "at least one mask .* empty"),
    "the pooling": ({"pooling": "masks", "masks": {"unpool": BOOL}}, "did you mean 'mask'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_masks_and_their_pooling_come_together(case):
    options, sentence = REFUSED[case]
    with pytest.raises(InputError, match=sentence) as refusal:
        nanops.convert(Modules(), **{"pooling": "mask", **options})
    assert_one_sentence(refusal)


NAMES = {
    "a layer": ("unpol", "'unpol': the model has no layer 'unpol'; did you mean 'unpool'"),
    "a layer inside": ("outer.pol", r"no layer 'outer\.pol'; did you mean 'outer\.pool'"),
    "layers that are never called": ("outer", "the model has no layer 'outer'"),
    "a part of the output": (":output.y", r"the model has no layer '\.y'"),
    "a function's layer": ("outr:max_pool2d", "no layer 'outr'; did you mean 'outer'"),
    "a function": (":max_pol2d", "a call of 'max_pol2d'; did you mean 'max_pool2d'"),
    "another function": ("outer:conv2d", "got 'outer:conv2d', a call of 'conv2d'"),
    "adaptive": (":adaptive_max_pool2d", "a call of 'adaptive_max_pool2d'"),
    "another layer": ("conv", "max-pools and max-unpools, got 'conv', a Conv2d"),
    "an adaptive layer": ("outer.adaptive", r"got 'outer\.adaptive', a AdaptiveMaxPool2d"),
    "the function of a layer": ("pool:max_pool2d", "Expected 'pool' as the name of what a torch.nn.MaxPool2d returns"),
    "a part": ("pool.indces", r"'pool' or 'pool\.indices' .* got 'pool\.indces'; did you mean 'pool\.indices'"),
    "a part of two": ("pool.0", r"'pool' or 'pool\.indices' as the name of a mask, got 'pool\.0'"),
    "a part of a function": (":max_pool2d:2.indicies", r"did you mean ':max_pool2d:2\.indices'"),
    "an unpool's indices": ("unpool.indices", "Expected 'unpool' as the name of a mask"),
    "a function's indices": (":max_unpool2d.indices", "Expected ':max_unpool2d' as the name of a mask"),
    "nothing": ("", "the model has no layer ''"),
    "nothing numbered": (":2", "the model has no layer ':2'"),
    "the first": ("pool:1", "got 'pool:1'"),
    "a number in front": ("pool:02", "got 'pool:02'"),
    "two numbers": ("outer:max_pool2d:2:3", "the model has no layer 'outer:max_pool2d:2:3'"),
    "the output of a layer": ("outer:output", "a call of 'output'"),
    "another path": ("again", "layer 'again' is also 'pool', and its calls count under that name"),
    "no name": (3, "names as keys of masks, got 3"),
}


def assert_one_sentence(refusal):
    text = str(refusal.value)
    assert text[-1] in ".?" and text[-2] not in ".?" and ". " not in text


class Many(nn.Module):
    """Layers of all kinds."""

    def __init__(self):
        super().__init__()
        self.conv, self.pool, self.unpool = nn.Conv2d(1, 1, 3), nn.MaxPool2d(2), nn.MaxUnpool2d(2)
        self.outer = nn.ModuleDict({"pool": nn.MaxPool2d(2), "adaptive": nn.AdaptiveMaxPool2d(2)})
        self.again = self.pool


@pytest.mark.parametrize("case", NAMES)
def test_a_name_of_no_pool_is_refused_with_the_nearest_one(case):
    name, sentence = NAMES[case]
    with pytest.raises(InputError, match=sentence) as refusal:
        masked(Many(), {name: BOOL})
    assert_one_sentence(refusal)


NO_MASKS = {
    "numbers": (torch.zeros(1, 4, 16, 16), r"dense bool tensor as the mask of 'unpool', got a torch.strided of"),
    "bytes": (BOOL.byte(), "of torch.uint8"),
    "a list": ([True], "got a list"),
    "an array": (BOOL.numpy(), "got a ndarray"),
    "sparse": (BOOL.to_sparse(), "got a torch.sparse_coo of torch.bool"),
    "a shape alone": (BOOL.to("meta"), "dense bool tensor"),
}


@pytest.mark.parametrize("case", NO_MASKS)
def test_what_is_no_bool_tensor_is_refused(case):
    mask, sentence = NO_MASKS[case]
    with pytest.raises(InputError, match=sentence) as refusal:
        masked(Modules(), {"unpool": mask})
    assert_one_sentence(refusal)


SHAPES = {
    "another size": ((2, 4, 16, 15), r"\(2, 4, 16, 16\) or \(1, 4, 16, 16\), got \(2, 4, 16, 15\)"),
    "another batch": ((3, 4, 16, 16), r"got \(3, 4, 16, 16\)"),
    "one channel": ((2, 1, 16, 16), r"got \(2, 1, 16, 16\)"),
    "no batch": ((4, 16, 16), r"got \(4, 16, 16\)"),
    "no axes": ((), r"got \(\)"),
    "an axis more": ((1, 2, 4, 16, 16), r"got \(1, 2, 4, 16, 16\)"),
    "nothing": ((0, 4, 16, 16), r"got \(0, 4, 16, 16\)"),
}


@pytest.mark.parametrize("style", [Modules, Functional])
@pytest.mark.parametrize("case", SHAPES)
def test_a_mask_of_another_shape_is_refused(case, style):
    shape, sentence = SHAPES[case]
    name, layer = ("unpool", "layer 'unpool'") if style is Modules else (":max_unpool2d", "the model's own forward")
    converted = masked(seeded(style()), {name: torch.zeros(shape, dtype=torch.bool)})
    with pytest.raises(InputError, match=f"In {layer}: Expected the mask '{name}' in shape .*{sentence}") as refusal:
        converted(image())
    assert_one_sentence(refusal)


def test_masks_of_layers_that_stay_as_they_are_are_refused():
    for name, layers in (("pool", "unpool"), (":max_pool2d", "pool"), (":output", ["pool", "unpool"])):
        with pytest.raises(InputError, match=f"got '{name}', which `layers` leaves out"):
            masked(Modules(), {name: BOOL}, layers=layers)
    assert masked(seeded(Modules()), {"unpool": BOOL}, layers=["pool", "unpool"])(image()).isfinite().all()


def test_a_mask_whose_call_is_not_made_is_refused_at_the_end_of_the_forward():
    model = Calling(lambda m, x: m.pool(x) if x.sum() > 0 else m.other(x), pool=nn.MaxPool2d(2), other=nn.MaxPool2d(2))
    converted = masked(model, {"pool": some(1, 1, 4, 4)})
    ones = torch.ones(1, 1, 8, 8)
    with pytest.raises(ConversionError, match="'pool', which has a mask: no call of that name was made in this"):
        converted(-ones)
    assert converted(ones).isnan().any()
    near = Calling(lambda m, x: F.max_pool2d(x, 2))
    for name in (":max_pool2d:2", ":max_pool3d"):
        with pytest.raises(ConversionError, match="did you mean ':max_pool2d'") as refusal:
            masked(near, {name: BOOL})(ones)
        assert_one_sentence(refusal)


def test_what_goes_wrong_in_the_forward_is_said_first():
    model = nn.Sequential(Calling(lambda m, x: x.view(3)), nn.MaxPool2d(2))
    with pytest.raises(RuntimeError, match="invalid for input of size"):
        masked(model, {"1": BOOL})(untied(2, 1, 8))


def test_a_layer_by_itself_has_its_masks_unless_they_count_the_calls_of_the_model():
    block = Calling(lambda m, x: m.pool(x), pool=nn.MaxPool2d(1))
    model = Calling(lambda m, x: m.block(m.block(x)), block=block)
    x, mask = untied(1, 1, 4), some(1, 1, 4, 4)
    assert same(masked(model, {"block.pool": mask}).block(x), marked(x, mask))
    converted = masked(model, {"block.pool": mask, "block.pool:2": mask})
    assert same(converted(x), marked(x, mask))
    with pytest.raises(ConversionError, match=r"'block\.pool' in a forward of layer 'block' by itself"):
        converted.block(x)


def test_numbers_have_no_nan():
    with pytest.raises(InputError, match=r"floating-point values for the mask of '0', got torch\.int64"):
        masked(nn.Sequential(nn.MaxPool2d(1)), {"0": some(1, 1, 2, 2)})(torch.arange(4).reshape(1, 1, 2, 2))
