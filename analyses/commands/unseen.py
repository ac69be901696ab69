"""`python -m analyses unseen`: the demo's campaign on inputs that its network never saw."""

import argparse
import time
from pathlib import Path

import matplotlib.pyplot as plt
from rich.console import Console
from rich.table import Table

import mcaprobe
from analyses import provenance
from analyses.commands.printing import wide_console
from analyses.experiments.unseen import Config, folder, inputs_in, run
from analyses.figures.unseen import draw
from analyses.paths import DATA, RESULTS, ROOT
from analyses.results_files import write_rows

PICTURES = ("MNI", "BSD")  # licences that let a picture of the image be published
RESULT = RESULTS / "unseen.csv"


def add(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the subcommand and its options."""
    p = subparsers.add_parser("unseen", help="the demo's campaign on inputs its network never saw", description=__doc__)
    p.add_argument("--data", type=Path, default=DATA, help="where the images are")
    p.add_argument("--samples", type=int, default=10, help="perturbed runs for each input (%(default)s)")
    p.add_argument("--seed", type=int, default=0, help="seed (%(default)s)")
    p.add_argument("--runs", type=Path, default=ROOT / "runs" / "unseen", help="run directories")
    p.add_argument("--out", type=Path, default=RESULT, help="the CSV to write; the figure lies beside it")
    p.set_defaults(function=unseen)


def unseen(args: argparse.Namespace) -> int:
    """Run the campaigns, write rows, manifest and figure, print what the README states."""
    console, start = wide_console(150), time.monotonic()
    config = Config(inputs_in(args.data), args.runs, args.samples, args.seed)
    with console.status("") as status:
        rows = run(config, status.update)
    manifest = provenance.stamp() | {
        "mode": f"{config.mode}, emulated, route {config.route}",
        "inputs": [{"name": i.name, "licence": i.licence} for i in config.inputs], "samples": args.samples,
        "seed": args.seed, "seconds": round(time.monotonic() - start, 1),
    }  # fmt: skip
    write_rows(args.out, rows, manifest)
    footer = (
        f"n = {args.samples}, mode {config.mode} (emulated, route {config.route}), seed {args.seed}; "
        f"{rows[0]['estimator']}; "
        f"one axial slice each; torch {manifest['versions']['torch']}, {manifest['machine']['processor']}"
    )
    figure = draw(rows, footer)
    figure.savefig(args.out.with_suffix(".png"), dpi=130)
    plt.close(figure)
    for item in config.inputs:
        if item.licence in PICTURES:
            picture = mcaprobe.load(config.runs / folder(item)).heatmap()
            picture.savefig(args.out.with_name(f"{folder(item)}.png"))
    _print(console, rows)
    console.print(f"{args.out}, .json and .png; runs with their pictures in {args.runs}.")
    return 0


def _print(console: Console, rows: list[dict[str, object]]) -> None:
    """Print the unpoolings, the convolutions that follow them, and the output."""
    table = Table(title="Background (and brain): shares in percent")
    for name in ("input", "layer", "region", "bits", "noise", "snr < 1", "zero", "shifted"):
        table.add_column(name, justify="left" if name in ("input", "layer", "region") else "right")
    for r in rows:
        layer = str(r["layer"])
        if r["region"] != "all" and ("unpool" in layer or layer.endswith(".conv0") or "classifier" in layer):
            bits = r["bits_mean"]
            shares = (r["share_noise"], r["share_snr_below_1"], r["share_zero"], r["share_shifted"])
            table.add_row(
                str(r["input"]),
                layer,
                str(r["region"]),
                "" if bits is None else f"{bits:.1f}",
                *("" if s is None else f"{100 * float(str(s)):.1f}" for s in shares),
            )
    console.print(table)
