"""The image, as it runs on the own."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.cluster.servers import Document
from tests.node.documents import SYSTEM
from tests.node.image import IMAGE
from tests.node.nodes import NodeCluster
from tests.node.release import Release
from tests.repo.test_requirements import RUNTIME, pins

import tailrace


@pytest.fixture
def router(own: NodeCluster, release: Release) -> str:
    """Return the container of a replica that runs."""
    pods = own.get("pods", "-n", SYSTEM, "-l", "app.kubernetes.io/component=operator")["items"]
    found: str = next(_container(pod) for pod in pods if pod["status"].get("containerStatuses"))
    return found


def _container(pod: Document) -> str:
    return str(pod["status"]["containerStatuses"][0]["containerID"]).removeprefix("containerd://")


def in_python(own: NodeCluster, container: str, code: str) -> str:
    """Run code by the image's own Python in a container that runs; there is no shell to ask."""
    python = "/opt/tailrace/bin/python"
    return own.ctr("tasks", "exec", "--exec-id", "asked", container, python, "-c", code)


def test_the_image_says_what_it_is_and_is_nobody(own: NodeCluster) -> None:
    config = described(own)["config"]
    assert config["User"] == "65532:65532"
    assert config["Entrypoint"] == ["tailrace"]
    assert config["Labels"]["org.opencontainers.image.version"] == tailrace.__version__


def described(own: NodeCluster) -> dict[str, Any]:
    """Return the image's configuration."""
    manifest = content(own, next(line.split()[2] for line in own.ctr("images", "ls").splitlines() if IMAGE in line))
    return content(own, manifest["config"]["digest"])


def content(own: NodeCluster, digest: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(own.ctr("content", "get", digest))
    return found


def test_the_bill_of_materials_inside_names_what_the_lock_does(own: NodeCluster, router: str) -> None:
    bill = json.loads(in_python(own, router, "print(open('/opt/tailrace/app/sbom.cdx.json').read())"))
    parts = {(part["name"], part["version"]) for part in bill["components"]}
    assert parts <= pins(RUNTIME).items()
    assert {"kopf", "aiohttp", "uvloop"} <= {name for name, _ in parts}


def test_a_container_writes_to_its_tmp_and_nowhere_else(own: NodeCluster, router: str) -> None:
    code = "import os; print([path for path in ('/', '/opt', '/home', '/tmp') if os.access(path, os.W_OK)])"
    assert in_python(own, router, code).strip() == "['/tmp']"
