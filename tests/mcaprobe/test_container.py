"""Does the image of docker/ perturb, and does a campaign run in it? With podman, docker or apptainer, for real.

Needs root, the engine (podman: and runc), and an image: either one that is there,

    MCAPROBE_TEST_IMAGE    its name; of apptainer its file

or what it takes to build one with buildah, without a network:

    MCAPROBE_TEST_BASE     the base image, with Python 3.11 or newer, venv and pip (made with debootstrap, say)
    MCAPROBE_TEST_LOCAL    a folder with what docker/local shall hold: one tarball verrou*.tar.*, and the wheels that
                           `pip download --constraint constraints.txt torch==<version>+cpu 'setuptools>=77' .` leaves

What the engine needs on this machine may be said otherwise than for the one that these tests were written on:

    MCAPROBE_TEST_ENGINE   `podman --runtime runc`; or `docker`; or what ends in `apptainer`
    MCAPROBE_TEST_OPTIONS  of its `run`: `--ulimit=nofile=20000:20000 --ulimit=nproc=1024:1024`
    MCAPROBE_TEST_BUILD    of `buildah bud`: `--isolation=chroot`
"""

import hashlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from mcaprobe.__main__ import main
from mcaprobe.container import inside
from mcaprobe.verrou import APPTAINER, DOCKER, PODMAN, Verrou
from tests.mcaprobe.one_node_slurm import configuration as configuration
from tests.mcaprobe.run_directories import expect_equal
from tests.mcaprobe.waiting import until

ROOT = Path(__file__).resolve().parents[2]
IMAGE, BASE = os.environ.get("MCAPROBE_TEST_IMAGE"), os.environ.get("MCAPROBE_TEST_BASE")
LOCAL = os.environ.get("MCAPROBE_TEST_LOCAL")
ENGINE = os.environ.get("MCAPROBE_TEST_ENGINE", "podman --runtime runc")
LAUNCHER = next(word for word in shlex.split(ENGINE) if word in (DOCKER, PODMAN, APPTAINER))
OPTIONS = os.environ.get("MCAPROBE_TEST_OPTIONS", "--ulimit=nofile=20000:20000 --ulimit=nproc=1024:1024").split()
BUILD = os.environ.get("MCAPROBE_TEST_BUILD", "--isolation=chroot").split()


def lacking(*programs: str) -> str | None:
    """Return why nothing can be run here, or None."""
    if os.getuid() != 0:
        return "not root"
    return next((f"no {program} on PATH" for program in programs if shutil.which(program) is None), None)


def no_build() -> str | None:
    """Return why no image can be built here, or None."""
    if BASE is None:
        return "no base image: MCAPROBE_TEST_BASE"
    return lacking("buildah", "runc")


def no_image() -> str | None:
    """Return why there is no image to run, or None."""
    if IMAGE is None and LOCAL is None:
        return "no image (MCAPROBE_TEST_IMAGE) and no tarball of Verrou to build one with (MCAPROBE_TEST_LOCAL)"
    needed = ["runc"] if LAUNCHER == PODMAN else []
    return lacking(shlex.split(ENGINE)[0], *needed) or (no_build() if IMAGE is None else None)


pytestmark = pytest.mark.container
needs_image = pytest.mark.skipif(no_image() is not None, reason=str(no_image()))
with_names = pytest.mark.skipif(LAUNCHER == APPTAINER, reason="its containers have no names, and options of their own")
needs_base = pytest.mark.skipif(no_build() is not None, reason=str(no_build()))


def context(folder: Path) -> Path:
    """Make a context: what .dockerignore lets through, docker/local empty."""
    kept = [line[1:] for line in (ROOT / ".dockerignore").read_text().split() if line.startswith("!")]
    for name in (*kept, "docker/Dockerfile", ".dockerignore"):
        source, copy = ROOT / name, folder / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        if name == "docker/local":
            copy.mkdir()
        elif source.is_dir():
            shutil.copytree(source, copy, ignore=shutil.ignore_patterns("__pycache__", "*.so", "*.o", "results"))
        else:
            shutil.copy(source, copy)
    return folder


def build(folder: Path, tag: str, sha256: str, *more: str) -> subprocess.CompletedProcess[str]:
    """Build the image of a context."""
    command = ["buildah", "bud", *BUILD, "--file", "docker/Dockerfile", "--tag", tag, "--build-arg", f"BASE={BASE}",
               "--build-arg", f"VERROU_SHA256={sha256}", *more, "."]  # fmt: skip
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    """The image that is there, or the one that is built here."""
    if IMAGE is not None:
        return IMAGE
    folder = context(tmp_path_factory.mktemp("context"))
    for path in Path(str(LOCAL)).iterdir():
        shutil.copy(path, folder / "docker" / "local")
    (tarball,) = (folder / "docker" / "local").glob("verrou*.tar.*[!6]")
    sha256 = hashlib.sha256(tarball.read_bytes()).hexdigest()
    done = build(folder, "mcaprobe-verrou-test", sha256, "--build-arg", "PIP_NO_INDEX=1")
    shutil.rmtree(folder)
    assert done.returncode == 0, done.stderr[-4000:]
    return "localhost/mcaprobe-verrou-test"


