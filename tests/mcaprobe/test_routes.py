"""Which way does a run take, what does it say about it, and do the two ways agree?"""

import json
import platform
import shutil
import subprocess
import sys
import warnings
from math import sqrt

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import mcaprobe
from analyses.models.demo import build_model
from mcaprobe import InputError, kernels, lockstep, perturb
from mcaprobe.__main__ import main
from mcaprobe.kinds import RULES
from mcaprobe.lanes import lanes_of
from mcaprobe.operator_log import ModelRouteWarning
from mcaprobe.routes import ROUTES, resolve
from tests.mcaprobe import small_models as models
from tests.mcaprobe import test_products as products
from tests.mcaprobe.kernel_calls import MODES, NEEDED
from tests.mcaprobe.small_models import HERE

G = torch.Generator().manual_seed(0)
X = torch.randn(2, 4, 8, 8, generator=G)
V = torch.randn(3, 5, 8, generator=G)
W = torch.randn(6, 4, 3, 3, generator=G)
P = torch.randn(4, 4, generator=G)
LONG = torch.randn(9, 20, 300, generator=G)
THIRD = X.double() / 3
INSIDE = X.sigmoid()


@pytest.fixture
def without_kernels(monkeypatch):
    monkeypatch.setattr(kernels, "library", lambda: None)
    monkeypatch.setattr(kernels, "load", lambda name: None)


# Is there a way?


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the kernels are for x86-64")
@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler on this machine")
@pytest.mark.parametrize("name", ["avx2", "avx512"])
def test_where_there_is_a_compiler_the_kernels_were_built(name):
    """A build that fails in silence fails here."""
    if name not in kernels.names():
        pytest.skip(f"this processor has no {name}")
    assert kernels.load(name) is not None, f"{kernels.absence()}: run python setup.py build_ext --inplace"
    assert kernels.library() is not None and kernels.about() in kernels.names()


@NEEDED
def test_auto_is_the_route_exact_where_that_is_possible():
    for mode in MODES:
        assert resolve("auto", mode, "cpu") == "exact"
        with perturb(mode) as block:
            assert block.route == "exact"
    for mode in ("rr", "pb", "full", "up_down"):
        assert resolve("auto", mode, "cpu") == "model"
        with perturb(mode) as block:
            assert block.route == "model"
    assert resolve("auto", "random", "cuda") == resolve("auto", "random", "cuda:1") == "model"


def test_without_kernels_auto_is_the_route_model(without_kernels):
    for mode in MODES:
        assert resolve("auto", mode, "cpu") == resolve("model", mode, "cpu") == "model"
        with torch.no_grad(), perturb(mode) as block:
            y, z = F.conv2d(X, W), F.conv2d(X, W)
        assert block.route == "model" and block.operators["convolution"] == "modelled" and not torch.equal(y, z)


IMPOSSIBLE = {
    "no such route": ({"route": "fast"}, r"Expected a route among exact, model, auto, got 'fast'\."),
    "a mode": ({"route": "exact", "mode": "rr"}, "have the modes random and nearness, not rr"),
    "another mode": ({"route": "exact", "mode": "up_down"}, "have the modes random and nearness, not up_down"),
}


def expect_one_sentence(message: str) -> None:
    assert message[0].isupper() and message.endswith(".") and "\n" not in message and len(message) < 300, message


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_a_route_that_cannot_be_is_refused_in_one_sentence(name):
    options, sentence = IMPOSSIBLE[name]
    with pytest.raises(InputError, match=sentence) as caught:
        mcaprobe.run(models.build_small(), models.image(), samples=2, **options)
    expect_one_sentence(str(caught.value))
    for block in (perturb(**options), lockstep([0], **options)):
        with pytest.raises(InputError, match=sentence), block:
            pass


def test_the_route_exact_is_one_of_the_processor():
    with pytest.raises(InputError, match="run on the processor, not on cuda") as caught:
        resolve("exact", "random", "cuda")
    expect_one_sentence(str(caught.value))


def test_the_route_exact_without_kernels_is_refused(without_kernels):
    for mode in MODES:
        with pytest.raises(InputError, match=r"no kernels of this version were built|has neither AVX2") as caught:
            resolve("exact", mode, "cpu")
        expect_one_sentence(str(caught.value))
    with pytest.raises(InputError, match="Take the route auto or model"), perturb(route="exact"):
        pass


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    path = tmp_path_factory.mktemp("routes") / "image.npy"
    np.save(path, models.image().numpy())
    return path


def command(image, out, *options: str) -> list[str]:
    return ["run", f"{HERE}:build_small", str(image), "--out", str(out), "--samples", "2", "--quiet", *options]


