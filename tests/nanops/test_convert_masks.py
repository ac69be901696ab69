"""With masks NaN is where they say, at the outputs of pools and unpools, and all else is torch's own."""

import copy
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import nanops
from nanops import ConversionError, InputError
from nanops.conversion import mode
from nanops.functional.convolution import nan_conv2d
from nanops.kernels.convolution import Job
from tests.nanops.convolutions import needs_kernels
from tests.nanops.images import DTYPES, FORMATS, same_bits
from tests.nanops.masked_nets import POOL, Calling, FunctionalPair, Levels, Pair, marked, masked, some
from tests.nanops.nets import Functional, Modules, Torch, image, seeded, untied
from tests.nanops.pooling_cases import cases, numbers, same
from tests.reference import masked_pooling_twin as twin

PAIRS = [Pair, FunctionalPair]
STYLES = {Modules: ("pool", "unpool"), Functional: (":max_pool2d", ":max_unpool2d"),
          Torch: (":max_pool2d", ":max_unpool2d")}  # fmt: skip


@settings(max_examples=80, deadline=None)
@given(found=cases(), batch=st.integers(1, 3), shared=st.booleans(), seed=st.integers(0, 99),
       nans=st.sampled_from([0.0, 0.2, 0.9]), rate=st.sampled_from([0.0, 0.3, 1.0]), indices=st.booleans())  # fmt: skip
def test_a_masked_pool_is_that_of_the_loops(found, batch, shared, seed, nans, rate, indices):
    module = POOL[found.dims](*found.sizes[:4], return_indices=indices, ceil_mode=found.ceil_mode)
    x = numbers((batch, 2, *found.size), seed, nans=nans)
    counts = POOL[found.dims](*found.sizes[:4], ceil_mode=found.ceil_mode)(x.nan_to_num()).shape[2:]
    mask = some(1 if shared else batch, 2, *counts, seed=seed, rate=rate)
    y = masked(nn.ModuleDict({"pool": module}), {"pool": mask}).pool(x)
    values, at = y if indices else (y, None)
    for n, c in np.ndindex(batch, 2):
        marks = mask[0 if shared else n, c].numpy()
        for place, (value, index) in twin.pool(x[n, c].double().numpy(), marks, *found.sizes).items():
            np.testing.assert_equal(values[n, c][place].item(), value)
            assert at is None or index is None or at[n, c][place].item() == index


@settings(max_examples=60, deadline=None)
@given(dims=st.integers(1, 3), kernel=st.integers(1, 3), batch=st.integers(1, 3), shared=st.booleans(),
       seed=st.integers(0, 99), rates=st.tuples(*[st.sampled_from([0.0, 0.3, 1.0])] * 2),
       extra=st.integers(0, 2), style=st.sampled_from(PAIRS))  # fmt: skip
def test_a_masked_pair_is_that_of_the_loops(dims, kernel, batch, shared, seed, rates, extra, style):
    size = (2 * kernel + min(extra, kernel - 1),) * dims
    x = numbers((batch, 2, *size), seed, nans=0)
    lead = (1 if shared else batch, 2)
    model = style(dims, kernel)
    over_windows, over_image = some(*lead, *(2,) * dims, seed=seed, rate=rates[0]), some(*lead, *size, rate=rates[1])
    y, at, z = masked(model, dict(zip(model.names, (over_windows, over_image), strict=True)))(x)
    for n, c in np.ndindex(batch, 2):
        m = 0 if shared else n
        pooled = twin.pool(x[n, c].numpy(), over_windows[m, c].numpy(), *((k,) * dims for k in (kernel, kernel, 0, 1)))
        values = np.array([v for v, _ in pooled.values()]).reshape((2,) * dims)
        indices = np.array([i for _, i in pooled.values()]).reshape((2,) * dims)
        np.testing.assert_array_equal(y[n, c].numpy(), values)
        np.testing.assert_array_equal(at[n, c].numpy(), indices)
        expected = twin.unpool(values, indices, over_image[m, c].numpy(), size)
        np.testing.assert_array_equal(z[n, c].numpy(), expected)


