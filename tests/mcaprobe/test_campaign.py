"""Does a campaign give the same bits however it runs, and refuse what it should?"""

import errno
import json
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

import mcaprobe
from mcaprobe import planning, storage
from mcaprobe.errors import InputError, RunFailure
from mcaprobe.observer import Observer
from tests.mcaprobe import small_models as models
from tests.mcaprobe.run_directories import expect_equal


class Watcher(Observer):
    """Remembers the chunks and the sentences; may act when a chunk starts."""

    def __init__(self, act=None):
        self.chunks, self.said, self.act = [], [], act

    def chunk(self, first, last):
        self.chunks.append((first, last))
        if self.act:
            self.act(len(self.chunks))

    def say(self, sentence):
        self.said.append(sentence)


def small(out=None, observer=None, **options):
    options = {"samples": 6, "block": 2, "keep_moments": "conv2", "metrics": [models.mean_of], **options}
    return mcaprobe.run(models.build_small(), models.image(), out=out, observer=observer, **options)


def line(out=None, observer=None, model=models.Line, **options):
    options = {"samples": 6, "block": 2, "keep_moments": "*", **options}
    return mcaprobe.run(model().eval(), models.line(), out=out, observer=observer, **options)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run in one chunk."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    small(folder, keep_samples="conv2")
    return folder


@pytest.mark.parametrize("chunk", [2, 4])
def test_chunkings_give_the_same_bits(whole, tmp_path, chunk):
    watcher = Watcher()
    small(tmp_path / "run", watcher, chunk=chunk, keep_samples="conv2")
    assert watcher.chunks == {2: [(0, 1), (2, 3), (4, 5)], 4: [(0, 3), (4, 5)]}[chunk]
    expect_equal(whole, tmp_path / "run")


def test_one_thread_and_two_give_the_same_bits(whole, tmp_path):
    small(tmp_path / "run", threads=1, keep_samples="conv2")
    expect_equal(whole, tmp_path / "run")


def test_a_run_in_memory_gives_the_rows_and_moments_of_a_run_directory(whole):
    for chunk in (None, 2):
        result = small(chunk=chunk)
        stored = mcaprobe.load(whole)
        assert result.table() == stored.table()
        assert torch.equal(result["conv2"].moments.m2, stored["conv2"].moments.m2)


def test_another_seed_gives_other_bits(whole):
    assert small(seed=1).table() != mcaprobe.load(whole).table()


def test_samples_one_at_a_time_give_the_bits_of_side_by_side(tmp_path, monkeypatch):
    line(tmp_path / "together")
    from mcaprobe import units
    from mcaprobe.lanes import LockstepError

    def never(*args):
        raise LockstepError("not today")

    monkeypatch.setattr(units, "side_by_side", never)
    watcher = Watcher()
    result = line(tmp_path / "alone", watcher)
    assert len([s for s in watcher.said if "one at a time" in s]) == 1
    assert not result.manifest["side_by_side"]
    monkeypatch.undo()
    shutil.copy(tmp_path / "together/manifest.json", tmp_path / "alone/manifest.json")
    expect_equal(tmp_path / "together", tmp_path / "alone")


@pytest.mark.parametrize("model", [models.Asking, models.Leaving])
@pytest.mark.parametrize("in_memory", [True, False])
def test_a_model_that_leaves_lockstep_runs_one_sample_at_a_time(tmp_path, model, in_memory):
    watcher = Watcher()
    result = line(None if in_memory else tmp_path / "run", watcher, model)
    assert len(watcher.said) == 1 and "one at a time" in watcher.said[0]
    assert watcher.said[0] in result.manifest["notes"]
    assert result["layers.2"].row().samples == 6
    with mcaprobe.perturb(seed=0, sample=5), torch.no_grad():
        expected = model().eval()(models.line())
    other = line(None, None, model, keep_samples="layers.2")
    assert torch.equal(other.activation("layers.2", 5), expected)


def test_a_kept_sample_is_the_run_of_perturb(whole):
    stored = mcaprobe.load(whole)
    with torch.no_grad():
        for sample in (0, 5):
            with mcaprobe.perturb(seed=0, sample=sample):
                y = models.build_small()(models.image())
            assert torch.equal(stored.activation("conv2", sample), y)
    assert stored.manifest["samples"] == 6


