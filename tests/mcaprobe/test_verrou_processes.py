"""Do the processes of a campaign under Verrou die with it, and is a stand-in that perturbs nothing found out?"""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import mcaprobe
from mcaprobe import verrou_worker
from mcaprobe.errors import InputError
from mcaprobe.launchers import ask
from mcaprobe.proofs import counted
from mcaprobe.sample_files import Proof, last_lines
from mcaprobe.verrou import Verrou
from tests.mcaprobe import small_models as models
from tests.mcaprobe import standin_verrou
from tests.mcaprobe.small_models import HERE
from tests.mcaprobe.waiting import alive, until

LINE = f"{HERE}:build_line"
ROOT = Path(__file__).resolve().parents[2]
needs_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="the stand-in for Verrou needs a C compiler")
needs_verrou = [
    pytest.mark.verrou,
    pytest.mark.skipif(ask(["valgrind", "--tool=verrou", "--version"])[0] != 0, reason="no Verrou is on PATH"),
]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """A folder of the test's own, with the input."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    np.save("x.npy", models.line().numpy())
    np.save("image.npy", models.image().numpy())


@needs_compiler
def test_runs_die_with_a_killed_campaign(tmp_path, monkeypatch):
    """No server here: the processes are those of a user."""
    programs = standin_verrou.install(tmp_path / "standin")
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    hanging = tmp_path / "hanging.py"
    hanging.write_text(
        "import os, pathlib, time\nfrom tests.mcaprobe.small_models import build_line\n"
        "def build_model():\n"
        "    if os.environ.get('STANDIN_MODE') == 'random' and os.path.exists('hang'):\n"
        "        pathlib.Path('pid').write_text(str(os.getpid()))\n        time.sleep(600)\n"
        "    return build_line()\n"
    )
    Path("hang").touch()
    command = [sys.executable, "-m", "mcaprobe", "run", "hanging:build_model", "x.npy", "--out", "r", "--backend",
               "verrou", "--samples", "2", "--jobs", "2", "--quiet"]  # fmt: skip
    process = subprocess.Popen(command)
    try:
        assert until(lambda: Path("pid").exists() and Path("pid").read_text())
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    pid = int(Path("pid").read_text())
    assert until(lambda: not alive(pid), 5.0)
    assert Path("r/verrou/reference.json").exists()  # what was finished stays


@pytest.mark.skipif(ask(["valgrind", "--tool=none", "--version"])[0] != 0, reason="no Valgrind is on PATH")
def test_a_valgrind_that_perturbs_nothing_is_found_out(tmp_path, monkeypatch):
    """`valgrind --tool=none` runs everything as it is: a stand-in that looks like a run under Verrou."""
    real = shutil.which("valgrind")
    programs = tmp_path / "standin"
    programs.mkdir()
    (programs / "valgrind").write_text(
        '#!/bin/sh\nwhile :; do case "$1" in\n--version) echo standin; exit 0;;\n--*) shift;;\n*) break;;\nesac; done\n'
        f'exec {real} --tool=none "$@"\n'
    )
    (programs / "valgrind").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    with pytest.raises(InputError, match=r"^Not perturbed: Verrou counted no floating-point operation in the baseline"):
        mcaprobe.run(LINE, "x.npy", samples=2, out="r", verrou=Verrou(jobs=1))


def test_what_a_forward_pass_imports_is_not_perturbed(tmp_path, monkeypatch):
    class Switch(verrou_worker.Instrumentation):
        changes = 0

        def on(self):
            self.changes += 1
            super().on()

    switch = Switch()
    seen: list[bool] = []
    monkeypatch.setattr(models, "seen_by_import", lambda: seen.append(switch.active), raising=False)
    Path("lazily.py").write_text(
        "import lazily_inner\nfrom tests.mcaprobe import small_models as m\nm.seen_by_import()"
    )
    Path("lazily_inner.py").write_text("from tests.mcaprobe import small_models as m\nm.seen_by_import()")
    monkeypatch.syspath_prepend(str(tmp_path))

    class Lazy(models.Line):
        def forward(self, x):
            import lazily  # noqa: F401

            seen.append(switch.active)
            return super().forward(x)

    fast = torch.backends.mha.get_fastpath_enabled()
    try:
        layers, _, _ = verrou_worker.forward(Lazy().eval(), models.line(), ["*"], 0, switch)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    assert seen == [False, False, True] and not switch.active
    assert list(layers) == ["layers.0", "layers.1", "layers.2"]


LOG = """\
==9==  Operation                            Instruction count
==9==       `- Vectorization          Total             Instrumented
==9==  add                  1102211                   293281          ( 27%)
==9==   `- flt                  1030139                   287747      ( 28%)
==9==  mAdd              5605920767               5603162307          (100%)
==9==   `- flt               5605920767               5603162307      (100%)
==9==  ---------------------------------------------------------------------
==9== For lists of detected and suppressed errors, rerun with: -s
==9== ERROR SUMMARY: 0 errors from 0 contexts (suppressed: 0 from 0)
"""


def test_the_table_of_verrou_does_not_hide_why_a_run_died(tmp_path):
    (tmp_path / "0.log").write_text("==9== NOTE: a note\na line\nValueError: not here\n==9== Warning\n" + LOG)
    assert last_lines(tmp_path, "0", 2) == ["a line", "ValueError: not here"]
    end = "==9== Process terminating with default action of signal 4 (SIGILL)"
    (tmp_path / "0.log").write_text(f"a line\n{end}\n{LOG}")
    assert last_lines(tmp_path, "0") == [end]
    (tmp_path / "0.log").write_text("==9== only Valgrind\n" + LOG)
    assert last_lines(tmp_path, "0") == ["==9== only Valgrind"]


@pytest.mark.parametrize("read, expected", [(5603455588, 5603455588), (5603455588 % 2**32, 5603455588), (7, 7)])
def test_operations_are_counted_beyond_32_bits(tmp_path, read, expected):
    (tmp_path / "0.log").write_text(LOG)
    proof = Proof(identity="", counted=read, threads=1, instruction_set="", versions={}, layers={}, aliases={},
                  seconds=0.0, sha256="")  # fmt: skip
    assert counted(tmp_path, "0", proof) == expected


def test_the_last_lines_of_a_run_are_its_own_not_the_summary_of_valgrind(tmp_path):
    (tmp_path / "0.log").write_text(f"==9== Using\nOSError: why\n{LOG}")
    assert last_lines(tmp_path, "0") == ["OSError: why"]
    (tmp_path / "1.log").write_text("==9== the tool crashed\n")
    assert last_lines(tmp_path, "1") == ["==9== the tool crashed"]


@pytest.fixture(scope="module")
def verrou_runs(tmp_path_factory):
    """One campaign under a real Verrou, for all tests of it."""
    folder = tmp_path_factory.mktemp("verrou")
    np.save(folder / "image.npy", models.image().numpy())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        return mcaprobe.run(f"{HERE}:build_small", folder / "image.npy", samples=2, out=folder / "r",
                            keep_samples="*", verrou=Verrou(launcher="native", jobs=2))  # fmt: skip


class TestRealVerrou:
    pytestmark = needs_verrou

    def test_a_campaign_proves_that_it_was_perturbed(self, verrou_runs):
        about = verrou_runs.manifest["verrou"]
        assert all(count > 10_000 for count in about["counted"].values()) and about["baseline_repeated"]
        assert about["instruction_set"] in ("AVX2", "DEFAULT") and set(about["threads"].values()) == {1}
        row = next(row for row in verrou_runs.table("conv1") if row.region == "all")
        assert row.share_exact < 0.9 and 10 < row.bits_mean < 24

    def test_each_element_is_a_few_roundings_away_from_the_baseline(self, verrou_runs):
        reference = verrou_runs.activation("conv1", None)
        first, second = (verrou_runs.activation("conv1", sample) for sample in (0, 1))
        assert not torch.equal(first, second)
        ulp = 2.0**-23 * verrou_runs.activation("conv1", None).abs().max()
        assert 0 < (first - reference).abs().max() <= 12 * ulp

    def test_the_baseline_is_the_stock_forward_to_rounding(self, verrou_runs):
        stock = models.build_small()(models.image())
        assert torch.allclose(verrou_runs.activation("conv2", None), stock.detach(), rtol=1e-4, atol=1e-4)

    def test_vector_math_can_be_left_out(self):
        def campaign(name, **options):
            return mcaprobe.run(f"{HERE}:build_curved", "x.npy", samples=2, out=name, keep_samples="*",
                                verrou=Verrou(launcher="native", jobs=2, **options))  # fmt: skip

        whole, without = campaign("whole"), campaign("without", exclude_math=True)
        counts = [run.manifest["verrou"]["counted"]["reference"] for run in (whole, without)]
        assert 0 < counts[1] < counts[0]
        assert torch.equal(*(run.activation("layers.0", 0) for run in (whole, without)))  # the convolution, before

    @pytest.mark.parametrize("kind", ["exclude", "source"])
    def test_lists_of_the_user_reach_verrou(self, kind):
        """Either leaves nothing to perturb: all of torch is left out, or only a line that does not exist is let in."""
        library = Path(torch.__file__).resolve().parent / "lib" / "libtorch_cpu.so"
        Path("list.txt").write_text({"exclude": f"*\t{library}\n", "source": "no_such_file.c\t1\tnothing\n"}[kind])
        with pytest.raises(InputError, match=r"^Not perturbed: Verrou counted no floating-point operation in the base"):
            mcaprobe.run(LINE, "x.npy", samples=2, out="r",
                         verrou=Verrou(launcher="native", jobs=1, **{kind: (Path("list.txt"),)}))  # fmt: skip
