"""Which manual label belongs to which tissue? The table of the MICCAI 2012 challenge, as it is.

The mapping is the Class column (GM, WM, CSF, None) of the challenge's own label table, fixed before any result was
seen. What the definitions do not share is named here, and not repaired:

* Template (what the network learnt): the larger of the ICBM tissue fractions. Thalamus, caudate and putamen are grey,
  most of the pallidum is white, pons, medulla and midbrain are undecided (45 to 50 % each), all liquid is CSF.
* Manual labels: thalamus and pallidum are grey; brainstem, ventral diencephalon and optic chiasm are white as wholes.
  CSF is the ventricles and little else: liquid in the sulci carries no label, although the brain mask contains it.

Hence regions, fixed beforehand as well: `whole` is every voxel but those the table classes as None (vessels,
lesions); it counts CSF in sulci as an error. `labelled` leaves out also the voxels without a label inside the brain
mask. `supratentorial` is `labelled` without brainstem, ventral diencephalon, optic chiasm and cerebellum.
"""

from pathlib import Path

import numpy as np

from analyses.results_files import read_table
from mcaprobe.errors import InputError

TABLE = "MICCAI-Challenge-2012-Label-Information.csv"
NUMBER = "Label Number"
TISSUES = {"CSF": 1, "GM": 2, "WM": 3}
IGNORED = 255
INFRATENTORIAL = (35, 38, 39, 40, 41, 61, 62, 69, 71, 72, 73)
REGIONS = ("whole", "labelled", "supratentorial")


def tissue_table(path: Path) -> np.ndarray:
    """Return a lookup from manual label to class (uint8): 0 no label, 1 CSF, 2 grey, 3 white, 255 ignored.

    Raises:
        InputError: the table is missing, or has other columns.
    """
    rows = label_rows(path, "Class")
    table = np.full(1 + max(int(row[NUMBER]) for row in rows), IGNORED, np.uint8)
    table[0] = 0
    for row in rows:
        table[int(row[NUMBER])] = TISSUES.get(row["Class"], IGNORED)
    return table


def label_rows(path: Path, column: str) -> list[dict[str, str]]:
    """Return the rows of the label table, which have the label's number and another column.

    Raises:
        InputError: the table is missing, or has other columns.
    """
    if not path.is_file():
        raise InputError(f"Expected the label table at {path}, found no file.")
    rows = read_table(path)
    if not rows or {NUMBER, column} - rows[0].keys():
        raise InputError(f"Expected columns {NUMBER!r} and {column!r} in {path}, got {list(rows[0] if rows else ())}.")
    return rows


def tissues(labels: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Return the classes (uint8) of manual labels; InputError where a label is not in the table."""
    if labels.min() < 0 or labels.max() >= len(table):
        raise InputError(f"Expected labels in 0..{len(table) - 1}, got {labels.min()}..{labels.max()}.")
    classes: np.ndarray = table[labels]
    return classes


def regions(labels: np.ndarray, mask: np.ndarray, table: np.ndarray) -> dict[str, np.ndarray]:
    """Return, for each name in `REGIONS`, where (bool) a prediction is compared with the manual labels."""
    whole = tissues(labels, table) != IGNORED
    labelled = whole & ~((labels == 0) & mask)
    return {
        "whole": whole,
        "labelled": labelled,
        "supratentorial": labelled & ~np.isin(labels, INFRATENTORIAL),
    }
