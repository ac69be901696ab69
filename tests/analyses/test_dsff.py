"""Do masks stay what they are to be, while a model trains, and after it was stopped and went on?"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Generator, Tensor, nn
from torch.optim import Optimizer

from analyses.compress.dsff import Exchange, Masks, Schedule, flip_rates
from analyses.compress.masked import exchanged, norms
from analyses.models.e2enet import FUSION, E2ENet
from analyses.models.nnunet import PlainUNet
from analyses.training.supervision import deep_supervision
from analyses.training.synthetic_heads import LEARNT, UNSEEN, Heads, load_heads
from mcaprobe.errors import InputError
from mcaprobe.storage import write_tensors
from tests.reference import dsff_twin

OPTIMIZERS: dict[str, Callable[[Any], Optimizer]] = {
    "SGD": lambda p: torch.optim.SGD(p, 0.05, momentum=0.9, nesterov=True, weight_decay=1e-2),
    "Adam": lambda p: torch.optim.Adam(p, 0.05, amsgrad=True),
    "AdamW": lambda p: torch.optim.AdamW(p, 0.05),
}


def seeded(seed: int = 0) -> Generator:
    return torch.Generator().manual_seed(seed)


def tiny() -> nn.Sequential:
    """Return a convolution, a transposed one, and a grouped one, of different sizes."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 5, 3, padding=1), nn.ReLU(), nn.ConvTranspose2d(5, 4, 2, 2), nn.Conv2d(4, 6, 3, groups=2)
    )


def masked(model: nn.Module, kind: str = "SGD", sparsity: float = 0.5, every: int = 2, **options: Any) -> Masks:
    return Masks(
        model, OPTIMIZERS[kind](model.parameters()), options.get("parameters", "*weight"), sparsity,
        Schedule(options.get("iterations", 20), every), seeded(options.get("seed", 0)),
    )  # fmt: skip


def train(model: nn.Module, masks: Masks, first: int, last: int) -> list[Exchange]:
    done = []
    for iteration in range(first, last + 1):
        x = torch.randn(2, 2, 6, 6, generator=seeded(iteration))
        masks.optimizer.zero_grad()
        model(x).square().mean().backward()
        masks.optimizer.step()
        done += masks.step(iteration)
    return done


def expect_zero_where_inactive(masks: Masks) -> None:
    for name, parameter in masks.parameters.items():
        state = [v for v in masks.optimizer.state[parameter].values() if v.shape == parameter.shape]
        assert state or not masks.optimizer.state[parameter]
        for tensor in (parameter.detach(), *state):
            inactive = tensor[~masks.masks[name]]
            assert (inactive == 0).all() and not inactive.signbit().any()


@settings(max_examples=30, deadline=None)
@given(kind=st.sampled_from(sorted(OPTIMIZERS)), sparsity=st.floats(0, 0.85), every=st.integers(1, 4),
       steps=st.integers(1, 9), seed=st.integers(0, 99))  # fmt: skip
def test_the_active_count_never_changes_and_inactive_weights_and_momentum_are_zero(
    kind: str, sparsity: float, every: int, steps: int, seed: int
) -> None:
    model = tiny()
    masks = masked(model, kind, sparsity, every, seed=seed)
    before = {name: mask.clone() for name, mask in masks.masks.items()}
    counts = {name: round((1 - sparsity) * p.shape[0] * p.shape[1]) for name, p in masks.parameters.items()}
    expect_zero_where_inactive(masks)
    for t in range(1, steps + 1):
        done = train(model, masks, t, t)
        assert {name: int(mask.sum()) for name, mask in masks.masks.items()} == counts
        expect_zero_where_inactive(masks)
        assert len(done) == (len(counts) if t % every == 0 else 0)
        for one in done:
            assert one.active == counts[one.layer] and one.iteration == t
            assert float((before[one.layer] != masks.masks[one.layer]).double().mean()) == one.flip_rate
        before = {name: mask.clone() for name, mask in masks.masks.items()}


