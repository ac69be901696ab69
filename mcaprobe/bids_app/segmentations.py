"""Which segmentation belongs to an image?"""

from __future__ import annotations

from pathlib import Path

from mcaprobe import bids
from mcaprobe.bids_app.dataset import EXTENSIONS, Image
from mcaprobe.errors import InputError

SUFFIX = "dseg"
_OWN = ("space", "res", "desc")  # entities of a segmentation that its image need not have


def segmentation_of(image: Image, folder: Path, desc: str | None) -> Path:
    """Return the one `*_dseg` image below `folder` with the entities of the T1w image.

    Args:
        folder: A BIDS dataset, derivative or raw; the images lie where those of the dataset do, sub-01/anat.
        desc: Which `desc`, where there are several.
    Raises:
        InputError: none, or more than one.
    """
    place = folder / image.folder
    files = [path for path in sorted(place.glob(f"sub-*_{SUFFIX}.nii*")) if path.name.endswith(EXTENSIONS)]
    found = [path for path in files if _belongs(bids.entities(path.name), image, desc)]
    if len(found) == 1:
        return found[0]
    asked = f" with desc-{desc}" if desc else ""
    if not found:
        raise InputError(f"There is no segmentation {image.prefix}*_{SUFFIX}.nii.gz{asked} in {place}.")
    names = ", ".join(path.name for path in found)
    raise InputError(f"Expected one segmentation of {image.name}{asked}, got {names}: choose by --segmentation-desc.")


def _belongs(entities: dict[str, str], image: Image, desc: str | None) -> bool:
    shared = {key: value for key, value in entities.items() if key not in _OWN}
    in_its_space = entities.get("space") in (None, "T1w", "orig")
    return shared == dict(image.entities) and in_its_space and desc in (None, entities.get("desc"))