MODEL = """
import os, time
import torch
def build_model():
    if os.path.exists("/code/hang"):
        time.sleep(600)
    model = torch.nn.Sequential(torch.nn.Conv1d(1, 3, 3), torch.nn.ReLU(), torch.nn.Conv1d(3, 1, 3))
    generator = torch.Generator().manual_seed(6)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return model
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder that the user inside can read, with a model and its input."""
    tmp_path.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.py").write_text(MODEL)
    np.save("x.npy", np.random.default_rng(0).standard_normal((1, 1, 24)).astype(np.float32))
    (tmp_path / "r").mkdir()
    return tmp_path


def arguments(
    image: str, *more: str, launcher: str = LAUNCHER, out: str = "r", workers: tuple[str, ...] = ("--jobs", "2")
) -> list[str]:
    """Return the arguments of a campaign of two samples."""
    options = [f"--engine-option={option}" for option in OPTIONS]
    return ["run", "small:build_model", "x.npy", "--out", out, "--backend", "verrou", "--launcher", launcher,
            "--engine", ENGINE, *options, "--image", image, "--samples", "2", *workers, *more]  # fmt: skip


def run_inside(
    image: str, folder: Path, program: list[str], user: tuple[int, int] = (0, 0), options: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    """Run a program inside as a sample is run, as the user of the image or as another number."""
    settings = Verrou(launcher="docker", engine=ENGINE, image=image, engine_options=(*OPTIONS, *options))
    command = inside(settings, "docker", program, {}, folder, folder, user)
    return subprocess.run(command, capture_output=True, text=True)


def containers(image: str) -> list[str]:
    """Return the containers of the image that are there; none of apptainer, whose containers are processes."""
    if LAUNCHER == APPTAINER:
        return []
    command = [*shlex.split(ENGINE), "ps", "--all", "--format", "{{.Image}}"]
    there = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    return [name for name in there if image in name]


@needs_image
@with_names
class TestImage:
    def test_its_check_passes(self, image):
        sealed = ["run", "--rm", "--read-only", "--tmpfs=/tmp", "--network=none"]
        done = subprocess.run([*shlex.split(ENGINE), *sealed, *OPTIONS, image], capture_output=True, text=True)
        print(done.stdout)
        assert done.returncode == 0, done.stdout + done.stderr
        assert [line.split()[0] for line in done.stdout.splitlines()] == ["ok"] * 3

    def test_its_check_passes_for_a_user_whom_it_does_not_know(self, image, here):
        done = run_inside(image, here / "r", ["mcaprobe-check"], user=(4321, 4321))
        assert done.returncode == 0, done.stdout + done.stderr

    def test_its_check_fails_where_nothing_is_instrumented(self, image, here):
        done = run_inside(image, here / "r", ["mcaprobe-check"], options=(uninstrumented(here),))
        assert done.returncode == 1
        assert [line.split()[0] for line in done.stdout.splitlines()] == ["FAILED", "ok", "FAILED"]

    def test_nobody_is_root_there_is_no_network_and_only_the_folder_of_runs_can_be_written(self, image, here):
        (here / "r").chmod(0o777)
        code = """import os
for place in ("/", "/opt/mcaprobe", "/code", "/usr/local/bin", "/campaign", "/tmp"):
    try:
        open(place + "/written", "w").close()
        print(place, "yes")
    except OSError:
        print(place, "no")
print(os.listdir("/sys/class/net"), os.getuid())"""
        done = run_inside(image, here / "r", ["python3", "-c", code])
        assert done.stdout.split("\n")[:6] == ["/ no", "/opt/mcaprobe no", "/code no", "/usr/local/bin no",
                                               "/campaign yes", "/tmp yes"], done.stderr  # fmt: skip
        assert done.stdout.split("\n")[6].startswith("['lo'] ")
        assert int(done.stdout.split()[-1]) == (here / "r" / "written").stat().st_uid == 10001

    def test_it_has_no_compiler_and_no_libraries_to_link_against(self, image, here):
        code = "import shutil, pathlib; print([shutil.which(p) for p in ('cc', 'gcc', 'g++', 'make')]); "
        code += "print(list(pathlib.Path('/opt/verrou').rglob('*.a')))"
        assert run_inside(image, here / "r", ["python3", "-c", code]).stdout == f"{[None] * 4}\n[]\n"


def uninstrumented(folder: Path) -> str:
    """Return the option that puts a script, which runs the program as it is, in the place of Valgrind."""
    script = folder / "valgrind"
    script.write_text(
        '#!/bin/sh\nwhile :; do case "$1" in --version) exit 0;; --*) shift;; *) break;; esac; done\nexec "$@"\n'
    )
    script.chmod(0o755)
    return f"--volume={script}:/opt/verrou/bin/valgrind:ro"


@needs_image
class TestCampaign:
    def test_it_proves_that_it_was_perturbed(self, image, here, capsys):
        assert main(arguments(image)) == 0, capsys.readouterr().err
        manifest = json.loads((here / "r" / "manifest.json").read_text())
        about = manifest["verrou"]
        print(about)
        assert manifest["status"] == "complete" and about["launcher"] == LAUNCHER and about["image"] == image
        assert list(about["counted"]) == ["reference", "again", "0", "1"] and min(about["counted"].values()) > 100
        assert about["baseline_repeated"] and set(about["threads"].values()) == {1}
        assert "verrou" in about["version"] and about["instruction_set"] in ("AVX2", "DEFAULT")
        assert not containers(image)

    @with_names
    def test_nothing_instrumented_is_one_sentence(self, image, here, capsys):
        more = f"--engine-option={uninstrumented(here)}"
        assert main(arguments(image, more, launcher="docker")) == 2  # whose command podman takes as well
        errors = capsys.readouterr().err
        assert "mcaprobe: Not perturbed: Verrou counted no floating-point operation in" in errors

    @with_names
    def test_an_interrupted_campaign_leaves_no_container(self, image, here):
        (here / "hang").touch()
        heard = "signal.signal(signal.SIGINT, signal.default_int_handler)"  # a shell's background jobs ignore it
        code = f"import signal, sys; {heard}; from mcaprobe.__main__ import main; sys.exit(main())"
        command = [sys.executable, "-c", code, *arguments(image, "--quiet")]
        process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(ROOT)})
        try:
            assert until(lambda: len(containers(image)) == 2, 300)
            time.sleep(3)
            process.send_signal(signal.SIGINT)
            process.wait(60)
        finally:
            process.kill()
        assert until(lambda: not containers(image), 20)

    def test_a_sample_that_dies_shows_its_last_lines(self, image, here, capsys):
        (here / "small.py").write_text(
            MODEL + "import pathlib\nif pathlib.Path('/code').exists(): raise OSError('no')\n"
        )
        assert main(arguments(image)) == 2
        errors = capsys.readouterr().err
        assert "ended with exit code 4" in errors and "Cannot import the module small" in errors