def test_the_moments_are_those_of_the_kept_samples(whole):
    stored = mcaprobe.load(whole)
    samples = torch.stack([stored.activation("conv2", s) for s in range(6)]).double()
    torch.testing.assert_close(stored["conv2"].moments.mean, samples.mean(0), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(stored["conv2"].moments.m2 / 6, samples.var(0, correction=0), rtol=1e-9, atol=1e-20)
    assert torch.equal(stored["conv2"].moments.reference, stored.activation("conv2", None))


def test_a_metric_of_the_output_gets_its_digits(whole):
    stored = mcaprobe.load(whole)
    row = stored["metric:mean_of"].row()
    assert 0 < row.bits_mean < 30
    values = [models.mean_of(stored.activation("conv2", s)) for s in range(6)]
    assert stored["metric:mean_of"].moments.mean.item() == pytest.approx(sum(values) / 6, rel=1e-12)
    lines = storage.read_csv(whole / "metrics.csv")
    assert [float(x["value"]) for x in lines if x["run"] != "reference"] == values


def test_a_metric_that_never_varies_is_exact():
    result = small(metrics=[models.two_numbers])
    assert result["metric:two_numbers.size"].row().share_exact == 1
    assert result["metric:two_numbers.largest"].row().share_exact < 1


def test_a_complete_run_is_not_run_again(whole):
    before = {p: p.stat().st_mtime_ns for p in whole.rglob("*") if p.is_file()}
    watcher = Watcher()
    small(whole, watcher, keep_samples="conv2")
    assert watcher.chunks == [] and "complete: nothing to do" in watcher.said[0]
    assert {p: p.stat().st_mtime_ns for p in whole.rglob("*") if p.is_file()} == before


def test_a_complete_run_that_lost_a_file_is_repeated(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "run")
    (tmp_path / "run/layers/conv2.safetensors").unlink()
    watcher = Watcher()
    small(tmp_path / "run", watcher, keep_samples="conv2")
    assert "conv2.safetensors is missing" in watcher.said[0] and watcher.chunks == [(0, 5)]
    expect_equal(whole, tmp_path / "run")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"seed": 3}, "its seed is 0, here it is 3"),
        ({"samples": 8}, "its samples is 6, here it is 8"),
        ({"mode": "nearness"}, "its mode is 'random', here it is 'nearness'"),
        ({"block": 3}, "its block is 2, here it is 3"),
        ({"layers": "conv*"}, "its layers is"),
        ({"estimator": mcaprobe.Estimator(method="general")}, "its method is 'cnh', here it is 'general'"),
    ],
    ids=["seed", "samples", "mode", "block", "layers", "estimator"],
)
def test_a_directory_of_another_run_is_refused(whole, change, sentence):
    with pytest.raises(InputError, match=sentence):
        small(whole, **{"keep_samples": "conv2", **change})


def test_another_model_or_input_is_refused(whole):
    options = {
        "samples": 6,
        "block": 2,
        "keep_moments": "conv2",
        "metrics": [models.mean_of],
        "keep_samples": "conv2",
    }
    model = models.build_small()
    with pytest.raises(InputError, match=r"its input sha256 is"):
        mcaprobe.run(model, models.image() + 1, out=whole, **options)
    with torch.no_grad():
        model.conv2.bias += 1
    with pytest.raises(InputError, match=r"its model sha256 is"):
        mcaprobe.run(model, models.image(), out=whole, **options)


def test_overwrite_starts_again(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "run")
    line(tmp_path / "run", overwrite=True)
    line(tmp_path / "fresh")
    expect_equal(tmp_path / "run", tmp_path / "fresh")


