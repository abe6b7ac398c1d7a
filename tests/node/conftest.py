"""One node, one release of the chart and one served model for all the tests of this folder."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator

import pytest
from tests.charts.helm import Helm
from tests.cluster import tools
from tests.cluster.servers import Servers
from tests.node.documents import SERVER, server
from tests.node.nodes import NodeCluster, missing
from tests.node.release import Release

NAMESPACE = "models"


@pytest.fixture(scope="session")
def node(request: pytest.FixtureRequest) -> Iterator[NodeCluster]:
    """Yield a cluster of one real node; skips where none can run, and fails there in CI."""
    if lacking := missing():
        if os.environ.get("CI", "").lower() == "true":
            pytest.fail(lacking, pytrace=False)
        pytest.skip(lacking)
    capture = request.config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        cluster = NodeCluster()
        cluster.__enter__()
    try:
        yield cluster
    finally:
        cluster.keep_files = request.session.testsfailed > 0
        cluster.stop()


@pytest.fixture(scope="session")
def release(node: NodeCluster, tmp_path_factory: pytest.TempPathFactory) -> Release:
    """Return the installed release."""
    folder = tmp_path_factory.mktemp("helm")
    made = Release(Helm(tools.ensure(["helm"])["helm"], folder), node, folder)
    made.install()
    return made


@pytest.fixture(scope="session")
def servers(node: NodeCluster, release: Release) -> Servers:
    """Return the namespace of the models, which takes pods of the standard `restricted` only; one model is served."""
    node.kubectl("create", "namespace", NAMESPACE)
    node.kubectl("label", "namespace", NAMESPACE, "pod-security.kubernetes.io/enforce=restricted")
    made = Servers(node, NAMESPACE)
    made.apply(server(replicas=2))
    made.wait_ready(SERVER, 2)
    return made


@pytest.fixture
def others(node: NodeCluster, release: Release) -> Iterator[Servers]:
    """Yield a second namespace that serves the model `other`."""
    name = f"others-{uuid.uuid4().hex[:6]}"
    node.kubectl("create", "namespace", name)
    made = Servers(node, name)
    made.apply(server("--model", "other", models=[{"name": "other"}]))
    made.wait_ready(SERVER, 1)
    yield made
    node.kubectl("delete", "namespace", name, "--wait=false", check=False)
