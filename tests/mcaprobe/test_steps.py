"""Which decisions are recorded, under which names, with which values, and what do they leave undisturbed?"""

from contextlib import contextmanager

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mcaprobe import steps, verrou_worker
from mcaprobe.emulator import lockstep
from mcaprobe.errors import InputError
from mcaprobe.geometry import survey
from mcaprobe.lanes import LaneTensor, lanes_of
from mcaprobe.planning import look
from mcaprobe.recorder import record
from tests.mcaprobe import small_models as models
from tests.mcaprobe.packed_outputs import PACKED, image
from tests.mcaprobe.small_models import Model
from tests.reference import decision_twin as twin

OUTPUTS = {"alone": (lambda a, b: a, [""])} | PACKED


@pytest.mark.parametrize("mode", [torch.no_grad, torch.enable_grad, torch.inference_mode])
@pytest.mark.parametrize(("pack", "suffixes"), OUTPUTS.values(), ids=OUTPUTS)
def test_each_output_of_a_model_has_labels(pack, suffixes, mode):
    model = Model(lambda m, x: pack(x + 1, 2 - x))
    with record(model, ":output*") as layers, mode():
        model(image(2, 3, 4, 5))
    assert list(layers) == [name for suffix in suffixes for name in (f":output{suffix}", f":output{suffix}.labels")]
    for suffix, value in zip(suffixes, (image(2, 3, 4, 5) + 1, 2 - image(2, 3, 4, 5)), strict=False):
        found = layers[f":output{suffix}.labels"]
        assert torch.equal(found, twin.labels(value)) and found.dtype == torch.int64
        assert layers.steps[f":output{suffix}.labels"] == "labels" and not found.is_inference()


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((3, 4), (3,)), ((1, 2, 5), (1, 5)), ((1, 2, 3, 4, 5), (1, 3, 4, 5)), ((1, 1, 8, 8), None), ((7,), None),
     ((), None), ((0, 3), (0,)), ((2, 3, 0), (2, 0))],
    ids=str,
)  # fmt: skip
def test_outputs_of_two_channels_or_more_have_labels(shape, expected):
    model = Model(lambda m, x: x * 2)
    with record(model) as layers:
        model(torch.ones(shape))
    assert (tuple(layers[":output.labels"].shape) if ":output.labels" in layers else None) == expected


def test_integer_and_double_outputs():
    for dtype, expected in ((torch.float64, True), (torch.bfloat16, True), (torch.float16, True), (torch.int64, False)):
        model = Model(lambda m, x, dtype=dtype: ((x + 1) * 3).to(dtype) + 0)
        with record(model) as layers:
            model(image())
        assert (":output.labels" in layers) == expected


def test_the_first_of_equal_channels_wins_and_nan_wins_over_all():
    inf, nan = float("inf"), float("nan")
    ties = [(1.0, 1.0, 1.0), (0.0, -0.0, -1.0), (-inf, -inf, -inf), (1.0, 3.0, 3.0)]
    y = torch.tensor([*ties, (1.0, nan, inf), (nan, 2.0, nan)]).T[None]
    model = Model(lambda m, x: x + 0)
    with record(model) as layers:
        model(y)
    assert layers[":output.labels"].tolist() == [[0, 0, 0, 1, 1, 0]]
    assert torch.equal(layers[":output.labels"], twin.labels(y))


def test_an_output_that_is_a_layer_or_a_view_of_one_has_labels_and_an_input_has_none():
    conv = nn.Conv2d(2, 3, 1)
    for forward, aliases in (
        (lambda m, x: m.conv(x), {":output": "conv"}),
        (lambda m, x: m.conv(x).flatten(2), {}),
    ):
        model = Model(forward, conv=conv)
        with record(model) as layers, torch.no_grad():
            y = model(image())
        assert layers.aliases == aliases and torch.equal(layers[":output.labels"], y.argmax(1))
    model = Model(lambda m, x: (m.conv(x), x)[1], conv=conv)
    with record(model) as layers:
        model(image())
    assert list(layers) == ["conv"]


def test_one_output_in_two_places_has_its_labels_once():
    taken = []
    model = Model(lambda m, x: (y := x + 1, y))
    with record(model, sink=lambda name, operator, tensor: taken.append(name)) as layers:
        model(image())
    assert taken == [":add", ":output.0.labels"]
    assert layers.aliases == {":output.0": ":add", ":output.1": ":add", ":output.1.labels": ":output.0.labels"}


def test_labels_that_nobody_wants_are_not_taken(monkeypatch):
    def refuse(output):
        raise AssertionError("taken")

    monkeypatch.setattr(steps, "labels_of", refuse)
    model = Model(lambda m, x: x + 1)
    with record(model, [":add", ":output"]) as layers:
        model(image())
    assert list(layers) == [":add", ":output"]
    with pytest.raises(AssertionError, match="taken"), record(model, "*.labels"):
        model(image())


