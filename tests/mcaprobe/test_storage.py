"""Does every file reach the disk whole or not at all?"""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mcaprobe import folders, storage
from mcaprobe.errors import InputError, RunFailure
from mcaprobe.locks import LOCK, locked


@given(st.text(min_size=1, max_size=40).filter(lambda s: "\x00" not in s and s.isprintable()))
def test_a_layer_name_survives_as_a_file_name(name):
    file = storage.file_name(name)
    assert storage.layer_name(file) == name
    assert "/" not in file and ":" not in file and not file.startswith(".")


def test_two_layer_names_never_share_a_file():
    assert storage.file_name("a:b") != storage.file_name("a%3Ab") != storage.file_name("a/b")


def test_tensors_come_back_with_their_bits(tmp_path):
    tensors = {
        "a": torch.tensor([[float("nan"), -0.0], [float("inf"), 5e-324]], dtype=torch.float64),
        "b": torch.arange(6, dtype=torch.int16).reshape(2, 3).T,
        "c": torch.tensor([True, False]),
        "empty": torch.zeros(0, 3),
        "scalar": torch.tensor(3),
    }
    storage.write_tensors(tmp_path / "t.safetensors", tensors, {"layer": "a:b"})
    found = storage.read_tensors(tmp_path / "t.safetensors")
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype and found[name].shape == tensor.shape
        assert found[name].contiguous().numpy().tobytes() == tensor.contiguous().numpy().tobytes()
    assert storage.read_metadata(tmp_path / "t.safetensors") == {"layer": "a:b"}


def test_json_has_no_bare_nan(tmp_path):
    storage.write_json(tmp_path / "x.json", {"a": [float("nan"), float("-inf"), 1.5]})
    assert json.loads((tmp_path / "x.json").read_text()) == {"a": ["nan", "-inf", 1.5]}


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    storage.write_json(tmp_path / "x.json", 1)
    monkeypatch.setattr(os, "fsync", lambda d: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left on device")))
    with pytest.raises(OSError, match=r"No space"):
        storage.write_json(tmp_path / "x.json", 2)
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]
    assert storage.read_json(tmp_path / "x.json") == 1


def test_an_interrupted_write_leaves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt), storage.replacing(tmp_path / "x") as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def _sealed(folder: Path) -> Path:
    folder.mkdir()
    storage.write_tensors(folder / "a.safetensors", {"x": torch.arange(100.0)})
    folders.seal(folder, {"blocks": [0, 1]})
    return folder


def test_a_sealed_folder_is_whole(tmp_path):
    assert folders.verify(_sealed(tmp_path / "f"))["blocks"] == [0, 1]


@pytest.mark.parametrize(
    ("harm", "sentence"),
    [
        (lambda p: p.unlink(), "a.safetensors is missing"),
        (lambda p: p.write_bytes(p.read_bytes()[:-1]), "bytes instead of"),
        (lambda p: p.write_bytes(p.read_bytes()[:-1] + b"\x01"), "other contents"),
        (lambda p: (p.parent / "index.json").write_text("{"), "is not JSON"),
        (lambda p: (p.parent / "index.json").unlink(), "index.json is missing"),
    ],
    ids=["missing", "short", "changed", "index-truncated", "index-missing"],
)
def test_harm_to_a_sealed_folder_is_found(tmp_path, harm, sentence):
    folder = _sealed(tmp_path / "f")
    harm(folder / "a.safetensors")
    with pytest.raises(storage.DamagedFile, match=sentence):
        folders.verify(folder)


def test_a_damaged_tensor_file_is_named(tmp_path):
    (tmp_path / "x.safetensors").write_bytes(b"\x08\x00")
    with pytest.raises(storage.DamagedFile, match=r"x.safetensors is damaged"):
        storage.read_tensors(tmp_path / "x.safetensors")


def test_a_full_disk_is_one_sentence(tmp_path):
    with (
        pytest.raises(RunFailure, match=r"The disk of .* is full .*: free some space"),
        folders.disk_errors(tmp_path, lambda: "free some space"),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_second_process_cannot_write_the_same_directory(tmp_path):
    with (
        locked(tmp_path),
        pytest.raises(InputError, match=rf"Another process writes .*process {os.getpid()} on"),
        locked(tmp_path),
    ):
        pass
    with locked(tmp_path):
        pass
    assert not (tmp_path / LOCK).exists()


def test_the_lock_of_a_dead_process_is_taken_over(tmp_path):
    code = "import os, sys\nfrom pathlib import Path\nfrom mcaprobe.locks import locked\n" \
           "with locked(Path(sys.argv[1])):\n    os.kill(os.getpid(), 9)\n"  # fmt: skip
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)]).returncode == -9
    assert (tmp_path / LOCK).exists()
    with locked(tmp_path):
        pass


@pytest.mark.parametrize("when", ["making", "filling", "committed"])
def test_an_interrupt_leaves_no_temporary_folder(tmp_path, monkeypatch, when):
    def made_then_interrupted(path, *args, **kwargs):
        mkdir(path, *args, **kwargs)
        raise KeyboardInterrupt

    mkdir = Path.mkdir
    if when == "making":
        monkeypatch.setattr(Path, "mkdir", made_then_interrupted)
    with pytest.raises(KeyboardInterrupt), folders.filling(tmp_path, "chunk") as folder:
        (folder / "blocks").write_text("moments")
        if when == "committed":
            folders.commit(folder, tmp_path / "chunk")
        raise KeyboardInterrupt
    assert [path.name for path in tmp_path.iterdir()] == (["chunk"] if when == "committed" else [])