TABLE = [(dims, dtype, layout) for dims in (1, 2, 3) for dtype in DTYPES for layout in FORMATS[dims + 2]]


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.inference_mode])
@pytest.mark.parametrize("style", PAIRS)
@pytest.mark.parametrize(("dims", "dtype", "layout"), TABLE)
def test_nan_is_where_the_masks_are_and_all_else_is_torchs_own(dims, dtype, layout, style, mode):
    x = numbers((2, 3, *(6,) * dims), 1, nans=0, dtype=dtype).contiguous(memory_format=layout)
    model = style(dims)
    over_windows, over_image = some(2, 3, *(3,) * dims), some(2, 3, *(6,) * dims, seed=1)
    before = [t.clone() for t in (x, over_windows, over_image)]
    with mode():
        y, indices, z = masked(model, dict(zip(model.names, (over_windows, over_image), strict=True)))(x)
        values, at, plain = model(x)
    assert same(y, marked(values, over_windows)) and torch.equal(indices, at)
    # A NaN of the pool is copied to the place of its maximum.
    copied = torch.zeros_like(over_image).flatten(2).scatter(2, at.flatten(2), over_windows.flatten(2)).view_as(z)
    assert same(z, marked(plain, over_image | copied))
    assert y.stride() == values.stride() and z.stride() == plain.stride()
    assert all(same(t, old) for t, old in zip((x, over_windows, over_image), before, strict=True))


@pytest.mark.parametrize("style", PAIRS)
def test_samples_have_their_own_masks_or_share_one(style):
    x, model = untied(2, 3, 8), style()
    each = some(2, 3, 4, 4)
    own, shared = (masked(model, {model.names[0]: m})(x)[0] for m in (each, each[:1]))
    values, _ = F.max_pool2d(x, 2, return_indices=True)
    assert same(own, marked(values, each)) and same(shared, marked(values, each[:1].expand(2, 3, 4, 4)))
    assert not same(own, shared)


def test_an_image_without_a_batch_has_a_mask_without_one():
    x, model, mask = untied(1, 3, 8)[0], Pair(), some(3, 8, 8)
    *_, z = masked(model, {"unpool": mask})(x)
    assert same(z, marked(model(x)[2], mask))
    for wrong in (mask[:1], mask[None]):
        with pytest.raises(InputError, match=r"mask 'unpool' in shape \(3, 8, 8\), got"):
            masked(model, {"unpool": wrong})(x)


def test_a_mask_follows_the_device_of_the_input(monkeypatch):
    moves, own = [], torch.Tensor.to
    monkeypatch.setattr(torch.Tensor, "to", lambda t, *to: moves.append((t.dtype, *to)) or own(t, *to))
    converted = masked(nn.Sequential(nn.MaxPool2d(2)), {"0": some(1, 3, 4, 4)})
    y = converted(torch.empty(2, 3, 8, 8, device="meta"))
    assert y.is_meta and y.shape == (2, 3, 4, 4) and (torch.bool, torch.device("meta")) in moves
    assert converted(untied(2, 3, 8)).isnan().any()


def test_masks_of_values_and_of_indices_hold_together():
    x, model, first, second = untied(2, 3, 8), Pair(), some(2, 3, 4, 4), some(1, 3, 4, 4, seed=1)
    y = masked(model, {"pool": first, "pool.indices": second})(x)[0]
    assert same(y, marked(model(x)[0], first | second))
    assert same(masked(model, {"pool.indices": second})(x)[0], marked(model(x)[0], second.expand_as(first)))


def test_windows_are_masked_where_no_indices_are_asked_for():
    x, mask = untied(2, 3, 8), some(2, 3, 4, 4)
    model = nn.Sequential(nn.MaxPool2d(2))
    for name in ("0", "0.indices"):
        assert same(masked(model, {name: mask})(x), marked(model(x), mask))


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("channels_last", [False, True])
def test_empty_masks_give_the_bits_of_no_pooling_nan(style, channels_last):
    model = seeded(style())
    pool, unpool = STYLES[style]
    masks = {pool: torch.zeros(1, 4, 8, 8, dtype=torch.bool), unpool: torch.zeros(1, 4, 16, 16, dtype=torch.bool)}
    for x in (image(), untied(), image().index_fill_(2, torch.tensor([5]), torch.nan)):
        x = x.contiguous(memory_format=torch.channels_last) if channels_last else x
        with torch.inference_mode():
            y, plain = masked(model, masks)(x), nanops.convert(model, None, final="keep")(x)
        assert same(y, plain) and y.stride() == plain.stride()


