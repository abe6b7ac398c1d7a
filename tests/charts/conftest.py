"""Fixtures of the chart tests: helm, and the cluster that judges what it renders."""

import pytest
from tests.charts.helm import Helm
from tests.cluster.fixtures import build_tools, cluster, embedded, namespace

__all__ = ["cluster", "embedded", "namespace"]


@pytest.fixture(scope="package")
def helm(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Helm:
    """Return helm at the pinned version."""
    return Helm(build_tools(request, ["helm"])["helm"], tmp_path_factory.mktemp("helm"))
