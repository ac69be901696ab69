"""perturb() around any model: which operators move, which do not, and what the user is told."""

import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mcaprobe import lockstep, perturb
from mcaprobe.lanes import LaneTensor, LockstepError, lanes_of
from mcaprobe.operator_log import UnmodelledOperatorWarning

pytestmark = pytest.mark.usefixtures("each_route")
G = torch.Generator().manual_seed(0)
X = torch.randn(2, 4, 8, 8, generator=G)
V = torch.randn(3, 5, 8, generator=G)
S = torch.randn(2, 4, 20, generator=G)
D = torch.randn(1, 2, 6, 6, 6, generator=G)
W = {
    n: torch.randn(*s, generator=G)
    for n, s in {
        "conv1d": (6, 4, 3),
        "conv2d": (6, 4, 3, 3),
        "conv3d": (3, 2, 3, 3, 3),
        "linear": (6, 8),
        "up1d": (4, 3, 4),
        "up2d": (4, 3, 2, 2),
        "up3d": (2, 3, 2, 2, 2),
        "depthwise": (4, 1, 3, 3),
        "one": (4,),
        "grid": (2, 5, 5, 2),
    }.items()
}

# name -> (call, does it round?, how far may it be from the stock result, relative to the largest element)
NEAR = 3e-6
CALLS = {
    # exact: comparisons, selections, copies
    "relu": (lambda: F.relu(X), False),
    "relu6": (lambda: F.relu6(X), False),
    "hardtanh": (lambda: F.hardtanh(X), False),
    "max_pool2d": (lambda: F.max_pool2d(X, 2, return_indices=True), False),
    "max_pool1d": (lambda: F.max_pool1d(S, 2), False),
    "max_pool3d": (lambda: F.max_pool3d(D, 2), False),
    "adaptive_max_pool2d": (lambda: F.adaptive_max_pool2d(X, 3), False),
    "max_unpool2d": (lambda: F.max_unpool2d(*F.max_pool2d(X, 2, return_indices=True), 2), False),
    "cat": (lambda: torch.cat([X, -X], 1), False),
    "stack": (lambda: torch.stack([X, X]), False),
    "pad": (lambda: F.pad(X, (1, 2, 3, 4)), False),
    "reflect": (lambda: F.pad(X, (1, 2, 3, 4), mode="reflect"), False),
    "nearest": (lambda: F.interpolate(X, scale_factor=2), False),
    "pixel_shuffle": (lambda: F.pixel_shuffle(X, 2), False),
    "unfold": (lambda: F.unfold(X, 3), False),
    "argmax": (lambda: X.argmax(1), False),
    "topk": (lambda: X.topk(3)[0], False),
    "sort": (lambda: X.sort()[0], False),
    "where": (lambda: torch.where(X > 0, X, 0.5), False),
    "clamp": (lambda: X.clamp(-0.5, 0.7), False),
    "median": (lambda: X.median(1)[0], False),
    "embedding": (lambda: F.embedding(torch.tensor([1, 0]), W["linear"]), False),
    "one_hot": (lambda: F.one_hot(torch.tensor([1, 0])), False),
    "permute": (lambda: X.permute(0, 2, 3, 1).reshape(2, -1), False),
    "gather": (lambda: X.gather(1, X.argsort(1)), False),
    "roll": (lambda: X.roll(2, 1).flip(2), False),
    "abs-neg": (lambda: -X.abs(), False),
    "tril": (lambda: X.tril(), False),
    "masked_fill": (lambda: X.masked_fill(X > 0, -1), False),
    "double": (lambda: X * 2, False),
    "halve": (lambda: X / 4, False),
    "maximum": (lambda: torch.maximum(X, X.flip(0)), False),
    "index_put": (lambda: X.index_fill(1, torch.tensor([2]), 0.0), False),
    "count": (lambda: (X > 0).sum().float(), False),
    "mask-mean": (lambda: (X > 0).float().sum((2, 3)) / 64, False),
    "eval-dropout": (lambda: nn.Dropout(0.3).eval()(X), False),
    "repeat": (lambda: X.repeat(1, 2, 1, 1).chunk(2, 1)[0], False),
    # modelled
    "conv1d": (lambda: F.conv1d(S, W["conv1d"]), True),
    "conv2d": (lambda: F.conv2d(X, W["conv2d"], padding=1), True),
    "conv3d": (lambda: F.conv3d(D, W["conv3d"], stride=2), True),
    "depthwise": (lambda: F.conv2d(X, W["depthwise"], groups=4), True),
    "conv_transpose1d": (lambda: F.conv_transpose1d(S, W["up1d"], stride=2), True),
    "conv_transpose2d": (lambda: F.conv_transpose2d(X, W["up2d"], stride=2), True),
    "conv_transpose3d": (lambda: F.conv_transpose3d(D, W["up3d"], stride=2), True),
    "linear": (lambda: F.linear(V, W["linear"], torch.ones(6)), True),
    "bilinear-form": (lambda: F.linear(X, W["linear"]), True),
    "matmul": (lambda: V @ W["linear"].T, True),
    "einsum": (lambda: torch.einsum("bij,kj->bik", V, W["linear"]), True),
    "bmm": (lambda: torch.bmm(V, V.transpose(1, 2)), True),
    "outer": (lambda: torch.outer(V[0, 0], V[0, 1]), True),
    "addbmm": (lambda: torch.baddbmm(torch.ones(3, 5, 5), V, V.mT, alpha=0.5), True),
    "dot": (lambda: torch.dot(S[0, 0], S[0, 1]), True),
    "mv": (lambda: W["linear"] @ V[0, 0], True),
    "batch_norm": (lambda: F.batch_norm(X, W["one"], W["one"].abs() + 1, W["one"], W["one"]), True),
    "instance_norm": (lambda: F.instance_norm(X), True),
    "layer_norm": (lambda: F.layer_norm(V, (8,), V[0, 0], V[0, 1]), True),
    "group_norm": (lambda: F.group_norm(X, 2, W["one"], W["one"]), True),
    "softmax": (lambda: F.softmax(V, -1), True),
    "softmax2d": (lambda: nn.Softmax2d()(X), True),
    "log_softmax": (lambda: F.log_softmax(V, 1), True),
    "gelu": (lambda: F.gelu(X), True),
    "gelu-tanh": (lambda: F.gelu(X, approximate="tanh"), True),
    "silu": (lambda: F.silu(X), True),
    "sigmoid": (lambda: X.sigmoid(), True),
    "tanh": (lambda: X.tanh(), True),
    "exp": (lambda: X.exp(), True),
    "log": (lambda: X.abs().log(), True),
    "sqrt": (lambda: X.abs().sqrt(), True),
    "rsqrt": (lambda: X.abs().rsqrt(), True),
    "pow": (lambda: X.abs() ** 2.3, True),
    "prelu": (lambda: F.prelu(X, W["one"]), True),
    "leaky": (lambda: F.leaky_relu(X, 0.1), True),
    "add": (lambda: X + X.flip(0), True),
    "sub": (lambda: X - 0.1, True),
    "mul": (lambda: X * X.flip(0), True),
    "div": (lambda: X / X.flip(0).abs(), True),
    "addcmul": (lambda: torch.addcmul(X, X, X, value=0.3), True),
    "lerp": (lambda: torch.lerp(X, X.flip(0), 0.3), True),
    "sum": (lambda: X.sum((2, 3)), True),
    "mean": (lambda: X.mean(1), True),
    "var": (lambda: X.var((2, 3)), True),
    "std": (lambda: X.std(), True),
    "cumsum": (lambda: S.cumsum(-1), True),
    "prod": (lambda: S.prod(-1), True),
    "cumprod": (lambda: S.cumprod(-1), True),
    "avg_pool1d": (lambda: F.avg_pool1d(S, 3), True),
    "avg_pool2d": (lambda: F.avg_pool2d(X, 3, 2, 1), True),
    "avg_pool3d": (lambda: F.avg_pool3d(D, 2), True),
    "linear-upsample": (lambda: F.interpolate(S, size=33, mode="linear"), True),
    "bilinear": (lambda: F.interpolate(X, scale_factor=1.5, mode="bilinear"), True),
    "trilinear": (lambda: F.interpolate(D, size=(7, 9, 5), mode="trilinear", align_corners=True), True),
    # made of those
    "adaptive_avg_pool2d": (lambda: F.adaptive_avg_pool2d(X, 3), True),
    "global_pool": (lambda: F.adaptive_avg_pool2d(X, 1), True),
    "elu": (lambda: F.elu(X), True),
    "selu": (lambda: F.selu(X), True),
    "celu": (lambda: F.celu(X), True),
    "mish": (lambda: F.mish(X), True),
    "softplus": (lambda: F.softplus(X), True),
    "hardswish": (lambda: F.hardswish(X), True),
    "logsigmoid": (lambda: F.logsigmoid(X), True),
    "hardsigmoid": (lambda: F.hardsigmoid(X), True),
    "glu": (lambda: F.glu(X, 1), True),
    "normalize": (lambda: F.normalize(X), True),
    "cosine": (lambda: F.cosine_similarity(V, V.flip(0), dim=-1), True),
    "norm": (lambda: X.norm(dim=1), True),
    "attention": (lambda: F.scaled_dot_product_attention(V, V, V), True),
    "bicubic": (lambda: F.interpolate(X, size=(11, 11), mode="bicubic", align_corners=False), True),
    "grid_sample": (lambda: F.grid_sample(X, W["grid"].tanh(), align_corners=False), True),
    "logsumexp": (lambda: X.logsumexp(1), True),
    "rms_norm": (lambda: F.rms_norm(V, (8,)), True),
    "local_response_norm": (lambda: F.local_response_norm(X, 2), True),
    "cross_entropy": (lambda: F.cross_entropy(X, X.argmax(1)), True),
    "mse": (lambda: F.mse_loss(X, X.flip(0)), True),
    "l1": (lambda: F.l1_loss(X, X.flip(0)), True),
    "kl": (lambda: F.kl_div(X, X.softmax(1)), True),
    "dist": (lambda: F.pairwise_distance(V, V.flip(0)), True),
    "index-table": (lambda: torch.arange(9) / 9 * 2 - 1, True),
    "addmm": (lambda: torch.addmm(W["linear"][:, :6], W["linear"], W["linear"].T, beta=0.3), True),
}


