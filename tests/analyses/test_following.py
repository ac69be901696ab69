"""Are networks traced without a trace, and refused by the layer's name where channels cannot be followed?"""

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from analyses.compress.channels import Channels
from analyses.compress.prune import decide, prune
from analyses.compress.saved import counts
from analyses.compress.structure import follow
from analyses.compress.tracing import trace
from mcaprobe.errors import InputError
from tests.reference.silenced import silenced

X = torch.rand(2, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


class Between(nn.Module):
    """A convolution, what is to be followed, and a head; other layers by name."""

    def __init__(self, body: Callable[["Between", Tensor], Tensor], head: nn.Module | None = None, **layers: nn.Module):
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        for name, layer in layers.items():
            self.add_module(name, layer)
        self.head = head or nn.Conv2d(4, 2, 1)
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(self, self.first(x)))


def conv(*args: int, **options: int) -> nn.Conv2d:
    return nn.Conv2d(4, 4, 1, *args, **options)  # type: ignore[arg-type]


def tied() -> nn.Module:
    network = Between(lambda m, x: m.b(m.a(x)), a=conv(), b=conv())
    network.b.weight = network.a.weight
    return network


class Holder(nn.Module):
    """Parameters that are no layer's."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(shape))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight) if tuple(self.weight.shape) == (4, 4, 1, 1) else x * self.weight


REFUSED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "flatten into linear": (lambda: Between(lambda m, x: x.flatten(1), nn.Linear(256, 2)), "itself (flatten)"),
    "view into linear": (lambda: Between(lambda m, x: x.view(2, -1), nn.Linear(256, 2)), "itself (view)"),
    "a layer that flattens": (lambda: Between(lambda m, x: m.flat(x), nn.Linear(256, 2), flat=nn.Flatten()), "'flat'"),
    "channels by number": (lambda: Between(lambda m, x: x[:, :2], nn.Conv2d(2, 2, 1)), "itself (getitem)"),
    "one channel": (lambda: Between(lambda m, x: x[:, 1][:, None], nn.Conv2d(1, 2, 1)), "itself (getitem)"),
    "chunks of channels": (lambda: Between(lambda m, x: torch.chunk(x, 2, 1)[0], nn.Conv2d(2, 2, 1)), "itself (chunk)"),
    "a layer called twice": (lambda: Between(lambda m, x: m.a(m.a(x)), a=conv()), "'a' is called 2 times"),
    "a norm called twice": (lambda: Between(lambda m, x: m.a(m.a(x)), a=nn.BatchNorm2d(4)), "'a' is called 2 times"),
    "tied weights": (tied, "'b' has weight of 'a'"),
    "groups": (lambda: Between(lambda m, x: m.a(x), a=conv(groups=2)), "'a' with 2 groups of 4 channels"),
    "a layer never called": (lambda: Between(lambda m, x: x, a=conv()), "'a' is not"),
    "a branch on values": (lambda: Between(lambda m, x: x if x.sum() > 0 else -x), "branch that depends on values"),
    "a loop over samples": (lambda: Between(lambda m, x: torch.stack([2 * s for s in x])), "the parts of a tensor"),
    "a functional layer": (lambda: Between(lambda m, x: m.a(x), a=Holder(4, 4, 1, 1)), "'a' (conv2d)"),
    "numbers a channel": (lambda: Between(lambda m, x: m.a(x), a=Holder(1, 4, 1, 1)), "'a' (mul)"),
    "numbers a channel, no batch": (lambda: Between(lambda m, x: m.a(x), a=Holder(4, 1, 1)), "'a' (mul)"),
    "a computed weight": (
        lambda: Between(lambda m, x: m.a(x), a=nn.utils.parametrizations.weight_norm(conv())), "'a'"),
    "a layer's norm": (lambda: Between(lambda m, x: m.a(x), a=nn.LayerNorm([4, 8, 8])), "'a', which is a LayerNorm"),
    "attention": (
        lambda: Between(lambda m, x: m.a(*[x[:, :, 0]] * 3)[0][..., None], a=nn.MultiheadAttention(8, 2)),
        "'a', a MultiheadAttention",
    ),
    "shuffled pixels": (lambda: Between(lambda m, x: m.a(x), nn.Conv2d(1, 2, 1), a=nn.PixelShuffle(2)), "PixelShuffle"),
    "a softmax before a layer": (lambda: Between(lambda m, x: x.softmax(1)), "itself (softmax)"),
    "the largest channel": (lambda: Between(lambda m, x: x.max(1, True)[0], nn.Conv2d(1, 2, 1)), "itself (max)"),
    "a sum over channels": (lambda: Between(lambda m, x: x.sum(1, True), nn.Conv2d(1, 2, 1)), "itself (sum)"),
    "padded channels": (lambda: Between(lambda m, x: F.pad(x, (0, 0, 0, 0, 1, 0)), nn.Conv2d(5, 2, 1)), "(pad)"),
    "channels shifted": (lambda: Between(lambda m, x: F.pad(x, (0, 0, 0, 0, 1, -1))), "itself (pad)"),
    "channels moved": (lambda: Between(lambda m, x: x.transpose(1, 2).transpose(1, 2)), "itself (transpose)"),
    "padded by a layer": (
        lambda: Between(lambda m, x: m.a(x), nn.Conv2d(5, 2, 1), a=nn.ConstantPad3d((0, 0, 0, 0, 0, 1), 0.0)), "'a'"),
    "written by number": (lambda: Between(lambda m, x: _written(x)), "does not support item assignment"),
}  # fmt: skip


def _written(x: Tensor) -> Tensor:
    x[:, 0] = 0
    return x


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_followed_is_refused_by_name(name: str) -> None:
    build, words = REFUSED[name]
    network = build().double()
    network(X)
    with pytest.raises(InputError) as caught:
        follow(network, X)
    assert words in str(caught.value) and str(caught.value).startswith("Expected")


def test_an_input_without_a_batch_or_of_another_shape_is_refused() -> None:
    network = Between(lambda m, x: x).double()
    with pytest.raises(InputError, match=r"'first', which is given 3 axes and no batch"):
        follow(network, X[0])
    with pytest.raises(InputError, match=r"error in 'first': Given groups=1"):
        follow(network, X[:, :2])


def test_a_network_without_arguments_for_its_inputs_is_refused() -> None:
    with pytest.raises(InputError, match=r"can be traced, got an error in the network itself: .*argument"):
        follow(Between(lambda m, x: x), [X, X])


FOLLOWED: dict[str, Callable[[], nn.Module]] = {
    "a softmax behind the head": lambda: nn.Sequential(Between(lambda m, x: x), nn.Softmax(1)),
    "a flattened head": lambda: nn.Sequential(Between(lambda m, x: x), nn.Flatten()),
    "means into linear": lambda: Between(lambda m, x: x.mean((2, 3)), nn.Linear(4, 2)),
    "a number": lambda: Between(lambda m, x: m.a(2 * x + 1), a=Holder(1, 1)),
    "one number": lambda: Between(lambda m, x: m.a(x), a=Holder()),
    "functional layers": lambda: Between(lambda m, x: F.leaky_relu(F.max_pool2d(F.dropout(x, 0.5, False), 2))),
    "pools by name": lambda: Between(lambda m, x: F.adaptive_max_pool2d(F.avg_pool2d(x, 2), 2)),
    "values and places": lambda: Between(lambda m, x: F.max_unpool2d(*F.max_pool2d(x, 2, return_indices=True), 2)),
    "adaptive values and places": lambda: Between(lambda m, x: F.adaptive_max_pool2d(x, 2, return_indices=True)[0]),
    "cut edges": lambda: Between(lambda m, x: F.pad(x[:, :, 1:-1, 2:], (1, 1, 0, 2))),
    "concatenated space": lambda: Between(lambda m, x: torch.cat([m.a(x), x], 2), a=conv()),
    "concatenated samples": lambda: Between(lambda m, x: torch.cat((x, m.a(x))), a=conv()),
    "concatenated with itself": lambda: Between(lambda m, x: torch.cat([x, x], dim=-3), nn.Conv2d(8, 2, 1)),
    "the larger one": lambda: Between(lambda m, x: torch.max(m.a(x), x), a=conv()),
    "one channel for all": lambda: Between(lambda m, x: x * m.a(x).sigmoid(), a=nn.Conv2d(4, 1, 1)),
    "where": lambda: Between(lambda m, x: torch.where(x > 0, x, 0.1 * x)),
    "in place": lambda: Between(lambda m, x: m.a(x).relu_().add_(x), a=conv()),
    "an inner shape": lambda: Between(lambda m, x: F.interpolate(x, size=(x.shape[2] * 2, x.size(-1)), mode="bicubic")),
    "an activation called twice": lambda: Between(lambda m, x: m.act(m.a(m.act(x))), a=conv(), act=nn.PReLU()),
}  # fmt: skip


@pytest.mark.parametrize("name", FOLLOWED)
def test_what_can_be_followed_is_the_same_with_the_channel_forced_to_0(name: str) -> None:
    torch.manual_seed(1)
    network = FOLLOWED[name]().double().eval()
    first = "first" if hasattr(network, "first") else "0.first"
    removed = decide(follow(network, X), {first: [1, 3]}, rule="any")
    smaller = copy.deepcopy(network)
    prune(smaller, removed, X)
    # A head's bias sees to it that outputs differ; what lies between must give 0 for 0, but for "a number".
    if name == "a number":
        network.head.weight.data[:, [1, 3]] = 0  # type: ignore[union-attr,index]
    with torch.no_grad(), silenced(network, removed):
        expected = network(X)
    assert torch.allclose(smaller(X), expected, rtol=0, atol=1e-13)


def test_a_channel_added_to_the_input_or_given_out_never_goes() -> None:
    network = Between(lambda m, x: x, nn.Conv2d(4, 2, 1))
    residual = nn.Sequential(nn.Conv2d(3, 3, 1))
    assert follow(network, X.float()).prunable() == ("first",)

    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.head = residual, nn.Conv2d(3, 1, 1)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            y = self.inner(x)
            return self.head(y + x), y

    structure = follow(Residual(), X.float())
    assert structure.prunable() == ()
    with pytest.raises(InputError, match=r"channel 2 of 'inner.0', which is an input of the network"):
        prune(Residual(), {"inner.0": [2]}, X.float())


def test_a_lock_stays_where_classes_become_one() -> None:
    for one, other in ((0, 1), (1, 0)):
        channels = Channels()
        channels.new(2)
        channels.lock([one], "is needed")
        channels.join([one], [other])
        assert [channels.lock_of(i) for i in (0, 1)] == ["is needed"] * 2


def test_the_output_of_an_activation_called_twice_is_no_block_s() -> None:
    blocks = follow(FOLLOWED["an activation called twice"]().double(), X).blocks
    assert blocks == {"first": "first", "a": "a", "head": "head"}
    alone = Between(lambda m, x: m.act(m.norm(x)), norm=nn.BatchNorm2d(4), act=nn.PReLU()).double()
    assert follow(alone, X).blocks["first"] == "act"


def test_tracing_leaves_no_trace() -> None:
    network = nn.Sequential(
        Between(lambda m, x: m.norm(m.drop(x) * torch.ones(1)), norm=nn.BatchNorm2d(4), drop=nn.Dropout(0.5)),
        nn.BatchNorm2d(2).eval(),
    ).float()
    seen: list[str] = []
    network[0].first.register_forward_hook(lambda *_: seen.append("hook"))
    before, modes = copy.deepcopy(network.state_dict()), [m.training for m in network.modules()]
    attributes, state = set(vars(network)), torch.random.get_rng_state()
    trace(network, X.float())
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert [m.training for m in network.modules()] == modes and set(vars(network)) == attributes
    assert torch.equal(torch.random.get_rng_state(), state) and not seen


# Random networks: each operation takes the latest tensor of a list, some also an earlier one of the same size.
ACTIVATIONS: list[Callable[[], nn.Module]] = [nn.ReLU, nn.LeakyReLU, nn.Tanh, nn.Identity]
OPERATIONS = st.lists(
    st.tuples(st.sampled_from(["block", "add", "max", "cat", "depthwise", "pool", "unpool", "up", "stride", "groups"]),
              st.integers(0, 10**6)),
    min_size=2, max_size=10,
)  # fmt: skip


class Drawn(nn.Module):
    """A network from a list of operations, each with a number that its choices come from."""

    def __init__(self, program: list[tuple[str, int]]) -> None:
        super().__init__()
        self.steps: list[tuple[str, str, int]] = []
        self.ends: dict[str, str] = {}  # where the channels of a convolution are 0 for all that reads them
        tensors = [(2, 16, False)]  # channels, size, and whether this is the input
        pools: list[tuple[int, int]] = []
        self._unit(tensors, 5, 0)
        for what, number in program:
            channels, size, _ = tensors[-1]
            mates = [i for i, t in enumerate(tensors[:-1]) if t[1] == size and i]
            mate = mates[number % len(mates)] if mates else -1
            if what in ("block", "groups", "depthwise"):
                self._unit(tensors, 2 * (2 + number % 3), number, what)
            elif what in ("add", "max") and mate >= 0:
                if tensors[mate][0] != channels:
                    self._unit(tensors, tensors[mate][0], number)
                self._step(tensors, what, "", mate, tensors[-1][0], size)
            elif what == "cat" and mate >= 0:
                self._step(tensors, what, "", mate, channels + tensors[mate][0], size)
            elif what == "pool" and size > 2:
                self._step(tensors, what, self._add(nn.MaxPool2d(2, 2, return_indices=True)), -1, channels, size // 2)
                pools.append((channels, size))
            elif what == "stride" and size > 2:
                self._unit(tensors, 4, number, stride=2)
            elif what == "unpool" and pools and pools[-1][1] == 2 * size:
                wanted, _ = pools.pop()
                self._unit(tensors, wanted, number)
                self._step(tensors, what, self._add(nn.MaxUnpool2d(2, 2)), -1, wanted, 2 * size)
            elif what == "up" and size < 16:
                name = self._add(nn.ConvTranspose2d(channels, 3, 2, 2))
                self.ends[name] = name
                self._step(tensors, "layer", name, -1, 3, 2 * size)
        self.head = nn.Conv2d(tensors[-1][0], 2, 1)

    def _add(self, layer: nn.Module) -> str:
        name = f"layer{len(self._modules)}"
        self.add_module(name, layer)
        return name

    def _step(self, tensors: list[tuple[int, int, bool]], what: str, name: str, mate: int, out: int, size: int) -> None:
        self.steps.append((what, name, mate))
        tensors.append((out, size, False))

    def _unit(self, tensors: list[tuple[int, int, bool]], out: int, number: int, kind: str = "block",
              stride: int = 1) -> None:  # fmt: skip
        channels, size, _ = tensors[-1]
        if kind == "depthwise":
            out = channels * (1 + number % 2)
            layer = nn.Conv2d(channels, out, 3, stride, padding=1, groups=channels)
        else:
            layer = nn.Conv2d(channels, out, 3, stride, padding=1)
        grouped = kind == "groups"
        norms = [nn.BatchNorm2d(out), nn.InstanceNorm2d(out, affine=True), nn.GroupNorm(out, out), nn.Identity()]
        norm = nn.GroupNorm(out // 2, out) if grouped else norms[number % 4]
        if not isinstance(norm, nn.Identity):
            nn.init.normal_(norm.weight)  # type: ignore[arg-type]
            nn.init.normal_(norm.bias)  # type: ignore[arg-type]
        act = nn.PReLU(out) if number % 5 == 4 else ACTIVATIONS[number % 4]()
        names = [self._add(part) for part in (layer, norm, act)]
        self.ends[names[0]] = names[2]
        for name in names:
            self._step(tensors, "layer", name, -1, out, size // stride)
            # What lies inside a unit has no other reader.
            tensors[-1] = (out, 0, False) if name != names[2] else tensors[-1]

    def forward(self, x: Tensor) -> Tensor:
        tensors, indices = [x], []
        for what, name, mate in self.steps:
            latest = tensors[-1]
            if what == "layer":
                latest = getattr(self, name)(latest)
            elif what == "pool":
                latest, places = getattr(self, name)(latest)
                indices.append(places)
            elif what == "unpool":
                latest = getattr(self, name)(latest, indices.pop())
            elif what == "cat":
                latest = torch.cat([latest, tensors[mate]], 1)
            else:
                latest = latest + tensors[mate] if what == "add" else torch.maximum(latest, tensors[mate])
            tensors.append(latest)
        return self.head(tensors[-1])


@settings(max_examples=60, deadline=None)
@given(program=OPERATIONS, seed=st.integers(0, 1000), rule=st.sampled_from(["all", "majority", "any"]))
def test_any_network_computes_what_it_did_with_the_removed_channels_at_0(program: list[tuple[str, int]], seed: int,
                                                                         rule: str) -> None:  # fmt: skip
    torch.manual_seed(seed)
    network = Drawn(program).double().eval()
    x = torch.rand(2, 2, 16, 16, dtype=torch.float64)
    structure = follow(network, x)
    votes = {layer: [i for i in structure.free(layer) if torch.rand(()) < 0.4] for layer in structure.prunable()}
    removed = decide(structure, votes, rule=rule)
    with torch.no_grad(), silenced(network, {network.ends[layer]: c for layer, c in removed.items()}):
        expected = network(x)
    before = counts(network)
    with torch.no_grad():
        prune(network, removed, x)
        assert torch.allclose(network(x), expected, rtol=1e-11, atol=1e-11)
    assert all(numbers[k] <= before[n][k] for n, numbers in counts(network).items() for k in numbers)
    assert set(follow(network, x).outputs) == set(structure.outputs)