def nans_at_unpools(model, x, **options):
    """Return by name where the unpools of a conservative conversion are NaN, and its output; its pools are nowhere."""
    conservative, found, pooled = nanops.convert(model, **options), [], []
    conservative.unpool.register_forward_hook(lambda module, args, output: found.append(output.isnan()))
    conservative.pool.register_forward_hook(lambda module, args, output: pooled.append(output[0].isnan().any()))
    y = conservative(x)
    assert pooled and not any(pooled)
    return {f"unpool:{n}" if n > 1 else "unpool": nans for n, nans in enumerate(found, 1)}, y


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("threshold", [0.3, 0.5, 1.0])
@pytest.mark.parametrize("network", [Modules, Functional, Levels])
def test_masks_of_conservative_nans_give_the_bits_of_the_conservative_conversion(network, threshold, channels_last):
    x = image(2, size=32).contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
    model = seeded(Levels() if network is Levels else Modules())
    with torch.inference_mode():
        masks, expected = nans_at_unpools(model, x, threshold=threshold, final="keep")
        assert all(0 < m.sum() < m.numel() for m in masks.values()) and len(masks) == (2 if network is Levels else 1)
        if network is Functional:
            model, masks = seeded(Functional()), {":max_unpool2d": masks["unpool"]}
        y = masked(model, masks, threshold=threshold)(x)
    assert same(y, expected) and 0 < y.isnan().sum() < y.numel()


def test_calls_of_one_name_are_told_apart_by_their_number():
    block = Calling(lambda m, x: F.max_pool2d(F.max_pool2d(x, 1), 1))
    model = Calling(lambda m, x: m.pool(m.pool(m.block(m.block(F.max_pool2d(x, 1))))), block=block,
                    pool=nn.MaxPool2d(1))  # fmt: skip
    x = untied(1, 1, 4)
    names = [":max_pool2d", "block:max_pool2d", "block:max_pool2d:2", "block:max_pool2d:3", "block:max_pool2d:4",
             "pool", "pool:2"]  # fmt: skip
    masks = {}
    for n, name in enumerate(names):
        masks[name] = torch.zeros(1, 1, 4, 4, dtype=torch.bool)
        masks[name].view(-1)[n] = True
    converted = masked(model, masks)
    for _ in range(2):  # each forward counts from 1
        assert converted(x).isnan().flatten().nonzero().flatten().tolist() == list(range(7))
    assert masked(model, {"block:max_pool2d:3": masks["pool"]})(x).isnan().sum() == 1
    with pytest.raises(ConversionError, match="'pool:3', which has a mask: no call of that name was made"):
        masked(model, {"pool:3": masks["pool"]})(x)


def test_pools_inside_hooks_are_no_calls_of_the_model():
    model = Calling(lambda m, x: F.max_pool2d(m.pool(x), 1), pool=nn.MaxPool2d(2))
    mask, seen = some(1, 1, 4, 4), []
    model.pool.register_forward_hook(lambda module, args, output: seen.append(F.max_pool2d(output, 1)))
    y = masked(model, {":max_pool2d": mask})(untied(1, 1, 8))
    assert same(y, marked(seen[0], mask)) and not seen[0].isnan().any()
    block = Calling(lambda m, x: F.max_pool2d(x, 1))
    converted = masked(Calling(lambda m, x: m.block(m.pool(x)), pool=nn.MaxPool2d(2), block=block), {"block": mask})
    converted.pool.register_forward_hook(lambda module, args, output: seen.append(converted.block(output)))
    assert same(converted(untied(1, 1, 8)), marked(seen[-1], mask)) and not seen[-1].isnan().any()


def test_convolutions_behind_skip_and_are_counted():
    model, mask = seeded(Modules()), some(1, 4, 16, 16, rate=0.6)
    converted = masked(model, {"unpool": mask}, threshold=0.5)
    with torch.inference_mode(), nanops.count_skipped(converted) as skipped:
        y = converted(image())
    with torch.no_grad():
        z, indices = model.pool(torch.relu(model.norm(model.conv1(image()))))
        z = marked(model.unpool(model.middle(z), indices), mask)
        expected, where = nan_conv2d(z, model.conv2.weight, model.conv2.bias, padding=1, threshold=0.5,
                                     return_skipped=True)  # fmt: skip
    assert same_bits(y, expected)
    assert 0 < skipped.layers["conv2"].skipped == int(where.sum()) < skipped.layers["conv2"].windows
    assert skipped.layers["conv1"].skipped == skipped.layers["middle"].skipped == 0
    assert nanops.restore(converted) is model


