"""Facts of every route are tested on both; one report of everything is enough for all that look at it."""

from pathlib import Path

import pytest

import mcaprobe
from mcaprobe import kernels, perturbation, routes
from tests.mcaprobe.report_pages import make_everything


@pytest.fixture(scope="session")
def for_report(tmp_path_factory) -> dict[str, list[Path]]:
    """Runs, masks, NaN maps and rows, by kind; to be read, not changed."""
    return make_everything(tmp_path_factory.mktemp("everything"))


@pytest.fixture(scope="session")
def whole_report(for_report, tmp_path_factory) -> Path:
    """The report of all of it."""
    path = tmp_path_factory.mktemp("whole") / "report.html"
    mcaprobe.report(for_report["runs"], path, **{kind: for_report[kind] for kind in ("masks", "nan", "rows")})
    return path


@pytest.fixture(params=["exact", "model"])
def each_route(request, monkeypatch):
    """Let blocks without a route take one of the two, where it is possible: the test runs once on each."""
    if request.param == "exact" and kernels.library() is None:
        pytest.skip(f"no kernels: {kernels.absence()}")

    def resolve(route: str, mode: str, device: str) -> str:
        return routes.resolve("model" if (route, request.param) == ("auto", "model") else route, mode, device)

    monkeypatch.setattr(perturbation, "resolve", resolve)
    return request.param
