"""`python -m analyses convert`: the tensors of a published checkpoint in a file that nothing is executed to read."""

import argparse
from pathlib import Path

from analyses.models.checkpoint import write_tensors
from analyses.models.pickles import read_inert
from analyses.models.published import load_checkpoint, weights_of
from mcaprobe.errors import InputError

DESCRIPTION = """\
Read the tensors of a checkpoint that holds other objects too (a configuration, say), without executing anything in
the file: what is no tensor, number or plain container is left out. The result is checked against the networks of the
paper and written as safetensors."""


def add(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the subcommand and its options."""
    p = subparsers.add_parser(
        "convert",
        help="a published checkpoint as safetensors",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument("file", type=Path, help="the published file (.pkl, .pt, .pth)")
    p.add_argument("out", type=Path, help="the file to write (.safetensors)")
    p.set_defaults(function=convert)


def convert(args: argparse.Namespace) -> int:
    """Read, write, check; leave no file where the check fails."""
    if args.out.suffix != ".safetensors":
        raise InputError(f"Expected a file that ends in .safetensors to write, got {args.out}.")
    weights = weights_of(read_inert(args.file), args.file)
    checked = args.out.with_name(f"unchecked-{args.out.name}")
    try:
        write_tensors(checked, weights, {"source": args.file.name})
        network = load_checkpoint(checked)
        checked.replace(args.out)
    finally:
        checked.unlink(missing_ok=True)
    print(f"{args.out}: {type(network).__name__}, {sum(p.numel() for p in network.parameters())} parameters.")
    return 0