@needs_kernels
@pytest.mark.parametrize("uniform", [False, True])
def test_layers_behind_wait_for_each_other_as_in_any_conversion(monkeypatch, uniform):
    calls, own = [], Job.convolve
    monkeypatch.setattr(Job, "convolve", lambda self, *args, **kwargs: calls.append(args) or own(self, *args, **kwargs))
    model, x = seeded(Levels()).to(memory_format=torch.channels_last), untied(2, 1, 16)
    masks = {"pool": some(2, 8, 8, 8, rate=0.8), "unpool:2": some(2, 8, 16, 16, rate=0.8)}
    converted = masked(model, masks, uniform=uniform)
    with torch.inference_mode():
        together = converted(x)
        around = [args[2] for args in calls if len(args) > 2]
        with nanops.count_skipped(converted):  # whoever counts makes every layer run by itself
            apart = converted(x)
    assert any(a.norm is not None and a.other is not None for a in around)
    np.testing.assert_allclose(together.numpy(), apart.numpy(), rtol=1e-5, atol=1e-5)
    assert together.isnan().any()


def test_no_gradient_passes_a_mask():
    model, mask = seeded(Modules()), some(2, 4, 8, 8)
    converted, x = masked(model, {"pool": mask}, threshold=1.0, final="zero"), image().requires_grad_()
    converted(x).square().sum().backward()
    assert all(bool(p.grad.isfinite().all()) for p in model.parameters()) and bool(x.grad.isfinite().all())
    pooled = untied(2, 3, 8).requires_grad_()
    y = masked(nn.Sequential(nn.MaxPool2d(2)), {"0": some(2, 3, 4, 4)})(pooled)
    y.nansum().backward()
    values = F.max_pool2d(pooled, 2)
    weight = (~some(2, 3, 4, 4)).float()
    (expected,) = torch.autograd.grad((values * weight).sum(), pooled)
    assert same(pooled.grad, expected)


def test_a_conversion_with_masks_is_undone_copied_and_used_by_threads():
    model, mask = seeded(Modules()), some(2, 4, 16, 16)
    converted = masked(model, {"unpool": mask})
    expected = converted(image())
    other = copy.deepcopy(converted)
    with ThreadPoolExecutor(4) as pool:
        assert all(same_bits(y, expected) for y in pool.map(lambda m: m(image()), [converted, other] * 10))
    mask.zero_()  # masks are not copied
    assert same_bits(other(image()), expected) and not same_bits(converted(image()), expected)
    assert nanops.restore(converted) is model


def test_later_changes_of_the_mapping_do_not_reach_the_conversion():
    masks = {"unpool": some(1, 4, 16, 16)}
    converted = masked(seeded(Modules()), masks)
    expected = converted(image())
    masks.clear()
    assert same_bits(converted(image()), expected)


def test_without_masks_no_call_is_looked_at(monkeypatch):
    def refuse(*args):
        raise AssertionError("an oracle was asked")

    monkeypatch.setattr(mode, "Oracle", refuse)
    for pooling in ("conservative", "aggressive", "hybrid", None):
        nanops.convert(seeded(Modules()), pooling)(image())
    with pytest.raises(AssertionError, match="an oracle was asked"):
        masked(seeded(Modules()), {"unpool": some(2, 4, 16, 16)})(image())


@pytest.mark.parametrize("style", [Modules, Functional])
def test_a_compiled_conversion_has_its_masks(style):
    torch._dynamo.reset()
    pool, unpool = STYLES[style]
    masks = {unpool: some(1, 4, 16, 16), f"{pool}.indices": some(2, 4, 8, 8)}
    around = {f"0{name}" if name[0] == ":" else f"0.{name}": mask for name, mask in masks.items()}
    around["1"] = some(2, 2, 8, 8, seed=1)
    tail = Calling(lambda m, y: m.pool(y), pool=nn.MaxPool2d(2))
    for model, own in ((seeded(style()), masks), (nn.Sequential(seeded(style()), tail), around)):
        converted = masked(model, own)
        compiled = torch.compile(converted, backend="aot_eager")
        with torch.no_grad():
            for x in (image(), untied(), image(seed=4)):
                y = converted(x)
                torch.testing.assert_close(compiled(x), y, equal_nan=True)
                assert y.isnan().any()
    torch._dynamo.reset()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_trace_keeps_the_masks():
    model = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.MaxPool2d(2), nn.Conv2d(2, 2, 3, padding=1))
    converted = masked(model, {"1": some(2, 2, 8, 8, rate=0.6)})
    with torch.no_grad():
        traced = torch.jit.trace(converted, untied())
        y = converted(image())
        assert same_bits(traced(image()), y) and y.isnan().any()
