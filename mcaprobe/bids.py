"""What is a mask called?  Names of BIDS derivatives, from the name of the input and of the layer."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import PurePath

VERSION = "1.10.0"
_ENTITIES = re.compile(r"(?:sub|tpl)-[A-Za-z0-9]+(?:_[a-z]+-[A-Za-z0-9+]+)*")
_OWN = ("label", "desc")  # the entities that a mask sets itself
SIGBITS = "sigbits"  # the suffix of maps and tables of significant bits; BIDS has none for them
# Reduction -> what follows the description, and the suffix; a share is a float, which BIDS does not call a mask.
_KINDS = {"any": ("", "mask"), "all": ("All", "mask"), "share": ("", "probseg"), "none": ("Channels", "mask")}


def prefix(source: str) -> str:
    """Return the entities of an input's file name, such as sub-01_ses-2; `sub-` and its letters for any other name."""
    stem = PurePath(source).name
    found = _ENTITIES.match(stem)
    if found and (found.end() == len(stem) or stem[found.end()] in "_."):
        parts = [part for part in found[0].split("_") if part.split("-")[0] not in _OWN]
        return "_".join(parts)
    return f"sub-{alphanumeric(stem.split('.')[0]) or 'input'}"


def entities(name: str) -> dict[str, str]:
    """Return the entities of a file name, in its order: {"sub": "01", "run": "2"} of sub-01_run-2_T1w.nii.gz."""
    found = _ENTITIES.match(name)
    return dict(part.split("-", 1) for part in found[0].split("_")) if found else {}


def alphanumeric(text: str) -> str:
    """Return the letters and digits of `text`, all that a BIDS label may hold."""
    return re.sub("[^A-Za-z0-9]", "", text)


def labels(layers: Sequence[str]) -> dict[str, str]:
    """Return a label for each layer; those that letters and digits do not tell apart get a hash of their name."""
    plain = {name: alphanumeric(name) for name in layers}
    # Not all file systems tell upper from lower case.
    count = Counter(label.lower() for label in plain.values())
    return {
        name: label if label and count[label.lower()] == 1 else label + hashlib.sha256(name.encode()).hexdigest()[:8]
        for name, label in plain.items()
    }


def map_stem(prefix: str, label: str) -> str:
    """Return such as sub-01_label-decoder4conv2_sigbits, the name of a layer's map of significant bits."""
    return f"{prefix}_label-{label}_{SIGBITS}"


def file_stem(prefix: str, label: str, marked: str, reduction: str) -> str:
    """Return such as sub-01_label-decoder4conv2_desc-unstable_mask; `marked` is the criterion's label."""
    more, suffix = _KINDS[reduction]
    return f"{prefix}_label-{label}_desc-{marked}{more}_{suffix}"