@needs_image
class TestWorkers:
    """The units of a cluster, each a run inside the image on its worker, against the runs of one process."""

    @staticmethod
    def expect_the_same_bits(image: str, here: Path, *executor: str) -> None:
        assert main(arguments(image)) == 0
        assert main(arguments(image, out="w", workers=(*executor, "--workers", "2"))) == 0
        expect_equal(here / "r", here / "w")
        manifest = json.loads((here / "w" / "manifest.json").read_text())
        assert manifest["verrou"]["launcher"] == LAUNCHER and min(manifest["verrou"]["counted"].values()) > 100
        assert not containers(image)

    def test_processes(self, image, here):
        self.expect_the_same_bits(image, here, "--executor", "processes")

    @pytest.mark.slurm
    def test_array_jobs_of_slurm(self, image, here, configuration, monkeypatch):
        monkeypatch.setenv("SLURM_CONF", str(configuration))
        self.expect_the_same_bits(image, here, "--executor", "slurm")


@needs_base
class TestBuild:
    def test_another_checksum_stops_the_build_with_one_sentence(self, tmp_path):
        folder = context(tmp_path)
        (folder / "docker" / "local" / "verrou-1.tar.gz").write_text("no release")
        done = build(folder, "mcaprobe-verrou-never", "0" * 64)
        sentence = "get_verrou: The sha256 of verrou-1.tar.gz is "
        assert done.returncode != 0
        assert [line.startswith(sentence) for line in done.stderr.splitlines() if "get_verrou:" in line] == [True]
        assert (
            "mcaprobe-verrou-never" not in subprocess.run(["buildah", "images"], capture_output=True, text=True).stdout
        )

    @pytest.mark.skipif(no_image() is not None, reason=str(no_image()))
    def test_an_image_without_verrou_is_one_sentence(self, here, capsys):
        assert main(arguments(str(BASE))) == 2
        assert f"mcaprobe: The image {BASE} has no Verrou, or {LAUNCHER} refuses to run it (" in capsys.readouterr().err