def test_a_folder_of_something_else_is_refused_even_with_overwrite(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    for overwrite in (False, True):
        with pytest.raises(InputError, match=r"is no run directory and not empty .it has thesis.tex"):
            line(tmp_path, overwrite=overwrite)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def _stop_at(number):
    def act(count):
        if count == number:
            raise KeyboardInterrupt

    return act


@pytest.mark.parametrize("harm", ["truncated", "removed", "changed"])
def test_a_damaged_chunk_is_repeated_and_said_once(tmp_path, harm):
    line(tmp_path / "fresh")
    with pytest.raises(KeyboardInterrupt):
        line(tmp_path / "run", Watcher(_stop_at(3)), chunk=2)
    assert sorted(p.name for p in (tmp_path / "run/chunks").iterdir()) == ["0-1", "2-3"]
    victim = tmp_path / "run/chunks/2-3/blocks/1/layers.1.safetensors"
    data = victim.read_bytes()
    if harm == "removed":
        victim.unlink()
    else:
        victim.write_bytes(data[:-10] if harm == "truncated" else data[:-1] + bytes([data[-1] ^ 1]))
    watcher = Watcher()
    line(tmp_path / "run", watcher, chunk=2)
    assert len([s for s in watcher.said if s.startswith("Chunk 2-3 is repeated")]) == 1
    assert watcher.chunks == [(2, 3), (4, 5)]
    expect_equal(tmp_path / "fresh", tmp_path / "run")


def test_an_interrupted_run_goes_on_with_another_chunking(tmp_path):
    line(tmp_path / "fresh")
    with pytest.raises(KeyboardInterrupt):
        line(tmp_path / "run", Watcher(_stop_at(2)), chunk=2)
    with pytest.raises(InputError, match=r"is not complete .running"):
        mcaprobe.load(tmp_path / "run")
    watcher = Watcher()
    line(tmp_path / "run", watcher)
    assert watcher.chunks == [(2, 5)]
    expect_equal(tmp_path / "fresh", tmp_path / "run")


def test_a_full_disk_is_one_sentence_and_the_run_goes_on_afterwards(tmp_path, monkeypatch):
    line(tmp_path / "fresh")

    def act(count):
        if count == 2:
            real = storage._write

            def full(path, parts):
                if path.name.startswith("layers.2"):
                    raise OSError(errno.ENOSPC, "No space left on device")
                return real(path, parts)

            monkeypatch.setattr(storage, "_write", full)

    with pytest.raises(RunFailure, match=r"is full .*1 finished chunks stay there; free some space"):
        line(tmp_path / "run", Watcher(act), chunk=2)
    assert [p.name for p in (tmp_path / "run/chunks").iterdir()] == ["0-1"]
    assert not [p for p in (tmp_path / "run").rglob("*") if p.name.startswith(storage.TEMPORARY)]
    monkeypatch.undo()
    watcher = Watcher()
    line(tmp_path / "run", watcher, chunk=2)
    assert watcher.chunks == [(2, 3), (4, 5)]
    expect_equal(tmp_path / "fresh", tmp_path / "run")


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 1 MiB, where this process may mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"cannot mount a small file system: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_really_full_disk_leaves_nothing_half_written(small_disk, tmp_path, monkeypatch):
    line(tmp_path / "fresh")
    monkeypatch.setattr(planning, "disk_needed", lambda *a: 0)  # the prediction would refuse

    def act(count):
        if count == 2:
            with (small_disk / "filler").open("wb") as filler, pytest.raises(OSError, match=r"No space"):
                while True:
                    filler.write(bytes(512))
                    filler.flush()

    with pytest.raises(RunFailure, match=r"is full .*1 finished chunks stay there"):
        line(small_disk / "run", Watcher(act), chunk=2)
    assert not [p for p in (small_disk / "run").rglob("*") if p.name.startswith(storage.TEMPORARY)]
    (small_disk / "filler").unlink()
    line(small_disk / "run", chunk=2)
    expect_equal(tmp_path / "fresh", small_disk / "run")


def test_a_disk_that_is_too_small_is_refused_before_the_start(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda p: shutil._ntuple_diskusage(10, 10, 5))
    with pytest.raises(InputError, match=r"would write up to .*has 5 B free: choose another --out"):
        line(tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_that_cannot_fit_the_memory_is_refused_before_the_start(tmp_path):
    with pytest.raises(
        InputError, match=r"would take .* are allowed: raise --memory, lower --block .now 2., or record fewer"
    ):
        line(tmp_path / "run", memory="1MiB")
    assert not (tmp_path / "run").exists()


def test_a_model_that_raises_in_the_middle_is_told_with_its_layer(tmp_path):
    with pytest.raises(
        RunFailure,
        match=r"raised ValueError after layer layers.1, in the unperturbed run: no third layer today",
    ):
        line(tmp_path / "run", model=models.Raising, route="model")
    manifest = json.loads((tmp_path / "run/manifest.json").read_text())
    assert manifest["status"] == "failed" and "no third layer" in manifest["failures"][0]
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["manifest.json"]


class Exact(torch.nn.Module):
    """Moves values, computes nothing."""

    def forward(self, x):
        return torch.relu(torch.maximum(x, x.flip(-1)))


def test_a_run_that_perturbed_nothing_says_so():
    watcher = Watcher()
    line(None, watcher, Exact)
    assert len(watcher.said) == 1 and watcher.said[0].startswith("No sample differs from the unperturbed run")


def test_the_manifest_says_what_ran(whole):
    manifest = json.loads((whole / "manifest.json").read_text())
    assert manifest["status"] == "complete" and manifest["identity"]["model sha256"]
    kind = {"exact": "compiled", "model": "modelled"}[manifest["route"]]
    assert manifest["operators"]["convolution"] == kind
    assert set(manifest["operators"].values()) <= {"exact", kind, "decomposed"}
    assert manifest["layers"]["pool"]["shape"] == [1, 4, 8, 8]
    assert manifest["memory"]["predicted"] > 0 and manifest["memory"]["measured"] > 0
    assert not (whole / "chunks").exists()


def test_a_run_takes_no_more_disk_than_predicted(whole):
    taken = sum(p.stat().st_size for p in whole.rglob("*") if p.is_file())
    assert taken < json.loads((whole / "manifest.json").read_text())["disk"]["predicted"]


def test_changes_of_indices_and_labels_are_in_the_table(whole):
    names = [row.layer for row in mcaprobe.load(whole).table() if row.index_change_rate is not None]
    assert names == ["pool.indices", ":output.labels"]


def test_asking_for_moments_that_were_not_kept_says_how_to_keep_them(whole):
    stored = mcaprobe.load(whole)
    assert stored["conv2"].significant_bits.shape == (1, 2, 16, 16)
    assert stored["conv2"].classes.dtype == torch.uint8
    with pytest.raises(InputError, match=r"were not kept: run with --keep-moments 'conv1'"):
        _ = stored["conv1"].significant_bits
    with pytest.raises(InputError, match=r"There is no layer conv3: the nearest are conv"):
        _ = stored["conv3"]


def test_a_map_is_written_again_the_same(whole, tmp_path):
    mcaprobe.load(whole)["conv1"].to_nifti(tmp_path / "again.nii.gz")
    assert (tmp_path / "again.nii.gz").read_bytes() == (whole / "maps/conv1.nii.gz").read_bytes()


def test_files_of_a_run_directory_are_listed_with_their_sizes(whole):
    manifest = json.loads((whole / "manifest.json").read_text())
    there = {
        str(p.relative_to(whole)): p.stat().st_size
        for p in whole.rglob("*")
        if p.is_file() and p.name != "manifest.json"
    }
    assert manifest["files"] == there


def test_nothing_of_a_run_is_left_in_the_working_directory(whole):
    assert {p.name for p in Path(whole).iterdir()} == {
        "manifest.json", "table.csv", "metrics.csv", "heatmap.png", "layers", "maps", "samples",
    }  # fmt: skip


def test_ctrl_c_sweeps_temporary_folders_wherever_it_falls(tmp_path, monkeypatch):
    def interrupted(parent, name):  # as if between the making of a folder and the block that removes it
        (parent / f"{storage.TEMPORARY}1-{name}").mkdir()
        raise KeyboardInterrupt

    monkeypatch.setattr("mcaprobe.chunks.filling", interrupted)
    with pytest.raises(KeyboardInterrupt):
        small(tmp_path / "r", chunk=2)
    assert (tmp_path / "r/manifest.json").is_file()
    assert not [path for path in (tmp_path / "r").rglob("*") if path.name.startswith(storage.TEMPORARY)]
