"""Which command lines does the backend verrou build?"""

import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mcaprobe import launchers
from mcaprobe.__main__ import main
from mcaprobe.container import inside
from mcaprobe.errors import InputError
from mcaprobe.launchers import launch
from mcaprobe.verrou import (
    MODES,
    TIMERS,
    VARIABLES,
    Verrou,
    check_mode,
    native_variables,
    runs_of,
    sample_seed,
    valgrind,
    vector_math,
)

FOLDER = Path("/runs/r/verrou")
VALGRIND = ("valgrind --command-line-only=yes --tool=verrou --vgdb=no --check-nan=no --check-inf=no "
            "--instr-atstart-soft=no ")  # fmt: skip
ENV = ("OMP_NUM_THREADS=1", "MKL_NUM_THREADS=1", "OPENBLAS_NUM_THREADS=1", "PYTHONMALLOC=malloc", "PYTHONHASHSEED=0",
       "PYTHONPATH=/code", "PYTHONDONTWRITEBYTECODE=1", "HOME=/tmp")  # fmt: skip
ENGINE_ENV = " ".join(f"--env={variable}" for variable in ENV)


def test_the_golden_command_of_a_native_sample():
    found = launch(Verrou(), "native", "random", 0, "1", FOLDER)
    assert shlex.join(found.command) == (
        f"{VALGRIND}--rounding-mode=random --vr-seed=673228719 --exclude=/runs/r/verrou/exclude-timers.txt "
        f"{sys.executable} -m mcaprobe.verrou_worker /runs/r/verrou 1"
    )
    assert VARIABLES.items() <= found.environment.items()


def test_the_golden_command_of_the_baseline_is_nearest_whatever_the_mode():
    for run in ("reference", "again"):
        words = valgrind(Verrou(), "nearness", 7, run, FOLDER)
        assert words[-3:] == ["--rounding-mode=nearest", "--vr-seed=0", f"--exclude={FOLDER}/exclude-timers.txt"]


@pytest.fixture
def lists(tmp_path):
    for name, text in (("a.txt", "f\t*\n"), ("b.txt", "g\t*\n"), ("s.txt", "x.c\t3\n")):
        (tmp_path / name).write_text(text)
    return tmp_path


def test_lists_pass_through_as_copies(lists):
    options = Verrou(exclude=(lists / "a.txt", lists / "b.txt"), source=(lists / "s.txt",), exclude_math=True)
    words = valgrind(options, "random", 0, "0", FOLDER)
    assert [word for word in words if word.startswith(("--exclude", "--source"))] == [
        f"--exclude={FOLDER}/exclude-timers.txt", f"--exclude={FOLDER}/exclude-math.txt",
        f"--exclude={FOLDER}/exclude-0.txt", f"--exclude={FOLDER}/exclude-1.txt", f"--source={FOLDER}/source-0.txt",
    ]  # fmt: skip
    copies = lists / "copies"
    copies.mkdir()
    options.write_lists(copies)
    assert {path.name for path in copies.iterdir()} == set(options.lists())
    assert (copies / "exclude-1.txt").read_text() == "g\t*\n" and (copies / "source-0.txt").read_text() == "x.c\t3\n"
    assert (copies / "exclude-timers.txt").read_text() == "".join(f"{name}\t*\n" for name in TIMERS)
    math = (copies / "exclude-math.txt").read_text()
    assert "mkl_vml_kernel_sExp_L9HAynn\t*\n" in math and "Sleef_expf8_u10avx2\t*\n" in math
    assert len(math.splitlines()) == len(set(vector_math()))


def test_the_bits_depend_on_what_the_lists_say_not_on_their_names(lists):
    one = Verrou(exclude=(lists / "a.txt",)).identity()
    (lists / "b.txt").write_text("f\t*\n")
    assert Verrou(exclude=(lists / "b.txt",)).identity() == one
    (lists / "a.txt").write_text("h\t*\n")
    assert Verrou(exclude=(lists / "a.txt",)).identity() != one


@pytest.mark.parametrize("engine, more", [("docker", ""), ("podman", "--userns=keep-id ")])
def test_the_golden_command_inside_an_image(engine, more):
    words = inside(Verrou(), engine, ["valgrind", "a b", "c"], VARIABLES, FOLDER, Path("/home/me"), (1000, 100))
    assert shlex.join(words) == (
        f"{engine} run --rm --read-only --tmpfs=/tmp --network=none --user=1000:100 {more}"
        f"--volume=/runs/r/verrou:/campaign --volume=/home/me:/code:ro --workdir=/code {ENGINE_ENV} "
        "--entrypoint=valgrind mcaprobe-verrou 'a b' c"
    )


def test_root_runs_as_the_user_of_the_image_and_the_engine_gets_its_options():
    options = Verrou(engine="podman --runtime runc", image="other:2", engine_options=("--network=host", "--cpus=1"))
    words = inside(options, "podman", ["valgrind", "x"], {}, FOLDER, Path("/home/me"), (0, 0))
    assert words[:4] == ["podman", "--runtime", "runc", "run"]
    assert not [word for word in words if word.startswith(("--user", "--network=none"))]
    assert words[-5:] == ["--network=host", "--cpus=1", "--entrypoint=valgrind", "other:2", "x"]