@pytest.mark.parametrize(
    "options, words",
    [(["--route", "fast"], "exact, model, auto"), (["--route", "exact", "--mode", "rr"], "not rr")],
)
def test_the_command_answers_with_exit_code_2(options, words, image, tmp_path, capsys):
    assert main(command(image, tmp_path / "r", *options)) == 2
    output, errors = capsys.readouterr()
    assert output == "" and words in errors and "Traceback" not in errors and len(errors.splitlines()) == 1
    assert not (tmp_path / "r").exists()


def test_the_command_without_kernels_answers_with_exit_code_2(image, tmp_path, capsys, without_kernels):
    assert main(command(image, tmp_path / "r", "--route", "exact")) == 2
    errors = capsys.readouterr().err
    assert "route exact cannot be taken" in errors and "Traceback" not in errors
    assert main(command(image, tmp_path / "r")) == 0
    manifest = json.loads((tmp_path / "r" / "manifest.json").read_text())
    assert (manifest["route"], manifest["route_asked"]) == ("model", "auto")
    assert manifest["kernels"] == kernels.absence() and manifest["operators"]["convolution"] == "modelled"


@NEEDED
@pytest.mark.parametrize(
    "options, route, convolution",
    [
        ([], "exact", "compiled"),
        (["--route", "exact"], "exact", "compiled"),
        (["--route", "model"], "model", "modelled"),
        (["--mode", "rr"], "model", "modelled"),
        (["--mode", "nearness"], "exact", "compiled"),
    ],
)  # fmt: skip
def test_the_manifest_says_which_way_was_taken(options, route, convolution, image, tmp_path, capsys):
    assert main(command(image, tmp_path / "r", *options)) == 0
    manifest = json.loads((tmp_path / "r" / "manifest.json").read_text())
    asked = options[1] if "--route" in options else "auto"
    assert (manifest["route"], manifest["route_asked"]) == (route, asked)
    assert manifest["kernels"] in kernels.names() and manifest["operators"]["convolution"] == convolution
    assert manifest["operators"]["max_pool2d_with_indices"] == "exact" and manifest["identity"]["route"] == route


@NEEDED
def test_runs_of_two_routes_are_not_mixed(image, tmp_path, capsys):
    assert main(command(image, tmp_path / "r", "--route", "model")) == 0
    before = (tmp_path / "r" / "manifest.json").read_bytes()
    assert main(command(image, tmp_path / "r", "--route", "exact")) == 2
    assert "route" in capsys.readouterr().err and (tmp_path / "r" / "manifest.json").read_bytes() == before


# What a block says.


@NEEDED
def test_the_route_exact_warns_once_of_a_format_without_kernels():
    x, w = X.double(), W.double()
    with warnings.catch_warnings(record=True) as caught, torch.no_grad():
        warnings.simplefilter("always")
        with perturb(route="exact") as block:
            y = F.conv2d(x, w)
            F.conv2d(x, w)
            single = F.relu(X) * 0.3
        with perturb(route="model"):
            expected = F.conv2d(x, w)
    said = [str(c.message) for c in caught if c.category is ModelRouteWarning]
    assert len(said) == 1 and "aten::convolution" in said[0] and "float64 on cpu" in said[0]
    expect_one_sentence("A" + said[0])
    assert block.operators["convolution"] == "modelled" and block.operators["mul"] == "compiled"
    assert torch.equal(y, expected) and not torch.equal(y, F.conv2d(x, w)) and single.dtype == torch.float32


@NEEDED
def test_auto_says_which_operators_were_modelled_and_does_not_warn():
    with torch.no_grad(), perturb() as block:  # warnings are errors
        F.conv2d(X.double(), W.double())
        F.linear(V, P[:, :1].expand(4, 8))
    assert block.operators["convolution"] == "modelled" and block.operators["mm"] == "compiled"


@NEEDED
def test_an_operator_of_both_formats_counts_as_modelled():
    for order in ((X, X.double()), (X.double(), X)):
        with torch.no_grad(), perturb() as block:
            for x in order:
                x.mul(0.3)
        assert block.operators["mul"] == "modelled"


@NEEDED
def test_every_block_warns_anew():
    for _ in range(2):
        with pytest.warns(ModelRouteWarning, match="aten::mul.*float64"), torch.no_grad(), perturb(route="exact"):
            X.double() * 0.3


@NEEDED
def test_in_place_and_out_forms_are_compiled():
    with torch.no_grad(), perturb(route="exact") as block:
        y = X.clone()
        y.mul_(0.3).add_(X)
        torch.add(X, 0.1, out=y)
    assert not {"modelled", "unmodelled"} & set(block.operators.values()) and "compiled" in block.operators.values()


