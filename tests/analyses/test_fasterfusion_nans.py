"""Do converted blocks take NaNs in every form, and do the forms agree where NaN is counted over both branches?"""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import nanops
from analyses.compress.fasterfusion import fold, fuse, place, pool_nans, reload
from analyses.models.fasterfusion import Block
from analyses.models.nnunet import PlainUNet
from mcaprobe.errors import InputError
from mcaprobe.recorder import record
from tests.analyses.fusion_blocks import apart, arrays, block, trained
from tests.reference import fasterfusion_twin as twin

FORMS = {"training": lambda made: made, "fused": fuse, "folded": fold}
TOLERANCE = nanops.Tolerance("absolute", 1e-9)  # far above the rounding of float64, by which forms differ


def with_nans(x: Tensor, rate: float, seed: int = 0) -> Tensor:
    """Return x with whole pixels of NaN and as many single ones."""
    random = torch.Generator().manual_seed(seed)
    pixels = torch.rand((x.shape[0], 1, *x.shape[2:]), generator=random) < rate / 2
    return x.masked_fill(pixels | (torch.rand(x.shape, generator=random) < rate / 2), torch.nan)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("threshold", [0.1, 0.5, 1.0])
@pytest.mark.parametrize(("dims", "ratio", "size"), [(2, 4, (5, 4)), (3, 2, (3, 3, 4)), (2, 1, (4, 5))])
@torch.no_grad()
def test_the_joint_rule_is_that_written_as_loops(
    form: str, threshold: float, dims: int, ratio: int, size: tuple[int, ...]
) -> None:
    made = block(dims, 6, 5, ratio)
    x = with_nans(torch.randn(2, 6, *size, dtype=torch.float64), 0.1)
    x[0, :, ..., :3] = torch.nan
    expected = torch.from_numpy(twin.block(x.numpy(), arrays(made), made.stride, threshold))
    assert 0 < expected.isnan().double().mean() < 1
    for convert in (lambda network: network, lambda network: nanops.convert(network, "aggressive", final="keep")):
        assert apart(convert(FORMS[form](pool_nans(made, threshold)))(x), expected) <= 1e-12


@given(
    st.sampled_from([2, 3]), st.integers(1, 12), st.integers(1, 12), st.integers(1, 4), st.floats(0.05, 1),
    st.floats(0.05, 0.9), st.integers(0, 999),
)  # fmt: skip
@settings(max_examples=30, deadline=None)
@torch.no_grad()
def test_with_the_joint_rule_all_forms_agree(
    dims: int, inputs: int, outputs: int, ratio: int, threshold: float, rate: float, seed: int
) -> None:
    made = pool_nans(block(dims, inputs, outputs, min(ratio, inputs, outputs), seed=seed), threshold)
    x = with_nans(torch.randn(1, inputs, *(5,) * dims, dtype=torch.float64), rate, seed)
    for form in ("fused", "folded"):
        assert apart(FORMS[form](made)(x), made(x)) <= 1e-11


@torch.no_grad()
def test_counted_by_each_convolution_the_forms_disagree() -> None:
    made = block(2, 8, 8)
    x = torch.randn(1, 8, 5, 5, dtype=torch.float64)
    x[0, :2] = torch.nan  # all that the spatial branch sees, a quarter of what the last convolution gets
    skipped = {form: nanops.convert(change(made), threshold=0.5, final="keep")(x)[..., 1:-1, 1:-1].isnan().all()
               for form, change in FORMS.items()}  # fmt: skip
    assert skipped == {"training": False, "fused": True, "folded": False}


@torch.no_grad()
def test_without_nan_the_joint_rule_changes_no_bit() -> None:
    made = block(3, 8, 8)
    x = torch.randn(1, 8, 3, 4, 5, dtype=torch.float64)
    assert torch.equal(pool_nans(made, 0.5)(x), made(x))


def test_gradients_of_the_joint_rule_are_those_of_the_filled_windows() -> None:
    made = pool_nans(block(2, 4, 4, 2), 0.3)
    x = with_nans(torch.randn(1, 4, 4, 4, dtype=torch.float64), 0.5)
    missing, at = x.isnan(), x.nan_to_num().requires_grad_()
    assert made(x).isnan().any()
    torch.autograd.gradcheck(lambda v: made(torch.where(missing, torch.nan, v)).nan_to_num(), at)
    made(torch.where(missing, torch.nan, at)).nan_to_num().sum().backward()
    assert bool((at.grad[missing] == 0).all())  # type: ignore[index]
    assert all(value.grad is not None and value.grad.isfinite().all() for value in made.parameters())


