"""The chart's webhook on a real API server: selected pods of somebody else are protected from their first moment."""

from __future__ import annotations

import asyncio
import json
import shutil
import ssl
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.charts.helm import Helm, of_kind
from tests.cluster.certs import Certificates, write_certificates
from tests.cluster.embedded import EmbeddedCluster
from tests.cluster.load import Load
from tests.cluster.ports import free_ports
from tests.cluster.replica import Replica, install
from tests.cluster.servers import MODEL, Document, Servers, eventually, inference_server, model_server_template

from tailrace.api import names
from tailrace.kube.webhook import CERTIFICATE, KEY

pytestmark = pytest.mark.cluster

THEIRS = {"app": "theirs"}


@dataclass(frozen=True)
class Webhook:
    """A replica that answers the API server, and the InferenceServers and pods of its namespace."""

    replica: Replica
    servers: Servers

    def deployment(self) -> Document:
        """Return a Deployment of somebody else, of engines that abort on SIGTERM."""
        template = model_server_template(self.servers.log) | {"metadata": {"labels": THEIRS}}
        spec = {"replicas": 1, "selector": {"matchLabels": THEIRS}, "template": template}
        return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "theirs"}, "spec": spec}

    def select(self) -> None:
        """Have an InferenceServer that selects these pods, known to the replica."""
        self.servers.apply(inference_server("adopted", selector={"matchLabels": THEIRS}))
        eventually(lambda: self.servers.condition("adopted", "Ready"))

    def created(self, *, app: str = "theirs", **spec: object) -> str:
        """Return what the API server warned of when asked to create a pod, without really creating it."""
        pod: Document = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "labels": {"app": app}}}
        pod["spec"] = {"containers": [{"name": "main", "image": "x"}]} | spec
        found = self.servers.cluster.kubectl(
            *("create", "-n", self.servers.namespace, "--dry-run=server", "-o", "name", "-f", "-"),
            input=json.dumps(pod),
        )
        assert "pod/p" in found.stdout
        return found.stderr


def _configure(helm: Helm, cluster: EmbeddedCluster, namespace: str, url: str, authority: Path) -> str:
    """Apply the chart's configuration, for the address where the test's replica listens; return its name."""
    rendered = helm.render("webhook.enabled=true", f'watchNamespaces=["{namespace}"]', namespace=namespace)
    (configuration,) = of_kind(rendered, "MutatingWebhookConfiguration")
    (asked,) = configuration["webhooks"]
    path = asked["clientConfig"]["service"]["path"]
    asked["clientConfig"] = {"url": url + path, "caBundle": b64encode(authority.read_bytes()).decode()}
    cluster.apply(configuration)
    return str(configuration["metadata"]["name"])


def _certificates(folder: Path) -> tuple[Path, Certificates]:
    """Write a certificate for 127.0.0.1 in the way of a Secret of the type kubernetes.io/tls."""
    made = write_certificates(folder / "pki", ["127.0.0.1"])
    mounted = folder / "mounted"
    mounted.mkdir()
    shutil.copy(made.server, mounted / CERTIFICATE)
    shutil.copy(made.server_key, mounted / KEY)
    return mounted, made


def _listens(url: str, authority: Path) -> bool:
    context = ssl.create_default_context(cafile=str(authority))
    try:
        urllib.request.urlopen(url, context=context, timeout=2).close()
    except urllib.error.HTTPError as error:
        error.close()
        return True
    except OSError:
        return False
    return True


@pytest.fixture
def webhook(helm: Helm, embedded: EmbeddedCluster, namespace: str, tmp_path: Path) -> Iterator[Webhook]:
    install(embedded)
    mounted, made = _certificates(tmp_path)
    (port,) = free_ports(1)
    settings = {"webhook_certificates": str(mounted), "webhook_port": str(port)}
    with Replica(embedded, [namespace], **settings) as replica:
        url = f"https://127.0.0.1:{port}"
        eventually(lambda: _listens(url, made.ca), what="the webhook listens")
        name = _configure(helm, embedded, namespace, url, made.ca)
        found = Webhook(replica, Servers(embedded, namespace))
        found.select()
        try:
            eventually(lambda: "hostNetwork" in found.created(hostNetwork=True), what="the API server asks the webhook")
            yield found
        finally:
            embedded.kubectl("delete", "mutatingwebhookconfiguration", name)


async def test_a_rollout_of_somebody_elses_deployment_loses_no_stream(webhook: Webhook) -> None:
    servers = webhook.servers
    servers.apply(webhook.deployment())
    await asyncio.to_thread(servers.wait_ready, "adopted", 1)
    for pod in servers.pods("adopted"):
        assert [one["name"] for one in pod["spec"]["initContainers"]] == [names.GATE_CONTAINER]
        assert pod["metadata"]["finalizers"] == [names.FINALIZER]
        assert pod["spec"]["terminationGracePeriodSeconds"] == 46
    protected = await asyncio.to_thread(
        eventually, lambda: servers.condition("adopted", "DrainProtected").get("status") == "True"
    )
    assert protected
    async with Load(webhook.replica.proxy, MODEL, clients=16, tokens=(40, 100)) as load:
        await asyncio.sleep(1)
        before = {pod["metadata"]["uid"] for pod in servers.pods("adopted")}
        servers.kubectl("rollout", "restart", "deployment/theirs")
        await asyncio.to_thread(
            eventually,
            lambda: not before & {pod["metadata"]["uid"] for pod in servers.pods("adopted")},
            seconds=60,
            what="the old pods have drained",
        )
    assert len(load.records) > 16
    assert not load.losses, str(load.losses[:3])


def test_pods_are_created_whatever_becomes_of_the_webhook(webhook: Webhook) -> None:
    assert "Container main has a preStop hook of its own" in webhook.created(
        containers=[{"name": "main", "image": "x", "lifecycle": {"preStop": {"sleep": {"seconds": 1}}}}]
    )
    assert webhook.created() == ""
    assert webhook.created(app="nobody-selects-it", hostNetwork=True) == ""
    assert webhook.servers.pods() == [], "a trial leaves nothing behind"
    webhook.replica.stop()
    webhook.servers.apply(webhook.deployment())
    (pod,) = eventually(webhook.servers.pods, what="a pod is created while the webhook is away")
    assert "initContainers" not in pod["spec"]
