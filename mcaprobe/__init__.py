"""mcaprobe: how many digits of each activation mean anything?

    result = mcaprobe.run(model, x, samples=10, mode="random")
    result["decoder.4.conv2"].significant_bits      # float64, the layer's shape
    result.table(), result.heatmap(), result.manifest

The names below are imported when they are used first, so that `mcaprobe --help` does not wait for torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mcaprobe.api import run as run
    from mcaprobe.comparison import compare as compare
    from mcaprobe.digits import recompute as recompute
    from mcaprobe.emulator import lockstep as lockstep
    from mcaprobe.emulator import perturb as perturb
    from mcaprobe.errors import InputError as InputError
    from mcaprobe.errors import RunFailure as RunFailure
    from mcaprobe.flips import Decision as Decision
    from mcaprobe.flips import decisions as decisions
    from mcaprobe.forecast import Forecast as Forecast
    from mcaprobe.forecasting import plan as plan
    from mcaprobe.html_report.report import report as report
    from mcaprobe.images import SliceOptions as SliceOptions
    from mcaprobe.layer_masks import Mask as Mask
    from mcaprobe.layer_masks import unstable as unstable
    from mcaprobe.mask_store import load_masks as load_masks
    from mcaprobe.recorder import record as record
    from mcaprobe.result import Result as Result
    from mcaprobe.result import load as load
    from mcaprobe.statistics import Class as Class
    from mcaprobe.statistics import Estimator as Estimator
    from mcaprobe.statistics import Moments as Moments

_HOME = {
    "Class": "statistics",
    "Decision": "flips",
    "Estimator": "statistics",
    "Forecast": "forecast",
    "InputError": "errors",
    "Mask": "layer_masks",
    "Moments": "statistics",
    "Result": "result",
    "RunFailure": "errors",
    "SliceOptions": "images",
    "compare": "comparison",
    "decisions": "flips",
    "load": "result",
    "load_masks": "mask_store",
    "lockstep": "emulator",
    "perturb": "emulator",
    "plan": "forecasting",
    "recompute": "digits",
    "record": "recorder",
    "report": "html_report.report",
    "run": "api",
    "unstable": "layer_masks",
}
__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'mcaprobe' has no attribute {name!r}")
    return getattr(import_module(f"mcaprobe.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