def flat(tree) -> list[torch.Tensor]:
    leaves = [tree] if isinstance(tree, torch.Tensor) else list(tree)
    return [t.double() for t in leaves]


@pytest.mark.filterwarnings("ignore:reduction. 'mean' divides")
@pytest.mark.parametrize("name", CALLS)
def test_what_rounds_moves_a_little_and_what_is_exact_does_not(name, each_route):
    call, rounds = CALLS[name]
    with torch.no_grad():
        stock = flat(call())
        with perturb(sample=1) as block:
            first = flat(call())
        others = []
        for sample in (2, 3, 4, 5, 6):
            with perturb(sample=sample):
                others.append(flat(call()))
        with torch.inference_mode(), perturb(sample=1) as inference:
            again = flat(call())
    assert "unmodelled" not in block.operators.values() and "unmodelled" not in inference.operators.values(), (
        block.operators
    )
    for s, a, c, *rest in zip(stock, first, again, *others, strict=True):
        assert torch.equal(a, c), "inference mode changes bits"
        assert (a - s).abs().max() <= NEAR * s.abs().max() and a.shape == s.shape
        if rounds:
            assert any(not torch.equal(a, b) for b in rest)
        else:
            assert torch.equal(a, s) and all(torch.equal(b, s) for b in rest)
    if rounds:
        expected = "compiled" if each_route == "exact" else "modelled"
        assert {expected, "decomposed"} & set(block.operators.values())