def flat(dims: int) -> Tensor:
    """Return an image (1, 1, 16, ...) that is 0 but for the corner of it."""
    x = torch.zeros(1, 1, *(16,) * dims, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    x[(..., *(slice(2, 8),) * dims)] = torch.rand((6,) * dims, generator=generator, dtype=torch.float64)
    return x


def network(dims: int) -> nn.Module:
    torch.manual_seed(0)
    return trained(place(PlainUNet(dims, 1, 3, (4, 8, 8)), 8)).double()


def rates_of(converted: nn.Module, x: Tensor) -> tuple[Tensor, dict[str, np.ndarray]]:
    """Return the output, and where each strided block's output is NaN."""
    found: dict[str, np.ndarray] = {}
    for path, module in converted.named_modules():
        if isinstance(module, Block) and max(module.stride) > 1:
            module.register_forward_hook(lambda _, __, y, path=path: found.update({path: y.isnan().numpy()}))
    return converted(x), found


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("form", FORMS)
@torch.no_grad()
def test_a_constant_background_makes_nans_in_the_pool_of_a_strided_block(dims: int, form: str) -> None:
    converted = nanops.convert(FORMS[form](network(dims)), "aggressive", tolerance=TOLERANCE)
    with nanops.count_skipped(converted) as skipped:
        y, nans = rates_of(converted, flat(dims))
    assert y.isfinite().all()
    assert 0.05 < nans["encoder.1.0"].mean() < 1
    layers = [name for name, layer in skipped.layers.items() if layer.skipped]
    assert "encoder.1.1.spatial" in layers and "encoder.1.1.pointwise" in layers


@pytest.mark.parametrize("form", FORMS)
@torch.no_grad()
def test_the_pool_of_a_strided_block_is_nan_where_its_window_ties(form: str) -> None:
    made = FORMS[form](block(2, 4, 4, 4, 2))
    before: list[Tensor] = []
    x = flat(2).repeat(1, 4, 1, 1)
    made.act.register_forward_hook(lambda _, __, y: before.append(y))
    made(x)
    values = before[0][0].numpy()
    expected = np.zeros((4, 8, 8), bool)
    for c, i, j in np.ndindex(4, 8, 8):
        window = values[c, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2]
        expected[c, i, j] = np.sum(np.abs(window - window.max()) <= 1e-9) > 1
    found = nanops.convert(made, "aggressive", tolerance=TOLERANCE, final="keep")(x)
    assert 0.2 < expected.mean() < 0.9
    assert np.array_equal(found[0].isnan().numpy(), expected)


@pytest.mark.parametrize("dims", [2, 3])
@torch.no_grad()
def test_with_the_joint_rule_whole_converted_networks_agree(dims: int) -> None:
    made = pool_nans(network(dims), 0.5)
    expected, nans = rates_of(nanops.convert(made, "aggressive", 0.5, tolerance=TOLERANCE), flat(dims))
    for form in (fuse(made), fold(made)):
        found, own = rates_of(nanops.convert(form, "aggressive", 0.5, tolerance=TOLERANCE), flat(dims))
        assert own.keys() == nans.keys() and len(nans) == 2
        assert all(np.array_equal(own[path], nans[path]) for path in nans)
        assert apart(found, expected) <= 1e-9
    plain = nanops.convert(fuse(network(dims)), "aggressive", 0.5, tolerance=TOLERANCE)
    assert apart(plain(flat(dims)), expected) > 1e-3


@pytest.mark.parametrize("joint", [None, 0.5], ids=["apart", "joint"])
def test_a_converted_network_trains_on_nans(joint: float | None) -> None:
    made = pool_nans(network(2), joint).train()
    converted = nanops.convert(made, "aggressive", tolerance=TOLERANCE)
    y, nans = rates_of(converted, flat(2))
    y.square().mean().backward()
    assert nans["encoder.1.0"].any()
    assert all(value.grad is not None and value.grad.isfinite().all() for value in made.parameters())


@torch.no_grad()
def test_a_block_makes_the_same_operations_whether_there_is_nan_or_not() -> None:
    """Under perturbation the NaNs of ties come and go, and a campaign compares its samples layer by layer."""
    joint, x = pool_nans(block(2, 8, 8), 0.5), torch.randn(1, 8, 6, 6, dtype=torch.float64)
    found = []
    for tensor in (x, with_nans(x, 0.4)):
        with record(joint) as layers:
            joint(tensor)
        found.append(list(layers))
    assert found[0] == found[1] and len(found[0]) > 5


@torch.no_grad()
def test_without_nan_the_joint_rule_changes_nothing_even_beside_an_infinity() -> None:
    made, x = block(2, 8, 8), torch.randn(1, 8, 6, 6, dtype=torch.float64)
    assert torch.equal(pool_nans(made, 0.5)(x), made(x))
    x[0, 3, 2, 2] = torch.inf
    torch.testing.assert_close(pool_nans(made, 0.5)(x), made(x), rtol=0, atol=0, equal_nan=True)
    assert 0 < made(x).isfinite().double().mean() < 1


@torch.no_grad()
def test_choosing_the_joint_rule_leaves_the_original_as_it_is() -> None:
    made = block(2, 8, 8)
    assert pool_nans(made, 0.5).nan_threshold == 0.5
    assert made.nan_threshold is None
    assert pool_nans(pool_nans(made, 0.5), None).nan_threshold is None


@pytest.mark.parametrize(
    "change",
    [place, fuse, fold, lambda n: pool_nans(n, 0.5), lambda n: reload(n, network(2).state_dict())],
    ids=["place", "fuse", "fold", "pool_nans", "reload"],
)
def test_a_converted_network_is_refused(change: Callable[[nn.Module], nn.Module]) -> None:
    with pytest.raises(InputError, match=r"Expected a PlainUNet before nanops.convert, got a converted one"):
        change(nanops.convert(network(2), "aggressive"))


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: pool_nans(block(2, 4, 4), 0.0), r"Expected a threshold in \(0, 1\] or None, got 0.0"),
        (lambda: pool_nans(block(2, 4, 4), 1.5), "got 1.5"),
        (lambda: pool_nans(PlainUNet(2, features=(4, 8)), 0.5), "got a PlainUNet without one"),
    ],
    ids=["none", "all", "no block"],
)
def test_what_makes_no_sense_is_named(make: object, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        make()  # type: ignore[operator]
