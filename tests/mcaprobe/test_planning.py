"""Is what a campaign needs known before it starts?"""

import json
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from mcaprobe.errors import InputError
from mcaprobe.memory import LiveBytes
from mcaprobe.planning import base_memory, disk_needed, look, memory_needed, plan, state_bytes
from mcaprobe.settings import Settings, parse_bytes, show_bytes
from mcaprobe.statistics import Moments
from tests.mcaprobe import small_models as models

ROOT = Path(__file__).resolve().parents[2]
# Largest and smallest measured over predicted growth of the process; the prediction is to be on the safe side.
MOST, LEAST = 1.0, 0.4


@pytest.mark.parametrize(
    ("text", "expected"),
    [("4GiB", 4 * 2**30), ("500MB", 500 * 10**6), ("1.5 KiB", 1536), ("77", 77), ("1tb", 10**12)],
)
def test_sizes_are_read(text, expected):
    assert parse_bytes(text) == expected


@pytest.mark.parametrize("text", ["", "GiB", "-1GiB", "4 gallons", "0"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(InputError, match="Expected a size such as 4GiB"):
        parse_bytes(text)


def test_sizes_are_shown():
    assert [show_bytes(n) for n in (5, 2048, 3 * 2**20, 5 * 2**29)] == [
        "5 B",
        "2.0 KiB",
        "3.0 MiB",
        "2.5 GiB",
    ]


def test_live_bytes_are_those_of_tensors_alive_together():
    counter = LiveBytes()
    x = torch.zeros(1000)  # not counted: it was there before
    with counter:
        a = x + 1  # 4000
        b = a * 2  # 8000
        del a  # 4000
        b.add_(1)  # in place
        c = b.view(10, 100)  # a view
        d = c + 1  # 8000
        del b, c, d
    assert counter.peak == 8000 and counter.live == 0 and counter.largest == 1000


def test_live_bytes_of_a_chain_do_not_grow_with_its_length():
    peaks = []
    for length in (3, 12):
        model = nn.Sequential(*[nn.Conv2d(2, 2, 3, padding=1) for _ in range(length)]).eval()
        peaks.append(look(model, torch.rand(1, 2, 8, 8), ["*"]).live)
    assert peaks[0] == peaks[1] == 2 * 2 * 8 * 8 * 4


class Attention(nn.Module):
    def forward(self, x):
        return nn.functional.scaled_dot_product_attention(x, x, x)


@pytest.mark.parametrize(
    ("model", "shape", "heads"),
    [(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), (1, 300, 8), 2), (Attention(), (1, 3, 300, 4), 3)],
    ids=["transformer layer", "attention"],
)
def test_attention_is_counted_by_its_parts(model, shape, heads):
    """A perturbed block has the matrix of scores and its softmax in memory; torch's fused kernels never do."""
    before = torch.backends.mha.get_fastpath_enabled()
    seen = look(model.eval(), torch.rand(shape), [":output"])
    assert seen.live >= 2 * heads * 300 * 300 * 4 and seen.largest == heads * 300 * 300
    assert torch.backends.mha.get_fastpath_enabled() == before


def test_the_bytes_of_stored_moments_are_those_of_their_state():
    seen = look(models.build_small(), models.image(), ["*"])
    state = Moments.empty(torch.zeros(1, 4, 16, 16)).state()
    size = sum(t.numel() * t.element_size() for t in state.values())
    assert state_bytes(seen.layers["conv1"]) == pytest.approx(size, rel=0.01)


def test_chunks_are_as_many_blocks_as_the_memory_holds():
    seen = look(models.build_small(), models.image(256), ["*"])
    settings = [Settings(samples=20, threads=1, memory=m) for m in _budgets(seen)]
    assert [plan(s, seen, None, totals=True).blocks for s in settings] == [1, 2, 3, 4]


def _budgets(seen):
    settings = Settings(samples=20, threads=1)
    slack = 2**20  # the process grows a little while the test runs
    return [memory_needed(settings, seen, 1 + 5 * blocks, 1, True) + slack for blocks in (1, 2, 3, 4)]


def test_disk_is_needed_for_all_moments_only_where_there_are_chunks():
    seen = look(models.build_small(), models.image(64), ["*"])
    settings = Settings(samples=20)
    more = disk_needed(settings, seen, 2) - disk_needed(settings, seen, 1)
    assert more == 4 * sum(state_bytes(info) for info in seen.layers.values())
    kept = Settings(samples=20, keep_samples=("conv2",))
    assert disk_needed(kept, seen, 1) - disk_needed(settings, seen, 1) == 21 * 2 * 64 * 64 * 4


MEASURE = """
import json, sys, torch
from torch import nn
import mcaprobe
from mcaprobe.memory import base_memory
kind, samples, out, route = sys.argv[1], int(sys.argv[2]), *sys.argv[3:]
torch.manual_seed(0)
if kind == "convolutions":
    model = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.PReLU(), nn.Conv2d(8, 8, 3, padding=1))
    x = torch.rand(1, 1, 320, 320)
elif kind == "attention":  # outside of perturbed blocks torch has fused kernels for it
    model, x = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True), torch.rand(1, 1024, 32)
else:
    model = nn.Sequential(nn.Linear(512, 2048), nn.GELU(), nn.Linear(2048, 2048))
    x = torch.rand(320, 512)
before = {}
class Watcher(mcaprobe.observer.Observer):
    def start(self, *args):
        before["bytes"] = base_memory("cpu")
result = mcaprobe.run(model.eval(), x, samples=samples, threads=2, out=out, route=route, observer=Watcher())
print(json.dumps({**result.manifest["memory"], "before": before["bytes"]}))
"""


# On the route exact the prediction is three to six times too high: only that it is high enough is held.
@pytest.mark.parametrize(("route", "least"), [("model", LEAST), ("auto", 0.1)])
@pytest.mark.parametrize(("kind", "samples"), [("convolutions", 10), ("products", 5), ("attention", 5)])
def test_the_measured_peak_is_within_the_stated_factor_of_the_prediction(tmp_path, kind, samples, route, least):
    program = MEASURE.replace("import mcaprobe\n", "import mcaprobe, mcaprobe.observer\n")
    command = [sys.executable, "-c", program, kind, str(samples), str(tmp_path / "r"), route]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    ratio = (found["measured"] - found["before"]) / (found["predicted"] - found["before"])
    assert least < ratio < MOST, found


def test_the_base_is_the_memory_of_this_process():
    assert 2**26 < base_memory("cpu") < 2**36


FREED = """
import torch
from mcaprobe.memory import base_memory, give_back

before = base_memory("cpu")
# Blocks below glibc's threshold for maps of their own come from the heap, and the last one lies above them all.
many = [torch.ones(1 << 14) for _ in range(6400)]
last = torch.ones(1 << 14)
full = base_memory("cpu")
del many
kept = base_memory("cpu")
give_back()
print(full - before, kept - before, base_memory("cpu") - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be asked to")
def test_memory_that_was_freed_is_given_back():
    done = subprocess.run([sys.executable, "-c", FREED], capture_output=True, text=True, check=True)
    full, kept, left = map(int, done.stdout.split())
    assert full > 380 << 20 and kept > 300 << 20
    assert left < 100 << 20