def test_the_operators_of_a_block_are_listed_by_kind(each_route):
    kind = "compiled" if each_route == "exact" else "modelled"
    with torch.no_grad(), perturb() as block:
        F.elu(F.relu(F.conv2d(X, W["conv2d"])))
        X.add(0.1).mul_(0.3)
        torch.arange(3).add(1)
    assert {k: block.operators[k] for k in ("convolution", "relu", "elu", "add", "mul_", "arange")} == {
        "convolution": kind,
        "relu": "exact",
        "elu": "decomposed",
        "add": kind,
        "mul_": kind,
        "arange": "exact",
    }


UNMODELLED = {
    "fft": lambda: torch.fft.rfft(X).real,
    "cdist": lambda: torch.cdist(V, V),
    "scatter_add": lambda: torch.zeros(3, 8).scatter_add(0, torch.zeros(5, 8, dtype=torch.long), V[0]),
    "fold": lambda: F.fold(F.unfold(X, 3), (8, 8), 3),
    "scatter_reduce": lambda: torch.zeros(3, 8).scatter(0, torch.zeros(5, 8, dtype=torch.long), V[0], reduce="add"),
    "accumulate": lambda: torch.zeros(3, 8).index_put((torch.tensor([1, 1]),), V[0, :2], accumulate=True),
}


@pytest.mark.parametrize("name", UNMODELLED)
def test_an_operator_without_a_model_is_rounded_listed_and_warned_about_once(name):
    call = UNMODELLED[name]
    with warnings.catch_warnings(record=True) as caught, torch.no_grad():
        warnings.simplefilter("always")
        with perturb() as block:
            first, second, third = call(), call(), call()
    said = [str(w.message) for w in caught if w.category is UnmodelledOperatorWarning]
    assert len(said) == 1 and "has no noise model" in said[0]
    assert "unmodelled" in block.operators.values()
    stock = call()
    assert (
        (first != second).any() and (second != third).any() and (first - stock).abs().max() < 1e-5 * stock.abs().max()
    )
    assert (first == stock).float().mean() > 0.1 and not first[stock == 0].any()  # 0 stays 0


def test_a_warning_in_each_block():
    for _ in range(2):
        with pytest.warns(UnmodelledOperatorWarning, match="aten::_fft_r2c"), torch.no_grad(), perturb():
            torch.fft.rfft(X)


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(216, 3)
        )

    def forward(self, x):
        return self.body(x)


@pytest.fixture(scope="module")
def small() -> nn.Module:
    torch.manual_seed(0)
    return Small().eval()


