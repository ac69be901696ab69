"""What is said when Verrou cannot be launched? Engines are scripts that answer as engines do."""

import json
from pathlib import Path

import numpy as np
import pytest

from mcaprobe.__main__ import main
from mcaprobe.errors import InputError
from mcaprobe.launchers import check_image, choose
from mcaprobe.verrou import Verrou


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Put a script on a PATH that has nothing else but the shell."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))

    def put(name: str, script: str) -> None:
        path = tmp_path / "bin" / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    return put


VALGRIND = 'case "$*" in *--tool=verrou*) echo "no tool" >&2; exit 1;; esac; echo valgrind-3'
VERROU = "echo valgrind-3.26.0+verrou-2.7.0"
NO_IMAGE = 'case "$1" in image) echo "no such image" >&2; exit 1;; esac; echo engine 1'
NO_VERROU = 'case "$1" in run) echo "valgrind: no tool verrou" >&2; exit 126;; esac; echo engine 1'
GOOD = "echo engine 1"


@pytest.mark.parametrize(
    "launcher, there, sentence",
    [
        ("native", {}, r"^There is no Valgrind: there is no program valgrind on PATH; install Verrou"),
        ("native", {"valgrind": VALGRIND}, r"^Valgrind has no tool verrou \(no tool\): put a Valgrind with Verrou"),
        ("docker", {}, r"^The engine docker cannot be used: there is no program docker on PATH; install it, or"),
        ("podman", {"podman": "echo refused; exit 125"}, r"^The engine podman cannot be used: refused; install"),
        ("podman", {"podman": NO_IMAGE}, r"^podman has no image mcaprobe-verrou \(no such image\): build it from"),
        ("apptainer", {"apptainer": GOOD}, r"^There is no image mcaprobe-verrou.sif: build it from docker/"),
        (
            "auto",
            {"docker": NO_IMAGE, "valgrind": VALGRIND},
            r"^Nothing here can run Verrou: no Valgrind",
        ),
    ],
)
def test_what_is_missing_is_one_sentence_with_its_remedy(program, launcher, there, sentence):
    for name, script in there.items():
        program(name, script)
    with pytest.raises(InputError, match=sentence):
        choose(Verrou(launcher=launcher))


def test_auto_takes_what_is_there_the_machines_own_first(program, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    program("apptainer", GOOD)
    Path("mcaprobe-verrou.sif").touch()
    assert choose(Verrou()) == "apptainer"
    program("podman", GOOD)
    assert choose(Verrou()) == "podman"
    program("valgrind", VERROU)
    assert choose(Verrou()) == "native"
    assert choose(Verrou(image="other")) == "podman"  # an image is asked for


def test_an_image_without_verrou_is_one_sentence(program, tmp_path):
    program("docker", NO_VERROU)
    options = Verrou(launcher="docker", image="plain")
    assert choose(options) == "docker"
    with pytest.raises(InputError, match=r"^The image plain has no Verrou, or docker refuses to run it \(valgrind: no"):
        check_image(options, "docker", tmp_path)
    program("docker", GOOD)
    check_image(options, "docker", tmp_path)


def test_the_command_line_says_it_with_code_2(program, tmp_path, capsys):
    np.save(tmp_path / "x.npy", np.ones((1, 1, 24), np.float32))
    arguments = ["run", "tests.mcaprobe.small_models:build_line", str(tmp_path / "x.npy"), "--out",
                 str(tmp_path / "r"), "--backend", "verrou", "--launcher", "docker"]  # fmt: skip
    assert main(arguments) == 2
    errors = capsys.readouterr().err
    assert errors.startswith("mcaprobe: The engine docker cannot be used") and errors.count("\n") == 1
    assert not (tmp_path / "r").exists()


def test_a_refused_image_leaves_a_run_that_goes_on(program, tmp_path, capsys):
    np.save(tmp_path / "x.npy", np.ones((1, 1, 24), np.float32))
    arguments = ["run", "tests.mcaprobe.small_models:build_line", str(tmp_path / "x.npy"), "--out",
                 str(tmp_path / "r"), "--backend", "verrou", "--launcher", "docker"]  # fmt: skip
    program("docker", NO_VERROU)
    for _ in range(2):
        assert main(arguments) == 2
        errors = capsys.readouterr().err
        assert errors.startswith("mcaprobe: The image mcaprobe-verrou has no Verrou") and errors.count("\n") == 1
    manifest = json.loads((tmp_path / "r/manifest.json").read_text())
    assert manifest["status"] == "failed" and "has no Verrou" in manifest["failures"][0]


def test_the_doctor_has_a_line_and_a_remedy_for_each(program, tmp_path, capsys):
    program("valgrind", VALGRIND)
    program("podman", NO_IMAGE)
    assert main(["doctor", "--out", str(tmp_path / "not" / "there")]) == 0
    lines = capsys.readouterr().out.splitlines()
    for name in (
        "Verrou",
        "docker",
        "podman",
        "podman image",
        "apptainer",
        "processor",
        "torch",
        "disk",
        "memory",
        "GPU",
    ):
        assert any(line[5:].startswith(name) for line in lines), name
    assert all(" remedy: " in line for line in lines if line.startswith("no "))
    assert all(" remedy: " not in line for line in lines if line.startswith("yes"))
    program("valgrind", VERROU)
    assert main(["doctor", "--json"]) == 0
    found = {finding["name"]: finding for finding in json.loads(capsys.readouterr().out)["findings"]}
    assert found["Verrou"]["good"] and found["Verrou"]["found"].startswith("valgrind-3.26.0+verrou-2.7.0")
    assert not found["podman image"]["good"] and found["podman"]["good"]