@NEEDED
@pytest.mark.parametrize("route", ROUTES)
def test_the_reference_is_near_the_stock_run_and_never_random(route):
    runs = []
    for seed in (0, 1):
        with torch.no_grad(), lockstep([0], seed=seed, route=route):
            runs.append(lanes_of(F.conv2d(X, W)))
    stock = F.conv2d(X, W)
    assert torch.equal(runs[0][0], runs[1][0]) and not torch.equal(runs[0][1], runs[1][1])
    assert torch.allclose(runs[0][0], stock, rtol=1e-5, atol=1e-5)


# Do the two ways agree?

DRAWS = 200


def deviation(call, route: str, mode: str, draws: int = DRAWS) -> float:
    """Return the root mean square of the standard deviations of call()'s elements."""
    with torch.no_grad(), lockstep(range(draws), reference=False, mode=mode, route=route) as block:
        lanes = lanes_of(call())
    assert ("compiled" if route == "exact" else "modelled") in block.operators.values()
    return spread_of(lanes)


def spread_of(lanes, middle=np.mean) -> float:
    return sqrt(middle(np.stack([t.numpy() for t in lanes]).var(0, ddof=1, dtype=np.float64)))


@NEEDED
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", products.CASES)
def test_both_routes_give_sums_of_products_the_same_noise(name, mode):
    case = products.CASES[name]
    x, w, bias = products.operands(case)
    copies = products.copies_of(case)
    call = products.run_model(case, x, w, bias, copies)
    found = []
    for route in ("exact", "model"):
        with torch.no_grad(), lockstep(range(DRAWS // copies), reference=False, mode=mode, route=route) as block:
            lanes = lanes_of(call(block.spread))
        found.append(spread_of([copy for lane in lanes for copy in lane]))
    assert 0.8 < found[0] / found[1] < 1.25


CALLS = {
    "add": lambda: X + X.flip(0),
    "sub": lambda: X - 0.1,
    "add-alpha": lambda: torch.add(X, X.flip(0), alpha=0.3),
    "mul": lambda: X * X.flip(0),
    "div": lambda: X / X.flip(0).abs(),
    "addcmul": lambda: torch.addcmul(X, X, X.flip(0), value=0.3),
    "addcdiv": lambda: torch.addcdiv(X, X, X.flip(0).abs() + 0.1),
    "lerp": lambda: torch.lerp(X, X.flip(0), 0.3),
    "sqrt": lambda: X.abs().sqrt(),
    "rsqrt": lambda: X.abs().rsqrt(),
    "reciprocal": lambda: X.reciprocal(),
    "exp": lambda: X.exp(),
    "log": lambda: X.abs().log(),
    "tanh": lambda: X.tanh(),
    "erf": lambda: X.erf(),
    "sigmoid": lambda: X.sigmoid(),
    "silu": lambda: F.silu(X),
    "gelu": lambda: F.gelu(X),
    "gelu-tanh": lambda: F.gelu(X, approximate="tanh"),
    "prelu": lambda: F.prelu(X, P[0]),
    "leaky": lambda: F.leaky_relu(X, 0.1),
    "pow-2": lambda: X**2,
    "pow-2.3": lambda: X.abs() ** 2.3,
    "cast": lambda: THIRD.float(),
    "sum-last": lambda: LONG.sum(-1),
    "sum-first": lambda: LONG.sum(0),
    "sum-middle": lambda: LONG.sum(1),
    "sum-all": lambda: LONG.sum((1, 2)),
    "sum-two": lambda: X.sum((2, 3)),
    "sum-apart": lambda: X.sum((0, 2)),
    "mean": lambda: X.mean(1),
    "mean-last": lambda: LONG.mean(-1),
    "var": lambda: X.var((2, 3)),
    "std": lambda: X.std(1),
    "cumsum": lambda: X.cumsum(-1),
    "cumprod": lambda: X.cumprod(-1),
    "prod": lambda: X.prod(-1),
    "batch_norm": lambda: F.batch_norm(X, P[0], P[1].abs() + 1, P[2], P[3]),
    "instance_norm": lambda: F.instance_norm(X),
    "layer_norm": lambda: F.layer_norm(V, (8,), V[0, 0], V[0, 1]),
    "group_norm": lambda: F.group_norm(X, 2, P[0], P[1]),
    "softmax": lambda: F.softmax(V, -1),
    "softmax-channels": lambda: F.softmax(X, 1),
    "log_softmax": lambda: F.log_softmax(V, 1),
    "avg_pool2d": lambda: F.avg_pool2d(X, 3, 2, 1),
    "adaptive_avg_pool2d": lambda: F.adaptive_avg_pool2d(X, 3),
    "global_pool": lambda: F.adaptive_avg_pool2d(X, 1),
    "bilinear": lambda: F.interpolate(X, scale_factor=1.5, mode="bilinear"),
    "attention": lambda: F.scaled_dot_product_attention(V, V, V),
    "acosh": lambda: (INSIDE + 1.1).acosh(),
    "atan2": lambda: torch.atan2(X, X.flip(0)),
    "hypot": lambda: torch.hypot(X, X.flip(0)),
    "rsub": lambda: torch.rsub(X, 0.1),
    "addmv": lambda: torch.addmv(P[0], P, P[1]),
    "baddbmm": lambda: torch.baddbmm(V[:, :, :5], V, V.mT),
    "vdot": lambda: torch.vdot(LONG[0, 0], LONG[0, 1]),
    "var_mean": lambda: torch.var_mean(X, (2, 3))[0],
    "avg_pool3d": lambda: F.avg_pool3d(X, 3, 2, 1),
    "upsample-linear": lambda: F.interpolate(V, scale_factor=1.5, mode="linear"),
    "trilinear": lambda: F.interpolate(X[None, :1, :2, :4], scale_factor=1.5, mode="trilinear"),
}
UNARY = ["acos", "asin", "asinh", "atan", "atanh", "cos", "cosh", "digamma", "erfc", "erfinv", "exp2", "expm1",
         "lgamma", "log10", "log1p", "log2", "sin", "sinh", "tan"]  # fmt: skip
CALLS |= {name: lambda name=name: getattr(INSIDE, name)() for name in UNARY}
# Other names of div, convolution and native_batch_norm: torch's own dispatch never gives them to an inference.
SYNONYMS = {"true_divide", "_convolution", "_native_batch_norm_legit_no_training"}


@NEEDED
def test_every_operator_with_a_rule_is_held_against_the_other_route():
    calls = dict(CALLS)
    for name, case in products.CASES.items():
        calls[name] = products.run_model(case, *products.operands(case), products.copies_of(case))
    met: set[str] = set()
    for name, call in calls.items():
        with torch.no_grad(), lockstep([0], reference=False, route="exact") as block:
            call() if name in CALLS else call(block.spread)
        met |= {operator for operator, kind in block.operators.items() if kind == "compiled"}
        assert not {"modelled", "unmodelled"} & set(block.operators.values()), name
    assert {rule._qualified_op_name.split("::")[1] for rule in RULES} - met == SYNONYMS


@NEEDED
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", CALLS)
def test_both_routes_give_an_operator_the_same_noise(name, mode):
    found = [deviation(CALLS[name], route, mode) for route in ("exact", "model")]
    assert 0.8 < found[0] / found[1] < 1.25, found


@NEEDED
def test_both_routes_give_the_demo_network_the_same_noise():
    """The first block, the bottleneck and the scores, 24 samples of a 64 x 64 crop."""
    network = build_model()
    x = F.avg_pool2d(torch.rand(1, network_channels(network), 66, 66, generator=G), 3, 1)
    watched = [name for name, _ in network.named_modules() if name.count(".") == 0 and name][:3]
    spread: dict[str, dict[str, float]] = {}
    for route in ("exact", "model"):
        seen: dict[str, float] = {}

        def note(name, seen=seen):
            def hook(module, inputs, output):
                first = output[0] if isinstance(output, tuple) else output
                seen[name] = spread_of(lanes_of(first), np.median)

            return hook

        handles = [dict(network.named_modules())[name].register_forward_hook(note(name)) for name in watched]
        with torch.no_grad(), lockstep(range(24), reference=False, route=route, threads=2) as block:
            y = network(block.spread(x))
        for handle in handles:
            handle.remove()
        seen["scores"] = spread_of(lanes_of(y), np.median)
        spread[route] = seen
    assert spread["exact"].keys() == spread["model"].keys() and len(spread["exact"]) == 4
    for name, exact in spread["exact"].items():
        assert 0.8 < exact / spread["model"][name] < 1.25, (name, spread)


def network_channels(network) -> int:
    return next(p.shape[1] for p in network.parameters() if p.dim() == 4)


@NEEDED
def test_a_process_without_the_libraries_takes_the_route_model(tmp_path):
    """The files are looked for where the package lies; nothing else is asked of the machine."""
    code = (
        "from pathlib import Path\n"
        "from mcaprobe import kernels\n"
        "kernels.__file__ = '/nowhere/__init__.py'\n"
        "assert kernels.library() is None and 'no kernels' in kernels.about(), kernels.about()\n"
        "from mcaprobe.routes import resolve\n"
        "assert resolve('auto', 'random', 'cpu') == 'model'\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