def test_backward_inside_a_block(small):
    """Gradients come out, near the stock ones; the operators of the backward pass are said to be unmodelled."""
    model = small
    model.zero_grad()
    model(X).square().mean().backward()
    stock = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with perturb() as block:
            model(X).square().mean().backward()
    said = {str(w.message).split()[0] for w in caught if w.category is UnmodelledOperatorWarning}
    assert "aten::convolution_backward" in said and block.operators["convolution_backward"] == "unmodelled"
    for p, g in zip(model.parameters(), stock, strict=True):
        assert (p.grad - g).abs().max() <= 1e-5 * g.abs().max() + 1e-7
    assert any(not torch.equal(p.grad, g) for p, g in zip(model.parameters(), stock, strict=True))


def test_autograd_outside_works_after_a_block(small):
    with torch.no_grad(), perturb():
        y = small(X)
    assert type(y) is torch.Tensor and not y.requires_grad
    small.zero_grad()
    small(X).sum().backward()
    assert small.body[0].weight.grad is not None


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_a_traced_model_is_perturbed_as_its_source(small):
    with torch.no_grad():
        traced = torch.jit.trace(small, X)
        for s in (0, 1):
            with perturb(sample=s):
                expected = small(X)
            with perturb(sample=s) as block:
                assert torch.equal(traced(X), expected)
        assert "unmodelled" not in block.operators.values()
        with lockstep([0, 1]) as block:
            y = traced(block.spread(X))
    assert isinstance(y, LaneTensor) and torch.equal(lanes_of(y)[2], expected)


def test_a_compiled_model_is_perturbed_as_its_source(small):
    compiled = torch.compile(small, backend="eager")
    with torch.no_grad():
        with perturb():
            expected = small(X)
        with perturb():
            assert torch.equal(compiled(X), expected)
        compiled(X)  # now compiled: the cached graph runs
        with perturb():
            assert torch.equal(compiled(X), expected)
        with lockstep([0]) as block:
            assert torch.equal(lanes_of(compiled(block.spread(X)))[1], expected)


@pytest.mark.parametrize(
    "module, shape",
    [
        (nn.GRU(4, 6), (5, 2, 4)),
        (nn.RNN(4, 6), (5, 2, 4)),
        (nn.LSTMCell(4, 6), (2, 4)),
        (nn.MultiheadAttention(8, 2, batch_first=True), (3, 5, 8)),
        (nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), (3, 5, 8)),
        (nn.Bilinear(8, 8, 3), (4, 8)),
        (nn.EmbeddingBag(5, 3), None),
        (nn.CosineSimilarity(), (2, 4, 8)),
    ],
    ids=lambda v: type(v).__name__,
)
def test_composite_modules_run_in_lanes(module, shape):
    module = module.eval()
    inputs = [torch.randn(shape, generator=G)] if shape else [torch.tensor([[0, 1], [2, 4]])]
    inputs *= {nn.MultiheadAttention: 3, nn.Bilinear: 2, nn.CosineSimilarity: 2}.get(type(module), 1)

    def first(y):
        return y[0] if isinstance(y, tuple) else y

    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", UnmodelledOperatorWarning)
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        stock = first(module(*inputs))
        torch.set_num_threads(threads)
        with lockstep([0, 1]) as block:
            y = first(module(*[block.spread(inputs[0])] * len(inputs)))  # attention asks whether they are the same
        with perturb(sample=1):
            alone = first(module(*inputs))
    reference, one, two = lanes_of(y)
    assert (reference - stock).abs().max() < 2e-6 and torch.equal(two, alone)
    assert (two - stock).abs().max() < 1e-5 and not torch.equal(one, two)


def test_a_model_that_branches_on_a_perturbed_number_is_refused_in_lanes_and_runs_alone():
    def model(x):
        return x.sum() if float((x * 0.3).sum()) == 0.123 else x * 2

    with torch.no_grad():
        with lockstep(range(6)) as block, pytest.raises(LockstepError, match="Python number"):
            model(block.spread(X))
        with perturb():
            assert torch.equal(model(X), X * 2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "mode, precision", [("random", None), ("nearness", None), ("up_down", None), ("rr", 11), ("pb", 11), ("full", 8)]
)
def test_every_mode_runs_a_model_with_noise_of_its_precision(mode, precision, dtype):
    torch.manual_seed(0)
    model, x = Small().eval().to(dtype), X.to(dtype)
    with torch.no_grad(), lockstep(range(8), mode=mode, precision=precision) as block:
        y = torch.stack(lanes_of(model(block.spread(x))))
    bits = precision or {torch.float32: 24, torch.float64: 53}[dtype]
    spread = (y[1:].std(0).square().mean().sqrt() / y[0].square().mean().sqrt()).item()
    assert 0.05 < spread * 2.0**bits < 30, spread * 2.0**bits