def test_a_glob_for_labels_that_are_not_there_gets_the_nearest_names():
    model = Model(lambda m, x: x + 1)
    nearest = pytest.raises(InputError, match=r"matches ':output.labels'; the nearest names are .*':output'")
    with nearest, record(model, ":output.labels"):
        model(image(1, 1, 4, 4))


CHOICES = {
    "torch.argmax": (lambda m, x: torch.argmax(x, 1), {":argmax": "argmax"}),
    "method": (lambda m, x: x.argmax(1), {":argmax": "argmax"}),
    "argmin of all": (lambda m, x: x.argmin(), {":argmin": "argmax"}),
    "max": (lambda m, x: x.max(1), {":max.indices": "argmax"}),
    "min by name": (lambda m, x: torch.min(x, dim=1).indices, {":min.indices": "argmax"}),
    "topk": (lambda m, x: torch.topk(x, 2, 1), {":topk.indices": "argmax"}),
    "max out=": (
        lambda m, x: torch.max(x, 1, out=(x.new_empty(0), x.new_empty(0).long())), {":max.indices": "argmax"},
    ),
    "twice": (lambda m, x: x.argmax(1) + (-x).argmax(1), {":argmax": "argmax", ":argmax:2": "argmax"}),
    "of a view": (lambda m, x: x[0, :, 1].argmax(0), {":argmax": "argmax"}),
    "values only": (lambda m, x: torch.maximum(x.max(), x.amax(1)), {}),
    "of integers": (lambda m, x: torch.arange(4).argmax(), {}),
    "sorting": (lambda m, x: x.argsort(1), {}),
    "comparing": (lambda m, x: x > 0, {}),
}  # fmt: skip


@pytest.mark.parametrize("lanes", [False, True], ids=["plain", "lanes"])
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize(("forward", "expected"), CHOICES.values(), ids=CHOICES)
def test_places_that_the_model_chose_are_recorded(forward, expected, mode, lanes):
    taken = {}
    model = Model(lambda m, x: (m.head(x), x + 1)[1], head=Model(forward))
    with record(model, sink=lambda name, operator, tensor: taken.update({name: tensor})) as layers, mode():
        model(LaneTensor([image() + k for k in range(3)]) if lanes else image())
    named = {f"head{name}": step for name, step in expected.items()}
    assert {k: v for k, v in layers.steps.items() if v != "labels"} == named
    assert {name for name, tensor in taken.items() if not tensor.is_floating_point()} == {*named, ":output.labels"}


def test_chosen_places_are_those_of_torch():
    model = Model(lambda m, x: (x.argmax(1), x.max(2).indices, x.topk(2, 1).indices))
    with record(model) as layers:
        outputs = model(image())
    for name, output in zip((":argmax", ":max.indices", ":topk.indices"), outputs, strict=True):
        assert torch.equal(layers[name], output)
    assert layers.aliases == {
        ":output.0": ":argmax", ":output.1": ":max.indices", ":output.2": ":topk.indices"
    }  # fmt: skip


def test_a_module_that_hands_on_what_a_call_inside_chose_can_be_recorded_by_its_own_name():
    model = Model(lambda m, x: m.head(x), head=Model(lambda m, x: x.argmax(1)))
    with record(model, "head") as layers:
        y = model(image())
    assert list(layers) == ["head"] and torch.equal(layers["head"], y)
    assert layers.steps == {"head": "argmax"} and layers.operators == {"head": "Model"}


UNPOOLINGS = {
    "module": (lambda m, v, i: m.unpool(v, i), "unpool.targets"),
    "module, by name": (lambda m, v, i: m.unpool(v, indices=i), "unpool.targets"),
    "functional": (lambda m, v, i: F.max_unpool2d(v, i, 2), ":max_unpool2d.targets"),
    "functional, by name": (lambda m, v, i: F.max_unpool2d(v, indices=i, kernel_size=2), ":max_unpool2d.targets"),
    "in a decoder": (lambda m, v, i: m.decoder((v, i)), "decoder:max_unpool2d.targets"),
}


def unpooling(run, change=lambda i: i):
    def forward(m, x):
        v, i = F.max_pool2d(x, 2, return_indices=True)
        return run(m, v, change(i))

    decoder = Model(lambda m, both: F.max_unpool2d(*both, 2))
    return Model(forward, unpool=nn.MaxUnpool2d(2), decoder=decoder)


@pytest.mark.parametrize(("run", "name"), UNPOOLINGS.values(), ids=UNPOOLINGS)
def test_the_targets_of_an_unpooling_are_the_indices_of_its_pooling(run, name):
    model = unpooling(run)
    with record(model) as layers:
        model(image())
    assert layers.aliases[name] == ":max_pool2d.indices" and name not in layers.steps
    assert layers[name] is layers[":max_pool2d.indices"]


