"""Which T1w images of a BIDS dataset are asked for?"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from mcaprobe import bids
from mcaprobe.errors import InputError
from mcaprobe.models import nearest
from mcaprobe.storage import DamagedFile, read_json

SUFFIX, EXTENSIONS = "T1w", (".nii.gz", ".nii")
# The names that filter files of other BIDS Apps use -> entities in file names.
LONG_NAMES = {"subject": "sub", "session": "ses", "acquisition": "acq", "ceagent": "ce", "reconstruction": "rec"}
ENTITIES = ("sub", "ses", "task", "acq", "ce", "rec", "run", "echo", "part", "chunk")  # that a raw T1w may have
Filter = Mapping[str, tuple[str, ...] | None]


@dataclass(frozen=True, slots=True)
class Image:
    """One image of a dataset, such as sub-01/ses-2/anat/sub-01_ses-2_T1w.nii.gz.

    Attributes:
        root: The dataset.
        path: The file.
        entities: From its name, in its order, such as {"sub": "01", "ses": "2"}.
    """

    root: Path
    path: Path
    entities: Mapping[str, str]

    @property
    def name(self) -> str:
        """The file name without its ending: no other image of the dataset has it."""
        return self.path.name.removesuffix(".gz").removesuffix(".nii")

    @property
    def subject(self) -> str:
        """The label of the subject."""
        return self.entities["sub"]

    @property
    def prefix(self) -> str:
        """What the names of derivatives begin with."""
        return self.name.rsplit("_", 1)[0]

    @property
    def folder(self) -> Path:
        """Where derivatives lie, relative to their dataset."""
        return self.path.parent.relative_to(self.root)

    @property
    def uri(self) -> str:
        """The BIDS URI within derivatives, whose DatasetLinks name the dataset `raw`."""
        return f"bids:raw:{self.path.relative_to(self.root).as_posix()}"


@dataclass(frozen=True, slots=True)
class Selection:
    """Which images: those that every stated part allows.

    Attributes:
        participants, sessions: Labels, with or without sub- and ses-; empty: all.
        images: Globs of names (`Image.name`); empty: all.
        entities: Allowed values of an entity; None: the image does not have it.
    """

    participants: Sequence[str] = ()
    sessions: Sequence[str] = ()
    images: Sequence[str] = ()
    entities: Filter = field(default_factory=dict)


def images_of(dataset: Path, selection: Selection) -> list[Image]:
    """Return the T1w images that are asked for, sorted by subject and name.

    Raises:
        InputError: no BIDS dataset, no T1w, a label or a name that nothing has, or nothing left.
    """
    every = _all_images(dataset)
    if not every:
        raise InputError(f"There is no T1w image in {dataset}: expected such as sub-01/anat/sub-01_T1w.nii.gz.")
    found = _of_labels(every, "sub", "participant", selection.participants)
    found = _of_labels(found, "ses", "session", selection.sessions)
    names = [image.name for image in found]
    for glob in selection.images:
        if not any(fnmatchcase(name, glob) for name in names):
            raise InputError(f"No T1w image that is left is called {glob}: {nearest(glob, names)}.")
    found = [x for x in found if not selection.images or any(fnmatchcase(x.name, g) for g in selection.images)]
    kept = [image for image in found if _allowed(image, selection.entities)]
    if not kept:
        raise InputError(f"The filter leaves none of {len(found)} T1w images; the first is {found[0].name}.")
    return kept


def _all_images(dataset: Path) -> list[Image]:
    try:
        from ancpbids import BIDSLayout
    except ImportError as error:
        raise InputError("mcaprobe bids reads datasets by the package ancpbids: install mcaprobe[bids].") from error
    description(dataset)
    layout = BIDSLayout(str(dataset))
    paths = layout.get(suffix=SUFFIX, extension=list(EXTENSIONS), scope="raw", return_type="files")
    images = [Image(dataset, Path(path), bids.entities(Path(path).name)) for path in dict.fromkeys(paths)]
    known = [x for x in images if x.path.parts[len(dataset.parts)].startswith("sub-") and "sub" in x.entities]
    return sorted(known, key=lambda image: (image.subject, image.name))


def description(dataset: Path) -> dict[str, object]:
    """Return dataset_description.json; InputError where there is none, hence no dataset."""
    if not dataset.is_dir():
        raise InputError(f"There is no dataset {dataset}: it is no folder.")
    try:
        about = read_json(dataset / "dataset_description.json")
    except DamagedFile as error:
        raise InputError(f"Expected a BIDS dataset in {dataset}: {error}.") from error
    if not isinstance(about, dict):
        raise InputError(f"Expected a JSON object in {dataset / 'dataset_description.json'}.")
    return about


def _of_labels(images: Sequence[Image], entity: str, word: str, labels: Sequence[str]) -> list[Image]:
    wanted = [label.removeprefix(f"{entity}-") for label in labels]
    there = list(dict.fromkeys(x.entities[entity] for x in images if entity in x.entities))
    for label in wanted:
        if label not in there:
            raise InputError(f"No {word} {label} has a T1w image: {nearest(label, there)}.")
    return [x for x in images if not wanted or x.entities.get(entity) in wanted]


def _allowed(image: Image, entities: Filter) -> bool:
    for name, values in entities.items():
        have = image.entities.get(name)
        if (values is None and have is not None) or (values is not None and not _is_among(have, values)):
            return False
    return True


def _is_among(value: str | None, wanted: Collection[str]) -> bool:
    """Return whether a value is wanted; indices are the same with and without zeros before them."""
    plain = None if value is None else value.lstrip("0") if value.isdigit() else value
    return plain in {text.lstrip("0") if text.isdigit() else text for text in wanted}


def read_filter(path: Path) -> dict[str, tuple[str, ...] | None]:
    """Return the filter of a file as other BIDS Apps take it, such as {"t1w": {"session": "02", "run": [1, 2]}}.

    null asks for images without the entity. Only `t1w` is read, since nothing else is.
    """
    try:
        about = read_json(path)
    except DamagedFile as error:
        raise InputError(f"Expected a filter, got {error}.") from error
    if not isinstance(about, dict) or not isinstance(about.get("t1w"), dict):
        raise InputError(f'Expected a filter such as {{"t1w": {{"session": "02"}}}} in {path}.')
    found: dict[str, tuple[str, ...] | None] = {}
    for key, value in about["t1w"].items():
        name = LONG_NAMES.get(key, key)
        if name not in ENTITIES:
            raise InputError(f"The filter {path} names {key}: {nearest(key, [*LONG_NAMES, *ENTITIES])}.")
        values = value if isinstance(value, list) else [value]
        if not all(isinstance(v, (str, int)) or value is None for v in values):
            raise InputError(f"Expected a text, a number, a list of them or null for {key} in {path}, got {value!r}.")
        prefix = f"{name}-" if name in ("sub", "ses") else ""
        found[name] = None if value is None else tuple(str(v).removeprefix(prefix) for v in values)
    return found
