"""What lies in the folder of derivatives? Its description, the settings of all images, what is done, what failed."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mcaprobe import bids
from mcaprobe.bids_app.dataset import Image, description
from mcaprobe.bids_app.settings import Questions
from mcaprobe.errors import InputError
from mcaprobe.folders import file_hash
from mcaprobe.manifest import versions
from mcaprobe.storage import DamagedFile, read_json, to_json, write_json

FORMAT = "mcaprobe bids 1"
DESCRIPTION, IGNORE, README = "dataset_description.json", ".bidsignore", "README.md"
WORK, SETTINGS, FAILURES = "work", "settings.json", "failures.json"
SEGMENTATION_LINK = "segmentation"  # the name of the dataset of segmentations in DatasetLinks
DONE, FAILED = ".done.json", ".failed.json"
# What BIDS does not define: the folder of the runs, the reports, maps and tables of significant bits.
IGNORED = (f"/{WORK}", "/*.html", f"*_{bids.SIGBITS}.*")
TEXT = """\
# Significant bits of {model}

Derivatives of mcaprobe: how many bits of each activation of a network Monte Carlo arithmetic leaves, image by image.

* `sub-*/[ses-*/]anat/*_sigbits.tsv`: a line for each layer and region (columns: the `.json` beside it).
* `sub-*/[ses-*/]anat/*_label-LAYER_sigbits.nii.gz`: median significant bits over the channels of a layer (volume 0) and
  the share of each class of elements, in the space of the T1w image.
* `sub-*/[ses-*/]anat/*_label-LAYER_desc-unstable*_mask.nii.gz`, `*_probseg.nii.gz`: masks, where they were asked for.
* `sub-*.html`: a report for each subject. `group_sigbits.tsv`, `group.html`: means over the subjects.
* `work/`: the run directories of `mcaprobe run`, and what is done and what failed. It can be removed when all is done;
  then nothing is left to resume from.

