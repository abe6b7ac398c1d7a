"""One cluster with real nodes, one release of the chart and one served model for all the tests of this folder."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator

import pytest
from tests.charts.helm import Helm
from tests.cluster import tools
from tests.cluster.servers import Servers
from tests.node.documents import BESIDE, RELEASE, SERVER, SYSTEM, server
from tests.node.nodes import NodeCluster, missing
from tests.node.outside import KindCluster, OutsideCluster
from tests.node.release import AnyNode, Release

NAMESPACE = "models"
OUTSIDE: dict[str, type[OutsideCluster]] = {"current": OutsideCluster, "kind": KindCluster}


@pytest.fixture(scope="package")
def node(request: pytest.FixtureRequest) -> Iterator[AnyNode]:
    """Yield the cluster that CLUSTER names, or a real node; skips where none can run, and fails there in CI."""
    if named := OUTSIDE.get(os.environ.get("CLUSTER", "")):
        with named() as outside:
            yield outside
        return
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


@pytest.fixture(scope="package")
def own(node: AnyNode) -> NodeCluster:
    """Return the suite's own node, for tests that end its programs, look into them, or call pods past Services."""
    if not isinstance(node, NodeCluster):
        pytest.skip("needs the suite's own node: unset CLUSTER (CLUSTER=current and kind have nodes of others)")
    return node


@pytest.fixture(scope="package")
def helm(tmp_path_factory: pytest.TempPathFactory) -> Helm:
    """Return the pinned helm."""
    return Helm(tools.ensure(["helm"])["helm"], tmp_path_factory.mktemp("helm-home"))


@pytest.fixture(scope="package")
def release(node: AnyNode, helm: Helm, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Release]:
    """Yield the installed release; on a cluster of others, where there is none yet."""
    if isinstance(node, OutsideCluster) and node.get("deployment", RELEASE, "-n", SYSTEM):
        pytest.fail(f"{SYSTEM} has a release {RELEASE} already, which these tests would replace", pytrace=False)
    made = Release(helm, node, tmp_path_factory.mktemp("helm"))
    made.install()
    yield made
    if isinstance(node, OutsideCluster):
        made.remove()


@pytest.fixture(scope="package")
def servers(node: AnyNode, release: Release) -> Iterator[Servers]:
    """Yield the namespace of the models, which takes pods of the standard `restricted` only.

    One model is served. Others start beside it, so that their tests need not wait for them.
    """
    node.kubectl("create", "namespace", NAMESPACE)
    node.kubectl("label", "namespace", NAMESPACE, "pod-security.kubernetes.io/enforce=restricted")
    made = Servers(node, NAMESPACE)
    made.apply(server(replicas=2), *BESIDE)
    made.wait_ready(SERVER, 2)
    yield made
    if isinstance(node, OutsideCluster):
        node.kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", "--timeout=120s", check=False)


@pytest.fixture
def others(node: AnyNode, release: Release) -> Iterator[Servers]:
    """Yield a second namespace that serves the model `other`."""
    name = f"others-{uuid.uuid4().hex[:6]}"
    node.kubectl("create", "namespace", name)
    made = Servers(node, name)
    made.apply(server("--model", "other", models=[{"name": "other"}]))
    made.wait_ready("demo", 1)
    yield made
    node.kubectl("delete", "namespace", name, "--wait=false", check=False)
