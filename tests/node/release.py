"""The release of the chart on the node."""

from __future__ import annotations

from pathlib import Path

import yaml
from tests.charts.helm import CHART, CRD_CHART, Helm
from tests.node.documents import RELEASE, SYSTEM, VALUES
from tests.node.nodes import NodeCluster
from tests.node.outside import OutsideCluster

AnyNode = NodeCluster | OutsideCluster
"""Where the tests run: the suite's own node, or with CLUSTER a cluster with nodes of others."""


class Release:
    """The release of the chart."""

    def __init__(self, helm: Helm, cluster: AnyNode, folder: Path) -> None:
        self._helm = helm
        self._cluster = cluster
        self._values = folder / "values.yaml"
        self._values.write_text(yaml.safe_dump(VALUES))
        self._more: tuple[str, ...] = ("--set", f"service.proxy.type={cluster.proxy_type}")
        self._where = ("--namespace", SYSTEM, "--kubeconfig", cluster.kubeconfig)

    def install(self, *args: str) -> None:
        """Install both charts, or upgrade them, and wait until every replica is ready. Later calls keep `args`."""
        self._more += args
        flags = ("--create-namespace", "--wait", *self._where)
        self._helm.run("upgrade", "--install", "tailrace-crds", CRD_CHART, *flags)
        self._helm.run("upgrade", "--install", RELEASE, CHART, "--values", self._values, *flags, *self._more)

    def uninstall(self) -> str:
        """Uninstall the operator's chart; return what helm said."""
        return self._helm.run("uninstall", RELEASE, "--wait", *self._where)

    def remove(self) -> None:
        """Uninstall both charts where they are still installed, the operator's with its hook: no pod is left held."""
        for name in (RELEASE, "tailrace-crds"):
            self._helm.run("uninstall", name, "--ignore-not-found", "--wait", *self._where)

    def test(self) -> str:
        """Run the chart's own test."""
        return self._helm.run("test", RELEASE, *self._where)

    @property
    def proxy(self) -> str:
        """The proxy's URL, past which replica stands behind it."""
        return self._cluster.proxy_url(self._cluster.get("service", f"{RELEASE}-proxy", "-n", SYSTEM))