@settings(max_examples=80, deadline=None)
@given(data=st.data(), rows=st.integers(1, 5), columns=st.integers(1, 5), t=st.integers(0, 12))
def test_an_exchange_is_that_of_the_twin_ties_included(data: Any, rows: int, columns: int, t: int) -> None:
    n = rows * columns
    bits = data.draw(st.lists(st.booleans(), min_size=n, max_size=n))
    values = data.draw(st.lists(st.lists(st.integers(-2, 2), min_size=3, max_size=3), min_size=n, max_size=n))
    mask, weight = torch.tensor(bits).view(rows, columns), torch.tensor(values).float().view(rows, columns, 3)
    off = n - sum(bits)
    order = torch.randperm(off, generator=seeded(7)).tolist()
    expected = dsff_twin.exchange(bits, values, t, 12, order)
    count = Schedule(12).count(t, sum(bits), off)
    assert exchanged(mask, norms("w", weight), count, seeded(7)).flatten().tolist() == expected


@pytest.mark.parametrize(("t", "share"), [(0, 0.5), (250, (2 + 2**0.5) / 8), (500, 0.25), (1000, 0.0)])
def test_the_rate_falls_as_a_cosine(t: int, share: float) -> None:
    assert Schedule(1000).rate(t) == pytest.approx(share, abs=1e-12)


@pytest.mark.parametrize(
    ("t", "active", "inactive", "count"),
    [(0, 10, 90, 5), (0, 11, 90, 6), (0, 10, 3, 3), (0, 10, 0, 0), (8, 8, 90, 1), (12, 10, 90, 0), (11, 10, 90, 1)],
    ids=["half", "rounded up", "few inactive", "dense", "a cosine of -1/2", "the end", "before the end"],
)
def test_as_many_are_exchanged_as_the_rate_says_and_as_there_are(
    t: int, active: int, inactive: int, count: int
) -> None:
    assert Schedule(12).count(t, active, inactive) == count


def test_the_weakest_go_and_new_ones_start_at_zero() -> None:
    model = nn.Conv2d(4, 5, 1, bias=False)
    masks = masked(model, every=1)
    with torch.no_grad():
        model.weight.copy_(torch.arange(1.0, 21).view(5, 4, 1, 1) * masks.masks["weight"][:, :, None, None])
    before, old = masks.masks["weight"].clone(), model.weight.detach().clone()[:, :, 0, 0]
    done = masks.update(0)
    assert [(one.active, one.exchanged, one.kernels, one.flip_rate) for one in done] == [(10, 5, 20, 0.5)]
    gone, new = before & ~masks.masks["weight"], ~before & masks.masks["weight"]
    assert int(gone.sum()) == int(new.sum()) == 5 and old[gone].max() < old[before & ~gone].min()
    now = model.weight.detach()[:, :, 0, 0]
    assert (now[new] == 0).all() and torch.equal(now[before & ~gone], old[before & ~gone])


def test_new_kernels_are_drawn_uniformly_among_the_inactive() -> None:
    mask = torch.zeros(4, 6, dtype=torch.bool)
    mask[0] = True
    strengths, generator = torch.zeros(4, 6), seeded()
    hits = sum(exchanged(mask, strengths, 3, generator).double() for _ in range(3000))
    assert (hits[0, :3] == 0).all() and (hits[0, 3:] == 3000).all()
    # 18 inactive kernels, 3 drawn: 500 hits each, standard deviation 20.4.
    assert ((hits[1:] - 500).abs() < 100).all()


def test_a_mask_stops_what_multiplication_would_not() -> None:
    model = nn.Conv2d(3, 4, 3)
    masks = masked(model, "SGD")
    momentum = torch.zeros_like(model.weight)
    masks.optimizer.state[model.weight]["momentum_buffer"] = momentum
    for tensor in (model.weight.data, momentum):
        tensor[~masks.masks["weight"]] = float("inf")
    masks.apply()
    expect_zero_where_inactive(masks)


def test_other_parameters_are_left_alone() -> None:
    model = tiny()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    masks = masked(model, parameters=lambda name, p: p.dim() == 4 and name.startswith("2"))
    assert list(masks.parameters) == ["2.weight"] and masks.masks["2.weight"].shape == (5, 4)
    changed = [name for name, p in model.named_parameters() if not torch.equal(p, before[name])]
    assert changed == ["2.weight"]