@pytest.mark.parametrize(("run", "name"), UNPOOLINGS.values(), ids=UNPOOLINGS)
@pytest.mark.parametrize(
    "change", [lambda i: i.clone(), lambda i: i.flip(1), lambda i: i.add_(0)], ids=["clone", "flip", "in place"]
)
def test_targets_that_are_no_poolings_indices_as_they_are_are_a_layer_of_their_own(run, name, change):
    model = unpooling(run, change)
    with record(model) as layers:
        model(image())
    pooled = F.max_pool2d(image(), 2, return_indices=True)[1]
    assert name not in layers.aliases and layers.steps[name] == "unpool"
    assert torch.equal(layers[name], change(pooled.clone())) and layers[name].dtype == torch.int64


def test_targets_are_recorded_where_the_indices_are_not_wanted():
    model = unpooling(UNPOOLINGS["module"][0])
    with record(model, "*.targets") as layers:
        model(image())
    assert list(layers) == ["unpool.targets"] and layers.steps == {"unpool.targets": "unpool"}
    assert torch.equal(layers["unpool.targets"], F.max_pool2d(image(), 2, return_indices=True)[1])


def test_a_module_of_such_a_name_that_takes_no_positions_has_no_targets():
    class MaxUnpoolBlock(nn.Module):
        def forward(self, x, skip=None):
            return x + 1 if skip is None else x + skip

    model = Model(lambda m, x: m.up(m.up(x), x * 2), up=MaxUnpoolBlock())
    with record(model) as layers:
        model(image())
    assert not [name for name in layers if name.endswith(".targets")]


def test_bitmaps_of_ties_are_no_targets():
    """nanops unpools by them; the positions are not their values."""
    assert steps.targets_of("conservative_max_unpool2d", (image(), torch.ones(1).long(), 2), {}) is None
    assert steps.targets_of("max_unpool2d", (image(), torch.ones(1).long(), 2), {}) is not None


def test_an_unpooling_called_twice_has_targets_for_each_call():
    model = Model(lambda m, v, i: m.unpool(v, i) + m.unpool(v, i), unpool=nn.MaxUnpool2d(2))
    model.forward = lambda x: model.run(model, *F.max_pool2d(x, 2, return_indices=True))
    with record(model) as layers:
        model(image())
    assert {"unpool.targets", "unpool:2.targets"} <= set(layers.aliases)


@pytest.mark.parametrize("route", ["exact", "model"])
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_labels_of_a_lockstep_run_are_those_of_each_lane_and_no_operator_of_the_model(route, mode):
    model, taken = models.build_voting(), {}
    seen = record(model, sink=lambda name, operator, tensor: taken.update({name: tensor}))
    with mode(), lockstep([0, 1], threads=1, route=route) as block, seen:
        y = model(block.spread(models.image()))
    lanes = lanes_of(taken[":output.labels"])
    assert len(lanes) == 3
    for lane, output in zip(lanes, lanes_of(y), strict=True):
        assert type(lane) is torch.Tensor and torch.equal(lane, twin.labels(output))
    assert not torch.equal(lanes[0], lanes[1]) and not torch.equal(lanes[1], lanes[2])
    assert "argmax" not in block.operators


def test_the_emulator_takes_the_models_own_choices_as_exact():
    def forward(m, x):
        y = m.conv(x)
        return y.argmax(1), y.max(1).indices, y.topk(2, 1).indices, y.argmin(1)

    model = Model(forward, conv=nn.Conv2d(1, 3, 3))
    with torch.no_grad(), lockstep([0, 1], threads=1) as block, record(model) as layers:
        outputs = model(block.spread(models.image()))
    conv = lanes_of(layers["conv"])
    for lane in range(3):
        expected = (
            conv[lane].argmax(1), conv[lane].max(1).indices, conv[lane].topk(2, 1).indices, conv[lane].argmin(1)
        )  # fmt: skip
        assert all(torch.equal(lanes_of(o)[lane], e) for o, e in zip(outputs, expected, strict=True))
    assert {block.operators[name] for name in ("argmax", "max", "topk", "argmin")} == {"exact"}


def test_a_pause_holds_for_labels_and_the_sink_and_for_nothing_of_the_model(monkeypatch):
    paused, during = [False], {}

    @contextmanager
    def pause():
        paused[0] = True
        yield
        paused[0] = False

    def note(name):
        during.setdefault(name, []).append(paused[0])

    real = steps.labels_of
    monkeypatch.setattr(steps, "labels_of", lambda output: (note("argmax"), real(output))[1])
    model = Model(lambda m, x: (note("model"), x + 1, note("model"))[1])
    with record(model, sink=lambda name, operator, tensor: note("sink"), pause=pause):
        model(image())
    assert during == {"model": [False, False], "sink": [True, True], "argmax": [True]}


