"""`python -m analyses nans RUN`: where a converted network is NaN, as maps on the grids of a run of mcaprobe."""

import argparse
from pathlib import Path
from typing import Any

import torch

import nanops
from analyses.validation.nans import nans_of
from mcaprobe import bids
from mcaprobe.errors import InputError
from mcaprobe.loading import Input, load_input
from mcaprobe.maps import save_volumes, sidecar
from mcaprobe.models import Model, load_model
from mcaprobe.result import Result, load
from mcaprobe.storage import write_json

PREFIX = "input "  # of the slice's options in a run's identity


def add(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the subcommand and its options."""
    about = "maps of the NaNs of a converted network, for mcaprobe report"
    p = subparsers.add_parser("nans", help=about, description=__doc__)
    p.add_argument("run", type=Path, metavar="RUN", help="run directory of mcaprobe run, of the same model and input")
    p.add_argument("--pooling", choices=["conservative", "aggressive", "hybrid"], default="conservative",
                   help="which NaNs (%(default)s)")  # fmt: skip
    p.add_argument("--threshold", type=float, default=0.5, help="the paper's t2 (%(default)s)")
    p.add_argument("--overrides", type=Path, metavar="FILE", help="tolerances that `calibrate` wrote")
    p.add_argument("--out", type=Path, required=True, help="folder for *_desc-nan_probseg.nii.gz and .json")
    p.set_defaults(function=nans)


def nans(args: argparse.Namespace) -> int:
    """Convert the run's model, look at one forward of its input, write the share of NaN channels of each layer."""
    run = load(args.run)
    model, x = again(run)
    converted = nanops.convert(model.module, args.pooling, args.threshold, overrides=args.overrides)
    layers = {name: run[name] for name in run.manifest["layers"] if run[name].spatial and not run[name].is_index}
    found = nans_of(converted, x.tensor, layers)
    present = {name: mask for name, mask in found.masks.items() if mask.any()}
    if not present:
        raise InputError(f"No layer of {args.run} is NaN with {args.pooling} pooling: there is nothing to write.")
    start, labels = bids.prefix(run.manifest["input"]["name"]), bids.labels(list(run.manifest["layers"]))
    args.out.mkdir(parents=True, exist_ok=True)
    for name, mask in present.items():
        affine, axis, space = layers[name].placed(tuple(mask.shape[2:]))
        path = args.out / f"{start}_label-{labels[name]}_desc-nan_probseg.nii.gz"
        share = mask[0].float().mean(0)
        save_volumes(path, share[None].numpy(), affine, f"NaN share: {name}", axis=axis, space=space, top=1.0)
        write_json(sidecar(path), {
            "Layer": name,
            "Description": f"Share of the channels that are NaN: {args.pooling} pooling, t2 = {args.threshold:g}.",
            "NaNElements": int(mask.sum()), "Elements": mask.numel(), "Pooling": args.pooling,
            "Threshold": args.threshold, "Overrides": None if args.overrides is None else args.overrides.name,
        })  # fmt: skip
    print(f"{args.out}: {len(present)} layers with NaN of {len(layers)}.")
    return 0


def again(run: Result) -> tuple[Model, Input]:
    """Return model and input of a run, made again by their names; InputError where they are not the same any more."""
    identity: dict[str, Any] = run.manifest["identity"]
    model = load_model(identity["model"])
    names = [key for key in identity if key.startswith(PREFIX) and key != "input sha256"]
    options = {key.removeprefix(PREFIX): identity[key] for key in names}
    known = {key: tuple(value) if isinstance(value, list) else value for key, value in options.items()}
    with torch.no_grad():
        x = load_input(run.manifest["input"]["name"], model.module, known)
    for what, before, now in (
        ("model", identity["model sha256"], model.sha256), ("input", identity["input sha256"], x.sha256),
    ):  # fmt: skip
        if before != now:
            raise InputError(f"Expected the {what} of {run.path}, got another of the same name: its content differs.")
    return model, x
