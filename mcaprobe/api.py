"""How is a campaign run from Python?"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from mcaprobe.campaign import Campaign
from mcaprobe.errors import InputError
from mcaprobe.executors import LOCAL, TRIES, Engine, Submits
from mcaprobe.loading import load
from mcaprobe.metrics import load_metric
from mcaprobe.models import load_model
from mcaprobe.observer import Observer
from mcaprobe.result import Result
from mcaprobe.routes import AUTO
from mcaprobe.segmentation import with_regions
from mcaprobe.settings import BLOCK, Settings, parse_bytes
from mcaprobe.statistics import Estimator
from mcaprobe.verrou import Verrou

Globs = str | Sequence[str]


def run(
    model: str | nn.Module,
    x: Tensor | np.ndarray | str | Path,
    *,
    samples: int = 10,
    mode: str = "random",
    seed: int = 0,
    precision: int | None = None,
    route: str = AUTO,
    out: str | Path | None = None,
    layers: Globs = "*",
    keep_moments: Globs | None = None,
    keep_samples: Globs = (),
    metrics: Sequence[str | Callable[[Any], Any]] = (),
    estimator: Estimator | None = None,
    input_options: Mapping[str, Any] | None = None,
    segmentation: str | Path | None = None,
    regions: Globs = "*",
    slices: str | None = None,
    patches: str | None = None,
    memory: int | str | None = None,
    threads: int | None = None,
    block: int = BLOCK,
    chunk: int | None = None,
    device: str = "cpu",
    verrou: Verrou | None = None,
    overwrite: bool = False,
    executor: str | Submits | Engine = LOCAL,
    workers: int | None = None,
    executor_options: Mapping[str, Any] | None = None,
    tries: int = TRIES,
    observer: Observer | None = None,
) -> Result:
    """Run a model once in IEEE arithmetic and `samples` times with random rounding; return the digits of every layer.

    Args:
        model: An nn.Module, or `package.module:build_model`, or `demo`. It is put in evaluation mode.
        x: Input tensor (N, C, *spatial), or the path of an image or a saved tensor, or `mni152`.
        samples: Perturbed runs.
        mode: random, nearness, up_down, or Monte Carlo arithmetic rr, pb, full.
        seed: Same seed, same bits.
        precision: Virtual precision in bits of rr, pb and full.
        route: `exact` (compiled kernels round every instruction; modes random and nearness), `model` (stock kernels and
            a model of their noise), or `auto`: exact where that is possible.
        out: Run directory; a run that was interrupted is resumed. None: all stays in memory.
        layers: Globs of the layers that are recorded.
        keep_moments: Globs of the layers whose elements keep their moments (`.significant_bits`, `.classes`).
            None: all layers without `out`, none with it.
        keep_samples: Globs of the layers whose activations are kept (`result.activation(layer, sample)`).
        metrics: Functions of the output (or `package.module:function`) that return a number or a dict of numbers.
        estimator: Of significant bits; the default is CNH, relative to the IEEE run, p = confidence = .95.
        input_options: Fields of `images.SliceOptions` for a path; they win over the model's own `input_options`.
        segmentation: Image of whole-numbered labels in the space of the image x: a row of the table for each label that
            the slice or volume has, of every layer with image axes. `segmentation.read_segmentation` says how labels
            are named.
        regions: Globs of the names of the labels that become regions.
        slices: The whole volume of an image file, slice by slice through a two-dimensional model: `all`, `START:STOP`
            or `START:STOP:STEP`; each slice is a campaign with the seed `streams.piece_seed(seed, slice)`. Needs `out`.
        patches: The same patch by patch through a three-dimensional model: `XxYxZ` voxels, or `whole`.
        memory: Bytes, or a text such as "4GiB", that the process may take; None: half of what is free.
        threads: Samples computed side by side; changes no bit.
        block: Samples whose moments are accumulated one by one before blocks are merged.
        chunk: At most so many samples at once; changes no bit.
        device: Torch device.
        verrou: Run each sample in a process under Verrou, so (`mode` is then a rounding mode of Verrou); None: emulate.
        overwrite: Start again although `out` holds a run.
        executor: Where the work runs, which changes no bit: `local` (this process), `processes`, `dask`, `slurm`, or
            anything with `submit()`, such as `dask.distributed`'s `client.get_executor()`, or an `executors.Engine`
            that says all of this and the next three. Other workers than this process need `out` on a disk that all
            of them see, and are best given a model by its name.
        workers: Workers at once of processes, dask and slurm; None: as many processes as processors, as Dask's and
            Slurm's own rules have it.
        executor_options: What the engine is made with, see `executors.Engine`.
        tries: How often a unit whose worker is lost is given out in all.
        observer: Told of the progress; None: nobody.
    Raises:
        InputError: bad input; nothing was started.
        RunFailure: the model raised, the disk is full or units failed; with `out` the chunks that are done stay.
    """
    if verrou is not None and not all(isinstance(named, str) for named in (model, *metrics)):
        raise InputError(
            "Expected the model and the metrics as package.module:function, since each sample under Verrou is a "
            "process of its own."
        )
    engine = executor if isinstance(executor, Engine) else Engine(executor, workers, executor_options or {}, tries)
    loaded = load_model(model, device)
    prepared = load(x, loaded.module, input_options or {}, device, slices, patches)
    if segmentation is not None:
        prepared = with_regions(prepared, segmentation, as_globs(regions))
    if keep_moments is None:
        keep_moments = "*" if out is None else ()
    settings = Settings(
        samples=samples, mode=mode, precision=precision, seed=seed, route=route, block=block, layers=as_globs(layers),
        keep_moments=as_globs(keep_moments), keep_samples=as_globs(keep_samples), estimator=estimator or Estimator(),
        device=device, threads=threads, memory=parse_bytes(memory) if isinstance(memory, str) else memory, chunk=chunk,
        verrou=verrou,
    )  # fmt: skip
    campaign = Campaign(settings, loaded, prepared, [load_metric(metric) for metric in metrics])
    return campaign.run(None if out is None else Path(out), observer or Observer(), overwrite, engine)


def as_globs(globs: Globs) -> tuple[str, ...]:
    """Return globs as a tuple, where one may stand alone."""
    return (globs,) if isinstance(globs, str) else tuple(globs)


def estimator_of(options: Mapping[str, Any]) -> Estimator:
    """Return the estimator of the options that are stated; InputError for an unknown name."""
    known = {f.name for f in dataclasses.fields(Estimator)}
    unknown = sorted(set(options) - known)
    if unknown:
        raise InputError(f"There is no estimator option {unknown[0]}.")
    return Estimator(**{key: value for key, value in options.items() if value is not None})
