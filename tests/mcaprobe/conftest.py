"""Facts of every route are tested on both."""

import pytest

from mcaprobe import kernels, perturbation, routes


@pytest.fixture(params=["exact", "model"])
def each_route(request, monkeypatch):
    """Let blocks without a route take one of the two, where it is possible: the test runs once on each."""
    if request.param == "exact" and kernels.library() is None:
        pytest.skip(f"no kernels: {kernels.absence()}")

    def resolve(route: str, mode: str, device: str) -> str:
        return routes.resolve("model" if (route, request.param) == ("auto", "model") else route, mode, device)

    monkeypatch.setattr(perturbation, "resolve", resolve)
    return request.param
