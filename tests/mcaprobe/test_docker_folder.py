"""Does docker/ hold what it promises? What can be seen without an engine; test_container.py builds and runs it."""

import hashlib
import http.server
import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
import threading
from functools import partial
from pathlib import Path

import pytest

from mcaprobe.container import CAMPAIGN, CODE, IMAGES
from tests.mcaprobe import standin_verrou

ROOT = Path(__file__).resolve().parents[2]
DOCKER = ROOT / "docker"
GET, CHECK = DOCKER / "get_verrou.py", DOCKER / "check"


def instructions() -> list[tuple[str, str]]:
    """Return the instructions of the Dockerfile with their arguments, continued lines joined."""
    text = re.sub(r"^\s*#.*\n", "", (DOCKER / "Dockerfile").read_text(), flags=re.M).replace("\\\n", " ")
    return [
        (word, " ".join(rest.split())) for word, _, rest in (line.partition(" ") for line in text.splitlines() if line)
    ]


def last_stage() -> list[tuple[str, str]]:
    found = instructions()
    return found[max(i for i, (word, _) in enumerate(found) if word == "FROM") :]


def test_the_base_is_an_argument_and_its_default_a_version():
    first, *rest = instructions()
    assert first[0] == "ARG"
    assert re.fullmatch(r"BASE=docker\.io/library/python:3\.\d+\.\d+-slim-[a-z]+(@sha256:[0-9a-f]{64})?", first[1])
    assert [text.split()[0] for word, text in rest if word == "FROM"] == ["${BASE}", "${BASE}"]


def test_verrou_is_an_argument_and_comes_from_nowhere_else():
    arguments = {text.partition("=")[0] for word, text in instructions() if word == "ARG"}
    assert {"BASE", "VERROU_URL", "VERROU_SHA256"} <= arguments
    mentions = [(word, text) for word, text in instructions() if "/opt/verrou" in text and word != "ENV"]
    assert [word for word, _ in mentions] == ["RUN", "COPY"]
    assert mentions[0][1] == (
        "python3 /build/docker/get_verrou.py --local /build/docker/local --into /opt/verrou "
        '--url "${VERROU_URL}" --sha256 "${VERROU_SHA256}"'
    )


def test_nothing_is_compiled_or_taken_from_a_package_manager_of_the_system():
    words = "gcc g++ cc clang make cmake ninja configure autogen autoreconf build-essential apt apt-get apk dnf git"
    for word, text in instructions():
        assert not (word == "RUN" and set(re.split(r"[^\w+-]+", text)) & set(words.split())), text
    assert not [text for word, text in instructions() if word == "ADD"]
    assert "%post" not in (DOCKER / "mcaprobe-verrou.def").read_text()
    for path in DOCKER.iterdir():
        if path.is_file():
            assert not re.search(r"valgrind\S*\.tar\.bz2|valgrind\.\*?diff|patch -p", path.read_text()), path


def test_nobody_is_root_inside():
    stage = last_stage()
    users = [text for word, text in stage if word == "USER"]
    assert users == ["mcaprobe"]
    created = next(i for i, (word, text) in enumerate(stage) if word == "RUN" and " mcaprobe" in text)
    assert "useradd" in stage[created][1]
    assert all(word in ("WORKDIR", "CMD") for word, _ in stage[stage.index(("USER", "mcaprobe")) + 1 :])


def test_the_image_is_ready_for_a_file_system_that_cannot_be_written():
    environment = next(text for word, text in last_stage() if word == "ENV").split()
    assert {"PYTHONDONTWRITEBYTECODE=1", "HOME=/tmp", "VALGRIND_LIB=/opt/verrou/libexec/valgrind"} <= set(environment)
    assert any(f"mkdir {CAMPAIGN} {CODE}" in text for word, text in last_stage() if word == "RUN")


def test_the_context_is_small_and_has_what_is_copied():
    lines = (ROOT / ".dockerignore").read_text().split()
    assert lines[0] == "*"
    kept = {line[1:] for line in lines if line.startswith("!")}
    copied = {
        source.rstrip("/")
        for word, text in instructions()
        if word == "COPY" and not text.startswith("--from")
        for source in text.split()[:-1]
    }
    assert copied == kept
    assert all((ROOT / path).exists() for path in copied)