def test_the_golden_command_of_apptainer():
    options = Verrou(image="/images/v.sif", engine_options=("--fakeroot",))
    words = inside(options, "apptainer", ["valgrind", "x"], {"A": "1"}, FOLDER, Path("/home/me"), (1000, 100))
    assert shlex.join(words) == (
        "apptainer exec --containall --net --network=none --bind=/runs/r/verrou:/campaign --bind=/home/me:/code:ro "
        "--pwd=/code --env=A=1 --env=PYTHONPATH=/code --env=PYTHONDONTWRITEBYTECODE=1 --fakeroot /images/v.sif "
        "valgrind x"
    )


def test_a_sample_inside_an_image_finds_its_files_there(monkeypatch):
    monkeypatch.setattr(launchers, "_user", lambda: (1000, 100))
    words = launch(Verrou(), "docker", "random", 0, "3", FOLDER).command
    assert words[-4:] == ["-m", "mcaprobe.verrou_worker", "/campaign", "3"] and words[-5] == "python3"
    assert "--exclude=/campaign/exclude-timers.txt" in words


def test_the_environment_cannot_change_the_arithmetic():
    given = {"VERROU_ROUNDING_MODE": "float", "VALGRIND_OPTS": "--tool=none", "ATEN_CPU_CAPABILITY": "default",
             "OMP_NUM_THREADS": "8", "HOME": "/home/me"}  # fmt: skip
    assert native_variables(given) == {**VARIABLES, "HOME": "/home/me"}


def test_each_sample_has_a_seed_of_its_own():
    seeds = [sample_seed(seed, str(sample)) for seed in (0, 1) for sample in range(500)]
    assert len(set(seeds)) == 1000 and all(0 <= seed < 2**32 for seed in seeds)
    assert runs_of(2) == ["reference", "again", "0", "1"]


def test_every_mode_but_the_baselines_is_taken():
    for mode in MODES:
        check_mode(mode)
    with pytest.raises(InputError, match=r"nearest is the IEEE baseline"):
        check_mode("nearest")
    with pytest.raises(InputError, match=r"Expected a rounding mode of Verrou among random, .* got 'rr'"):
        check_mode("rr")
    with pytest.raises(InputError, match=r"got 'nearnes'; the nearest is nearness"):
        check_mode("nearnes")


def test_print_command_shows_every_run_and_runs_nothing(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    arguments = ["run", "no.such:model", "nothing.npy", "--out", str(tmp_path / "r"), "--backend", "verrou"]
    arguments += ["--launcher", "native", "--samples", "3", "--print-command", "--rounding-mode", "nearness"]
    assert main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[-1] for line in lines] == ["reference", "again", "0", "1", "2"]
    assert all(line.startswith("env OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 ") and "valgrind" in line for line in lines)
    assert ["--rounding-mode=nearness" in line for line in lines] == [False, False, True, True, True]
    assert not (tmp_path / "r").exists()


def test_print_command_does_not_wait_for_torch(tmp_path):
    code = """import sys
from mcaprobe.__main__ import main
options = ["--out", "r", "--backend", "verrou", "--launcher", "podman", "--print-command"]
assert main(["run", "m:f", "x", *options]) == 0
assert "torch" not in sys.modules"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


WRONG = {
    "emulator": (["--jobs", "2"], "--jobs is an option of the backend verrou: add --backend verrou."),
    "print": (["--print-command"], "--print-command is an option of the backend verrou"),
    "one sample": (["--backend", "verrou", "--samples", "1", "--print-command"], "Expected at least 2 samples"),
    "mode": (["--backend", "verrou", "--mode", "rr"], "Expected a rounding mode of Verrou among"),
    "two modes": (["--backend", "verrou", "--mode", "random", "--rounding-mode", "float"], "contradict each other"),
    "route": (["--backend", "verrou", "--route", "model"], "The backend verrou has no route"),
    "precision": (["--backend", "verrou", "--precision", "8"], "The backend verrou has no precision"),
    "jobs": (["--backend", "verrou", "--jobs", "0"], "Expected at least 1 job"),
    "list": (["--backend", "verrou", "--exclude", "nowhere.txt"], "There is no list nowhere.txt for Verrou."),
    "image": (["--backend", "verrou", "--launcher", "native", "--image", "i"], "The launcher native has no image"),
}


@pytest.mark.parametrize("options, sentence", WRONG.values(), ids=WRONG)
def test_a_wrong_option_is_one_sentence(capsys, tmp_path, options, sentence):
    model = "tests.mcaprobe.small_models:build_line"
    np.save(tmp_path / "x.npy", np.zeros((1, 1, 24), np.float32))
    code = main(["run", model, str(tmp_path / "x.npy"), "--out", str(tmp_path / "r"), *options])
    assert code == 2 and not (tmp_path / "r").exists()
    errors = capsys.readouterr().err
    assert sentence in errors and errors.count("\n") == 1