@pytest.mark.parametrize("kind", sorted(OPTIMIZERS))
def test_a_training_that_is_resumed_has_the_same_bits(kind: str, tmp_path: Path) -> None:
    whole = tiny()
    masks = masked(whole, kind)
    done = train(whole, masks, 1, 9)
    first = tiny()
    half = masked(first, kind)
    assert train(first, half, 1, 5) == done[:6]
    half.save(tmp_path / "masks.safetensors")
    second = tiny()
    rest = masked(second, kind, seed=5)
    second.load_state_dict(first.state_dict())
    rest.optimizer.load_state_dict(half.optimizer.state_dict())
    rest.load(tmp_path / "masks.safetensors")
    assert train(second, rest, 6, 9) == done[6:]
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), second.parameters(), strict=True))
    assert flip_rates(masks.masks, rest.masks) == dict.fromkeys(masks.masks, 0.0)
    for a, b in zip(whole.parameters(), second.parameters(), strict=True):
        mine, theirs = masks.optimizer.state[a], rest.optimizer.state[b]
        assert mine.keys() == theirs.keys() and all(torch.equal(mine[k], theirs[k]) for k in mine)


def test_a_state_is_a_copy() -> None:
    model = tiny()
    masks = masked(model, every=1)
    state = masks.state_dict()
    before = {name: mask.clone() for name, mask in state["masks"].items()}
    train(model, masks, 1, 3)
    assert all(torch.equal(mask, before[name]) for name, mask in state["masks"].items())
    assert any(flip_rates(before, masks.masks).values())


def test_flip_rates_are_the_share_of_bits_that_differ() -> None:
    first = {"a": torch.tensor([[True, False], [False, False]]), "b": torch.ones(1, 2, dtype=torch.bool)}
    second = {"a": torch.tensor([[False, True], [False, False]]), "b": torch.ones(1, 2, dtype=torch.bool)}
    assert flip_rates(first, second) == {"a": 0.5, "b": 0.0}
    with pytest.raises(InputError, match="'b' on one side only"):
        flip_rates(first, {"a": second["a"]})
    with pytest.raises(InputError, match=r"'b', got \(1, 2\) and \(2, 1\)"):
        flip_rates(first, {**second, "b": torch.ones(2, 1, dtype=torch.bool)})


def change_mask(name: str, mask: Tensor) -> Callable[[dict[str, Any]], None]:
    return lambda state: state["masks"].__setitem__(name, mask)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: s["masks"].pop("2.weight"), "none of '2.weight' in the file"),
        (change_mask("2.weigth", torch.ones(5, 4)), "none of '2.weigth' in the model; did you mean '2.weight'"),
        (change_mask("2.weight", torch.ones(4, 5) > 0), r"'2.weight' of torch.bool \(5, 4\) with 10 active"),
        (change_mask("2.weight", torch.ones(5, 4) > 0), "got torch.bool .* with 20 active"),
        (change_mask("2.weight", torch.ones(5, 4)), "got torch.float32"),
        (lambda s: s.update(sparsity=0.6), "masks of sparsity 0.5, got 0.6"),
        (lambda s: s["schedule"].update(every=7), "schedule .*'every': 2.* got .*'every': 7"),
        (lambda s: s.pop("generator."), "with 'generator.', got only 'masks'"),
    ],
)
def test_masks_of_another_model_are_refused_and_change_nothing(
    change: Callable[[dict[str, Any]], Any], words: str
) -> None:
    model = tiny()
    masks = masked(model)
    before, state = masks.state_dict(), masked(tiny(), seed=3).state_dict()
    change(state)
    with pytest.raises(InputError, match=words):
        masks.load_state_dict(state)
    assert torch.equal(masks.generator.get_state(), before["generator."])
    assert flip_rates(masks.masks, before["masks"]) == dict.fromkeys(before["masks"], 0.0)


def test_a_file_of_another_model_or_of_something_else_is_refused(tmp_path: Path) -> None:
    masked(nn.Sequential(nn.Conv2d(2, 5, 3))).save(tmp_path / "other.safetensors")
    with pytest.raises(InputError, match=r"none of '2.weight' in the file"):
        masked(tiny()).load(tmp_path / "other.safetensors")
    write_tensors(tmp_path / "weights.safetensors", tiny().state_dict())
    with pytest.raises(InputError, match=r"weights.safetensors without their settings"):
        masked(tiny()).load(tmp_path / "weights.safetensors")
    write_tensors(tmp_path / "part.safetensors", tiny().state_dict(), {"dsff": "{}"})
    with pytest.raises(InputError, match="without the state of their generator"):
        masked(tiny()).load(tmp_path / "part.safetensors")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"parameters": "3.wieght"}, "got '3.wieght'; did you mean '3.weight'"),
        ({"parameters": ["0.*"]}, r"input and an output axis, got '0.bias' of shape \(5,\)"),
        ({"parameters": lambda name, p: False}, "takes none"),
        ({"sparsity": 1.0}, r"in \[0, 1\), got 1.0"),
        ({"sparsity": -0.1}, "got -0.1"),
        ({"sparsity": float("nan")}, "got nan"),
        ({"sparsity": 0.96}, "a kernel of '0.weight', got 0.96 of 10 kernels"),
        ({"every": 0}, "every of 1 or more"),
    ],
)
def test_masks_that_make_no_sense_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        masked(tiny(), **options)