def test_apptainer_takes_the_image_that_docker_builds():
    text = (DOCKER / "mcaprobe-verrou.def").read_text()
    assert text.startswith("Bootstrap: docker-archive\nFrom: mcaprobe-verrou.tar\n")
    assert f"From: {IMAGES['docker']}:latest" in text
    assert re.search(r"^%test\n +mcaprobe-check$", text, re.M)
    readme = (DOCKER / "README.md").read_text()
    assert "-o mcaprobe-verrou.tar mcaprobe-verrou" in readme
    assert f"apptainer build {IMAGES['apptainer']} docker/mcaprobe-verrou.def" in readme


RELEASE = ("bin/valgrind", "libexec/valgrind/verrou-amd64-linux", "libexec/valgrind/verrouCBinding.so", "env.sh",
           "lib/valgrind/libvex-amd64-linux.a")  # fmt: skip


def tarball(path: Path, names: tuple[str, ...] = RELEASE) -> str:
    """Write a tarball of the layout of a release, owned by another; return its sha256."""
    with tarfile.open(path, "w:gz") as archive:
        for name in names:
            member = tarfile.TarInfo(f"./{name}")
            member.size, member.mode, member.uid, member.uname = 1, 0o755, 1234, "builder"
            archive.addfile(member, io.BytesIO(b"x"))
    return hashlib.sha256(path.read_bytes()).hexdigest()


def get(folder: Path, sha256: str, url: str = "") -> subprocess.CompletedProcess[str]:
    """Run get_verrou.py as the Dockerfile does."""
    command = [sys.executable, str(GET), "--local", str(folder / "local"), "--into", str(folder / "into")]
    return subprocess.run([*command, "--url", url, "--sha256", sha256], capture_output=True, text=True)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "local").mkdir()
    return tmp_path


def unpacked(folder: Path) -> set[str]:
    return {str(path.relative_to(folder / "into")) for path in (folder / "into").rglob("*") if path.is_file()}


def test_the_tarball_with_the_stated_checksum_is_unpacked(folder):
    sha256 = tarball(folder / "local" / "verrou-1.tar.gz")
    (folder / "local" / "verrou-1.tar.gz.sha256").write_text("beside a release, not a tarball")
    done = get(folder, sha256.upper())
    assert done.returncode == 0 and done.stdout == f"Verrou from verrou-1.tar.gz, sha256 {sha256.upper()}\n"
    assert unpacked(folder) == set(RELEASE[:-1])  # no libraries to link against
    assert os.access(folder / "into" / "bin" / "valgrind", os.X_OK)


REFUSED = {
    "another file": (
        "0" * 64,
        RELEASE,
        r"The sha256 of verrou-1.tar.gz is \w{64}, VERROU_SHA256 is 0{64}: another file",
    ),
    "no checksum": ("", RELEASE, r"Expected the sha256 of verrou-1.tar.gz as VERROU_SHA256, 64 .* digits, got ''"),
    "half a checksum": ("abc", RELEASE, r"Expected the sha256 of .*, got 'abc'"),
    "no Verrou": (None, RELEASE[:1], r"verrou-1.tar.gz is no release of Verrou: it has no libexec/valgrind/verrou-\*"),
}


@pytest.mark.parametrize("sha256, names, sentence", REFUSED.values(), ids=REFUSED)
def test_another_tarball_stops_the_build_with_one_sentence(folder, sha256, names, sentence):
    real = tarball(folder / "local" / "verrou-1.tar.gz", names)
    done = get(folder, real if sha256 is None else sha256)
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and not done.stdout
    assert re.match(f"get_verrou: {sentence}", done.stderr), done.stderr
    assert sha256 is None or not (folder / "into").exists()


def test_what_is_no_archive_is_one_sentence(folder):
    (folder / "local" / "verrou.tar.gz").write_text("no archive")
    done = get(folder, hashlib.sha256(b"no archive").hexdigest())
    assert done.returncode == 1 and re.match(r"get_verrou: verrou.tar.gz is no tarball", done.stderr)


