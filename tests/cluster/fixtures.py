"""Fixtures of the cluster tests: one cluster for the folder that imports them, one namespace for each test.

It ends with the last test of the folder: whatever tests run then need not share the machine with it.
"""

import os
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from tests.cluster import tools
from tests.cluster.clusters import Cluster
from tests.cluster.embedded import EmbeddedCluster
from tests.cluster.external import ExternalCluster
from tests.cluster.pods import Pods


@pytest.fixture(scope="package")
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """Yield the cluster under a folder's tests: embedded, or with CLUSTER=current that of the current kubeconfig."""
    if os.environ.get("CLUSTER") == "current":
        with ExternalCluster() as external:
            yield external
        return
    build_tools(request)
    embedded = EmbeddedCluster()
    with embedded:
        yield embedded
        failed = request.session.testsfailed > 0
        embedded.keep_files = failed
    if failed:
        _say(request, f"logs of the embedded cluster are kept in {embedded.workdir}")


@pytest.fixture(scope="package")
def embedded(cluster: Cluster) -> EmbeddedCluster:
    """Return the embedded cluster, for tests that need its kubelet or its processes; skips on any other cluster."""
    if not isinstance(cluster, EmbeddedCluster):
        pytest.skip("needs the embedded cluster: unset CLUSTER")
    return cluster


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    """Yield a fresh namespace that has its default service account; delete it afterwards, without waiting."""
    name = f"t-{uuid.uuid4().hex[:8]}"
    cluster.kubectl("create", "namespace", name)
    cluster.kubectl("wait", "--for=create", "serviceaccount/default", "-n", name, "--timeout=30s")
    yield name
    cluster.kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture
def pods(embedded: EmbeddedCluster, namespace: str) -> Pods:
    """Return short ways to make and watch pods in a fresh namespace of the embedded cluster."""
    return Pods(embedded, namespace)


def build_tools(request: pytest.FixtureRequest, names: Iterable[str] = tools.CONTROL_PLANE) -> dict[str, Path]:
    """Return the paths of the named tools, built with progress on the terminal; skips, or fails in CI, without Go."""
    capture = request.config.pluginmanager.getplugin("capturemanager")
    try:
        with capture.global_and_fixture_disabled():
            return tools.ensure(names)
    except tools.ToolError as error:
        if os.environ.get("CI", "").lower() == "true":
            pytest.fail(f"{', '.join(names)} cannot be built: {error}", pytrace=False)
        pytest.skip(str(error))


def _say(request: pytest.FixtureRequest, text: str) -> None:
    reporter = request.config.pluginmanager.getplugin("terminalreporter")
    if reporter is not None:
        reporter.write_line(text)