`chunk-N` is the slice of number N where single slices were asked for; maps of whole volumes are three-dimensional.
BIDS defines names for the masks; `.bidsignore` lists what it does not define: `work`, the reports, and the suffix
`sigbits`.
"""


@dataclass(frozen=True, slots=True)
class Folder:
    """The folder of derivatives of a dataset."""

    out: Path
    dataset: Path

    @property
    def work(self) -> Path:
        """Where run directories and records are."""
        return self.out / WORK

    @property
    def executor(self) -> Path:
        """Where the files of an executor are, such as the logs of Slurm's jobs."""
        return self.work / "executor"

    def prepare(self, questions: Questions) -> None:
        """Make the folder and describe it; InputError where it holds anything else, or lies among the raw data."""
        self.expect_free()
        try:
            self.work.mkdir(parents=True, exist_ok=True)
            write_json(self.out / DESCRIPTION, self._description(questions))
            for name, text in ((IGNORE, "\n".join(IGNORED) + "\n"), (README, TEXT.format(model=questions.model))):
                if not (self.out / name).exists():
                    (self.out / name).write_text(text, encoding="utf-8")
        except OSError as error:
            raise InputError(f"Cannot write in {self.out}: {error.strerror}.") from error

    def expect_free(self) -> None:
        """Raise InputError where the folder cannot become one of derivatives of the dataset, or is not one already."""
        out, dataset = self.out.resolve(), self.dataset.resolve()
        if out == dataset or (dataset in out.parents and out.relative_to(dataset).parts[0] != "derivatives"):
            raise InputError(
                f"Expected a folder outside of the raw data, got {self.out}: choose one below "
                f"{self.dataset / 'derivatives'}, or anywhere else."
            )
        if self.out.exists() and not self.out.is_dir():
            raise InputError(f"{self.out} is a file, not a folder for derivatives.")
        inside = sorted(path.name for path in self.out.iterdir()) if self.out.is_dir() else []
        if inside and not self.is_ours():
            raise InputError(f"{self.out} holds something else (it has {inside[0]}): choose another OUT.")

    def is_ours(self) -> bool:
        """Return whether the folder holds derivatives of this package."""
        try:
            about = read_json(self.out / DESCRIPTION)
        except DamagedFile:
            return False
        return isinstance(about, dict) and about.get("Format") == FORMAT

    def _description(self, questions: Questions) -> dict[str, Any]:
        raw, model = description(self.dataset), questions.model
        link = os.path.relpath(self.dataset.resolve(), self.out.resolve())
        links = {"raw": link}
        if questions.segmentation is not None:
            links[SEGMENTATION_LINK] = os.path.relpath(questions.segmentation.resolve(), self.out.resolve())
        source: dict[str, Any] = {"URL": link}
        if isinstance(raw.get("DatasetDOI"), str):
            source["DOI"] = raw["DatasetDOI"]
        made_by = {
            "Name": "mcaprobe", "Version": versions()["mcaprobe"],
            "Description": f"Significant bits of {model} by Monte Carlo arithmetic",
        }  # fmt: skip
        return {
            "Name": f"Significant bits of {model} on {raw.get('Name', self.dataset.name)}",
            "BIDSVersion": bids.VERSION,
            "DatasetType": "derivative",
            "License": raw.get("License", "n/a"),
            "GeneratedBy": [made_by],
            "SourceDatasets": [source],
            "DatasetLinks": links,
            "Format": FORMAT,
        }

    def agree(self, questions: Questions, images: Iterable[Image], overwrite: bool) -> None:
        """Remember what is asked of all images; InputError where images that stay were asked something else."""
        asked = json.loads(to_json(questions.record()))
        path = self.work / SETTINGS
        if path.exists():
            stored = read_json(path)
            chosen = {image.name for image in images}
            staying = [name for name in self.done() if not (overwrite and name in chosen)]
            for key in asked:
                if stored.get(key) != asked[key] and (staying or not overwrite):
                    raise InputError(
                        f"{self.out} holds other derivatives: their {key} is {stored.get(key)!r}, here it is "
                        f"{asked[key]!r}. Choose another OUT, or start all images again with --overwrite."
                    )
        write_json(path, asked)

    def done(self) -> dict[str, dict[str, Any]]:
        """Return what is recorded of the images that are complete, by name."""
        return self._records(DONE)

    def failed(self) -> dict[str, dict[str, Any]]:
        """Return what is recorded of the images that failed, by name."""
        return self._records(FAILED)

    def _records(self, ending: str) -> dict[str, dict[str, Any]]:
        paths = sorted(self.work.glob(f"*{ending}")) if self.work.is_dir() else []
        return {path.name.removesuffix(ending): read_json(path) for path in paths}

    def is_complete(self, image: Image) -> bool:
        """Return whether all of an image is there, made from the file as it is now."""
        try:
            about = read_json(self.work / f"{image.name}{DONE}")
        except DamagedFile:
            return False
        sizes: Mapping[str, int] = about["files"]
        whole = all((self.out / n).is_file() and (self.out / n).stat().st_size == size for n, size in sizes.items())
        return whole and image.path.is_file() and file_hash(image.path) == about["sha256"]

    def remember(self, image: Image, runs: Sequence[Path], files: Sequence[Path]) -> None:
        """Record that an image is complete."""
        record = {
            "subject": image.subject,
            "sha256": file_hash(image.path),
            "runs": [str(path.relative_to(self.out)) for path in runs],
            "files": {str(path.relative_to(self.out)): path.stat().st_size for path in files},
        }
        write_json(self.work / f"{image.name}{DONE}", record)
        (self.work / f"{image.name}{FAILED}").unlink(missing_ok=True)

    def remember_failure(self, image: Image, sentence: str, trace: str | None) -> None:
        """Record why an image is not complete."""
        record = {"subject": image.subject, "sentence": sentence, "traceback": trace}
        write_json(self.work / f"{image.name}{FAILED}", record)

    def forget(self, image: Image) -> None:
        """Forget what is recorded of an image."""
        for ending in (DONE, FAILED):
            (self.work / f"{image.name}{ending}").unlink(missing_ok=True)