def test_an_optimizer_of_other_parameters_is_refused() -> None:
    with pytest.raises(InputError, match=r"without '0.weight'"):
        Masks(tiny(), OPTIMIZERS["SGD"](tiny().parameters()), "*weight", 0.5, Schedule(9), seeded())


@pytest.mark.parametrize("t", [-1, 21])
def test_an_iteration_outside_the_schedule_is_refused(t: int) -> None:
    with pytest.raises(InputError, match=f"from 0 to 20, got {t}"):
        masked(tiny()).update(t)


def test_weights_that_are_no_numbers_have_no_rank_and_nothing_changes() -> None:
    model = tiny()
    masks = masked(model)
    before = masks.state_dict()
    with torch.no_grad():
        model[3].weight[masks.masks["3.weight"].nonzero()[0].tolist()[0]] = float("nan")
    with pytest.raises(InputError, match=r"finite weights in '3.weight', got 2 kernels with NaN"):
        masks.update(1)
    assert flip_rates(masks.masks, before["masks"]) == dict.fromkeys(before["masks"], 0.0)
    assert torch.equal(masks.generator.get_state(), before["generator."])


HEADS = Heads(inner=(0.5, 0.6), intensities=(0.5, 1.0, 1.0))


def nested(which: int, count: int) -> tuple[Tensor, Tensor]:
    """Return volumes (count, 1, 24, 24, 24) of an ellipsoid in another one, and their three classes."""
    x, classes = load_heads(HEADS, which, count)
    return x, classes.clamp(max=2)  # the spheres are as bright as the inner ellipsoid, and part of it


def test_a_sparse_network_of_three_levels_learns_heads_in_seconds() -> None:
    torch.manual_seed(0)
    network = E2ENet(1, 3, (12, 24, 48), heads=2)
    optimizer = torch.optim.Adam(network.parameters(), 0.01)
    masks = Masks(network, optimizer, FUSION, 0.8, Schedule(40, 8), seeded())
    x, classes = nested(LEARNT, 12)
    for t in range(1, 41):
        batch = slice(t % 12, t % 12 + 1)
        optimizer.zero_grad()
        deep_supervision(F.cross_entropy, network(x[batch]), classes[batch]).backward()
        optimizer.step()
        masks.step(t)
    expect_zero_where_inactive(masks)
    x, classes = nested(UNSEEN, 2)
    with torch.inference_mode():
        found = network.eval()(x).argmax(1)
    for k in (1, 2):
        mine, theirs = found == k, classes == k
        assert 2 * float((mine & theirs).sum()) / float(mine.sum() + theirs.sum()) > 0.9


def test_a_plain_unet_of_slices_trains_with_masks() -> None:
    torch.manual_seed(0)
    network = PlainUNet(2, 1, 3, (6, 8, 10))
    optimizer = torch.optim.Adam(network.parameters(), 0.03)
    globs = ("decoder.*.conv.weight", "up.*.weight")
    masks = Masks(network, optimizer, globs, 0.7, Schedule(30, 5), seeded())
    assert list(masks.masks)[:2] == ["decoder.0.0.conv.weight", "decoder.0.1.conv.weight"]
    assert masks.densities() == {name: pytest.approx(0.3, abs=0.01) for name in masks.masks}
    x, classes = nested(LEARNT, 2)
    slices, target = x[:, 0].flatten(0, 1)[:, None], classes.flatten(0, 1)
    losses = []
    for t in range(1, 31):
        optimizer.zero_grad()
        loss = F.cross_entropy(network(slices), target)
        loss.backward()
        optimizer.step()
        masks.step(t)
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] / 4
    expect_zero_where_inactive(masks)