def test_labels_are_taken_while_verrou_perturbs_nothing(monkeypatch):
    switch, active = verrou_worker.Instrumentation(), []
    real = steps.labels_of
    monkeypatch.setattr(steps, "labels_of", lambda output: (active.append(switch.active), real(output))[1])
    fast = torch.backends.mha.get_fastpath_enabled()
    try:
        layers, recorded, y = verrou_worker.forward(models.build_voting(), models.image(), ["*"], 0, switch)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    assert active == [False] and not switch.active
    assert torch.equal(layers[":output.labels"], y.argmax(1)) and recorded.steps[":output.labels"] == "labels"


PLACES = {
    "slice": (nn.Conv2d(1, 2, 2, stride=2), (1, 1, 8, 6), ((2.0, 0.5), (2.0, 0.5)), (1, 4, 3)),
    "line": (nn.Conv1d(1, 3, 3), (1, 1, 9), ((1.0, 1.0),), (1, 7)),
    "volume": (nn.Conv3d(1, 2, 1), (1, 1, 3, 4, 5), ((1.0, 0.0),) * 3, (1, 3, 4, 5)),
}


@pytest.mark.parametrize(("conv", "shape", "grid", "expected"), PLACES.values(), ids=PLACES)
def test_labels_lie_where_their_output_lies(conv, shape, grid, expected):
    found = survey(Model(lambda m, x: m.conv(x), conv=conv), torch.rand(shape))
    info = found[":output.labels"]
    assert (info.grid, info.shape, info.spatial, info.step) == (grid, expected, True, "labels")
    assert info.dtype == torch.int64 and found["conv"].step is None


def test_labels_of_an_output_of_unknown_place_are_assumed_to_cover_the_input():
    model = Model(lambda m, x: torch.take_along_dim(x.repeat(1, 2, 1, 1) + 1, torch.zeros(1, 2, 8, 8).long(), 2))
    found = survey(model, torch.rand(1, 1, 8, 8))
    output = found.get(":output") or found[":take_along_dim"]
    assert output.assumed and found[":output.labels"].assumed
    assert found[":output.labels"].placed((8, 8)) == ((1.0, 0.0), (1.0, 0.0))


CHOSEN_PLACES = {
    "over channels": (lambda x: x.argmax(1), (True, ((2.0, 0.5), (2.0, 0.5)))),
    "over channels, kept": (lambda x: x.argmax(1, keepdim=True), (True, ((2.0, 0.5), (2.0, 0.5)))),
    "max": (lambda x: x.max(1).indices, (True, ((2.0, 0.5), (2.0, 0.5)))),
    "topk": (lambda x: x.topk(2, 1).indices, (True, ((2.0, 0.5), (2.0, 0.5)))),
    "over rows": (lambda x: x.argmax(2), (False, None)),
    "over all": (lambda x: x.argmax(), (False, None)),
    "best rows": (lambda x: x.topk(2, 2).indices, (True, None)),
    "lost": (lambda x: x[:, 0].roll(1, 1).argmax(0, keepdim=True), (False, None)),
}


@pytest.mark.parametrize(("choose", "expected"), CHOSEN_PLACES.values(), ids=CHOSEN_PLACES)
def test_choices_over_the_channels_lie_where_their_input_lies(choose, expected):
    model = Model(lambda m, x: choose(F.avg_pool2d(x, 2)))
    (info,) = (info for info in survey(model, torch.rand(1, 3, 8, 6)).values() if info.step == "argmax")
    assert (info.spatial, info.grid) == expected


def test_images_that_lost_their_channel_are_no_channels_of_labels():
    """(N, H, W), whose argmax over axis 1 is over rows."""
    found = survey(Model(lambda m, x: (x + 1)[:, 0] * 2), torch.rand(1, 2, 8, 6))
    assert found[":output.labels"].shape == (1, 6) and not found[":output.labels"].spatial


def test_the_predicted_memory_holds_the_labels_while_the_output_lives():
    model = Model(lambda m, x: x + 1)
    x = torch.rand(1, 2, 16, 16)
    output = x.numel() * 4
    assert look(model, x, ["*"]).live == output + 16 * 16 * 8
    assert look(model, x, [":add"]).live == output
    many = Model(lambda m, x: (x + 1, x + 2))
    assert look(many, x, ["*"]).live == 2 * output + 16 * 16 * 8  # one after the other


def test_a_model_that_puts_out_nothing_new_is_refused():
    with pytest.raises(InputError, match="computes something, got one whose calls put out nothing new"):
        look(nn.Identity(), torch.rand(1, 2, 4), ["*"])
