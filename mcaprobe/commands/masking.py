"""What does the user of `mcaprobe mask` read? A table of layers, what is marked, what is not, where the files are."""

import argparse
from collections.abc import Sequence

from mcaprobe.commands.reporting import console_for_tables, layer_table, main_layers, percent
from mcaprobe.mask_files import Written
from mcaprobe.mask_rows import MaskRow
from mcaprobe.storage import to_json

HEADS = ("elements", "marked", "marked\n%", "undefined\n%", "positions:\nany %", "positions:\nall %")


def report(found: Written, args: argparse.Namespace) -> int:
    """Print the masks in the form asked for; return the exit code 0."""
    if args.json:
        rows = [row.as_dict() for row in found.rows]
        print(to_json({"exit_code": 0, "folder": str(found.folder), "about": found.about, "rows": rows,
                       "without_moments": found.without_moments, "not_judged": found.not_judged}))  # fmt: skip
    elif args.quiet:
        print(args.out or found.folder)
    else:
        _print(found, args)
    return 0


def _print(found: Written, args: argparse.Namespace) -> None:
    console = console_for_tables()
    chosen = main_layers(row.layer for row in found.rows)
    listed = [r for r in found.rows if args.all_layers or args.layers or r.layer in chosen or _is_index(found)]
    console.print(layer_table(listed, HEADS, _cells))
    left_out = len(_layers(found.rows)) - len(_layers(listed))
    lines = [f"{left_out} more layers are listed with --all-layers, and are in masks.csv."] if left_out else []
    for line in [*lines, *sentences(found)]:
        console.print(line, markup=False, soft_wrap=True)


def _layers(rows: Sequence[MaskRow]) -> list[str]:
    return list(dict.fromkeys(row.layer for row in rows))


def _is_index(found: Written) -> bool:
    return found.about["Criterion"]["Option"] == "--index-change-rate"


def sentences(found: Written) -> list[str]:
    """Return what is said below the table."""
    about, total = found.about, len(_layers(found.rows)) + len(found.without_moments)
    lines = [
        f"Marked: {about['Criterion']['Rule']}. {about['UndefinedPolicy']}",
        f"Bits and classes: {about['Estimator']['Name']}; n = {about['Samples']}, mode {about['Mode']}.",
        about["SamplingCeiling"]["Statement"],
    ]
    if _is_index(found):
        del lines[1]
    if found.without_moments:
        lines.append(
            f"{len(found.without_moments)} of {total} layers kept no moments, hence have no mask (the first is "
            f"{found.without_moments[0]}): run with --keep-moments '*'."
        )
    if found.not_judged and not _is_index(found):
        lines.append(f"{len(found.not_judged)} layers are decisions, without bits: see --index-change-rate.")
    flat = _layers([row for row in found.rows if row.positions is None])
    if flat:
        lines.append(f"{len(flat)} layers have no image axes, hence no NIfTI file (the first is {flat[0]}).")
    files = sum(1 for path in found.folder.glob("*.nii.gz"))
    lines.append(f"The masks are {found.folder} ({files} .nii.gz with .json, masks.safetensors, masks.csv).")
    return lines


def _cells(row: MaskRow) -> list[str]:
    shares = (_share(row.masked, row.elements), _share(row.undefined, row.elements),
              _share(row.positions_any, row.positions), _share(row.positions_all, row.positions))  # fmt: skip
    return [str(row.elements), str(row.masked), *map(percent, shares)]


def _share(part: int | None, whole: int | None) -> float | None:
    return part / whole if part is not None and whole else None