@pytest.mark.parametrize(
    "names, found", [((), "none"), (("verrou-1.tar.gz", "verrou-2.tar.gz"), "verrou-1.tar.gz, verrou-2")]
)
def test_without_an_address_there_is_one_tarball(folder, names, found):
    for name in names:
        (folder / "local" / name).touch()
    done = get(folder, "0" * 64)
    assert done.returncode == 1 and re.match(rf"get_verrou: Expected VERROU_URL, .*, found {found}", done.stderr)


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def address(folder):
    """A server of a folder with a release, on this machine."""
    (folder / "served").mkdir()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder / "served"))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_an_address_goes_before_the_local_tarball_and_is_checked_as_well(folder, address):
    tarball(folder / "local" / "verrou-1.tar.gz", ("bin/valgrind",))
    sha256 = tarball(folder / "served" / "verrou-2.tar.gz")
    done = get(folder, "1" * 64, f"{address}/verrou-2.tar.gz")
    assert done.returncode == 1 and f"The sha256 of verrou-2.tar.gz is {sha256}" in done.stderr
    assert not (folder / "into").exists()
    done = get(folder, sha256, f"{address}/verrou-2.tar.gz")
    assert done.returncode == 0 and done.stdout == f"Verrou from verrou-2.tar.gz, sha256 {sha256}\n"
    assert unpacked(folder) == set(RELEASE[:-1])


def test_an_address_that_does_not_answer_is_one_sentence(folder, address):
    done = get(folder, "1" * 64, f"{address}/other.tar.gz")
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert re.match(rf"get_verrou: Verrou cannot be had from {address}/other.tar.gz: HTTP Error 404", done.stderr)


def test_a_release_as_it_is_published_is_unpacked(folder):
    zstandard = pytest.importorskip("zstandard")
    plain = folder / "verrou.tar"
    with tarfile.open(plain, "w") as archive:
        for name in RELEASE:
            archive.addfile(tarfile.TarInfo(f"./{name}"), io.BytesIO())
    packed = zstandard.compress(plain.read_bytes())
    (folder / "local" / "verrou-1.tar.zst").write_bytes(packed)
    assert get(folder, hashlib.sha256(packed).hexdigest()).returncode == 0
    assert unpacked(folder) == set(RELEASE[:-1])


def checked(programs: Path) -> tuple[int, list[str]]:
    """Return the exit code and the lines of docker/check with the Valgrind of a folder."""
    environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, str(CHECK)], env=environment, capture_output=True, text=True)
    assert not done.stderr, done.stderr
    return done.returncode, done.stdout.splitlines()


needs_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="the stand-in for Verrou needs a C compiler")


# What is replaced in the script of the stand-in, by what, and the verdicts of the three lines.
FAULTS = {
    "nothing is random": (
        ('export STANDIN_MODE="${option#*=}"', "export STANDIN_MODE=nearest"),
        ["ok", "ok", "FAILED"],
    ),
    "nearest is random": (
        (
            "--vr-seed=*)",
            '--vr-seed=0) mkdir "$here/first" 2>/dev/null && seed=0 || seed=2\n'
            "      export STANDIN_MODE=random STANDIN_SEED=$seed; shift;;\n    --vr-seed=*)",
        ),
        ["ok", "FAILED", "ok"],
    ),
    "nothing is instrumented": (("export LD_PRELOAD", "export NOT_LOADED"), ["FAILED", "ok", "FAILED"]),
}


class TestCheck:
    """docker/check on this machine, with the stand-in and with stand-ins that are broken."""

    pytestmark = needs_compiler

    def test_it_is_a_program(self):
        assert os.access(CHECK, os.X_OK) and CHECK.read_text().startswith("#!/usr/bin/env python3\n")

    def test_what_perturbs_passes_with_a_line_for_each_fact(self, tmp_path):
        code, lines = checked(standin_verrou.install(tmp_path / "standin"))
        assert code == 0, lines
        assert [line[:8] for line in lines] == ["ok      "] * 3
        for line, fact in zip(lines, ("counted operations", "to nearest agree", "at random differ"), strict=True):
            assert fact in line

    @pytest.mark.parametrize("fault, verdicts", FAULTS.values(), ids=FAULTS)
    def test_what_does_not_perturb_fails(self, tmp_path, fault, verdicts):
        programs = standin_verrou.install(tmp_path / "standin")
        script = (programs / "valgrind").read_text()
        assert fault[0] in script
        (programs / "valgrind").write_text(script.replace(*fault))
        code, lines = checked(programs)
        assert code == 1 and [line.split()[0] for line in lines] == verdicts

    def test_a_valgrind_without_verrou_is_said(self, tmp_path):
        (tmp_path / "valgrind").write_text("#!/bin/sh\necho 'no tool verrou' >&2\nexit 1\n")
        (tmp_path / "valgrind").chmod(0o755)
        code, lines = checked(tmp_path)
        assert code == 1 and len(lines) == 4
        assert all(line.startswith("FAILED") and line.endswith("exit code 1: no tool verrou") for line in lines)
