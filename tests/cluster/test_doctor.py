"""Broken installations on a real API server: the doctor names the cause, and its own command mends it."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from tests.cluster.certs import write_certificates
from tests.cluster.clusters import Cluster
from tests.cluster.load import Load
from tests.cluster.ports import free_ports
from tests.cluster.replica import ROOT, Replica, install
from tests.cluster.servers import MODEL, Servers, eventually, inference_server, model_server_template

pytestmark = pytest.mark.cluster

Document = dict[str, Any]
SYSTEM = "tailrace-system"
BASE = ROOT / "manifests" / "base"


class Doctor:
    """Runs `tailrace doctor` for one namespace, and the commands that it gives."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self._cluster = cluster
        self._namespace = namespace
        self._tools = cluster.workdir / "doctor-path"
        self._tools.mkdir(exist_ok=True)
        link = self._tools / "kubectl"
        if not link.exists():
            link.symlink_to(Path(cluster.kubectl_path).resolve())

    def run(self, *args: str) -> subprocess.CompletedProcess[str]:
        """Return what the command says, and its exit code."""
        command = [sys.executable, "-m", "tailrace", "doctor", f"--only={self._namespace}", *args]
        return subprocess.run(command, env=self._environment(), capture_output=True, text=True, check=False)

    def findings(self, check: str, *args: str) -> list[Document]:
        """Return the findings of one check."""
        said = self.run("--json", *args)
        assert said.returncode in (0, 1), said.stderr
        return [finding for finding in json.loads(said.stdout)["findings"] if finding["check"] == check]

    def wrong(self, check: str, *args: str) -> list[Document]:
        """Return the findings of one check that need mending."""
        return [finding for finding in self.findings(check, *args) if finding["severity"] != "ok"]

    def mend(self, command: str) -> None:
        """Do as it says, from the root of the repository."""
        subprocess.run(
            ["bash", "-o", "pipefail", "-c", command],
            env=self._environment(),
            cwd=ROOT,
            check=True,
            capture_output=True,
            text=True,
        )

    def _environment(self) -> dict[str, str]:
        path = os.pathsep.join([str(self._tools), str(Path(sys.executable).parent), os.environ["PATH"]])
        kept = {name: text for name, text in os.environ.items() if not name.startswith("TAILRACE_")}
        return kept | {"PATH": path, "KUBECONFIG": str(self._cluster.kubeconfig)}


@pytest.fixture
def doctor(installed: Cluster, namespace: str) -> Doctor:
    return Doctor(installed, namespace)


@pytest.fixture
def servers(installed: Cluster, namespace: str) -> Servers:
    return Servers(installed, namespace)


@pytest.fixture
def replica(installed: Cluster, namespace: str) -> Iterator[Replica]:
    with Replica(installed, [namespace], status_seconds="1") as running:
        yield running


@pytest.fixture
def restored(installed: Cluster) -> Iterator[Cluster]:
    """Yield the cluster and install again what a test has broken."""
    yield installed
    install(installed)


@pytest.fixture
def deployed(installed: Cluster) -> Iterator[Cluster]:
    """Yield the cluster with the operator's Deployment, scaled to 0, and its Services."""
    installed.kubectl("apply", "-f", str(BASE / "services.yaml"))
    document = installed.kubectl("create", "--dry-run=client", "-f", str(BASE / "deployment.yaml"), "-o", "json")
    installed.apply(_scaled_to_zero(document.stdout))
    yield installed
    installed.kubectl("delete", "-f", str(BASE / "services.yaml"), "-f", str(BASE / "deployment.yaml"), check=False)


def _scaled_to_zero(printed: str) -> Document:
    decoder, text = json.JSONDecoder(), printed.strip()
    document, _ = decoder.raw_decode(text)
    found = next(each for each in document.get("items", [document]) if each["kind"] == "Deployment")
    found["spec"]["replicas"] = 0
    return dict(found)


async def _ask(replica: Replica, model: str = MODEL) -> tuple[int, Document, dict[str, str]]:
    body = {"model": model, "max_tokens": 2, "messages": [{"role": "user", "content": "hello"}]}
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{replica.proxy}/v1/chat/completions", json=body) as answer,
    ):
        return answer.status, await answer.json(), {name.lower(): value for name, value in answer.headers.items()}


def test_what_is_shipped_is_found_well(doctor: Doctor, replica: Replica, servers: Servers) -> None:
    servers.serve("alpha")
    assert [one["severity"] for one in doctor.findings("api-server")] == ["ok"]
    assert [one["message"] for one in doctor.wrong("crd")] == []
    assert [one["severity"] for one in doctor.findings("rights")] == ["ok"]
    held = doctor.findings("lease")[0]["message"]
    assert held.startswith("replica-0_")
    assert " leads; it renewed the Lease " in held
    assert [one["message"] for one in doctor.wrong("server")] == []
    assert [one["message"] for one in doctor.wrong("router", "--admin", replica.admin)] == []


def test_it_says_that_nothing_runs_and_what_installs_it(doctor: Doctor) -> None:
    (missing,) = doctor.wrong("deployment")
    assert missing["commands"] == ["kubectl apply -k manifests/base"]
    said = doctor.run()
    assert said.returncode == 1
    assert "kubectl apply -k manifests/base" in said.stdout
    assert "see docs/troubleshooting.md#missing-deployment" in said.stdout


def test_a_missing_right_is_named_with_what_fails_without_it(
    restored: Cluster, doctor: Doctor, replica: Replica, servers: Servers
) -> None:
    rules = restored.get("clusterrole", "tailrace")["rules"]
    index = next(place for place, rule in enumerate(rules) if rule["resources"] == ["pods"])
    remove = json.dumps([{"op": "remove", "path": f"/rules/{index}"}])
    restored.kubectl("patch", "clusterrole", "tailrace", "--type=json", "-p", remove)
    (lacking,) = eventually(lambda: doctor.wrong("rights"))
    assert "tailrace-system/tailrace may not get, list, watch, patch pods in the whole cluster" in lacking["message"]
    assert "stay Terminating" in lacking["message"]
    assert lacking["page"] == "docs/troubleshooting.md#missing-right"
    doctor.mend(lacking["commands"][0])
    eventually(lambda: not doctor.wrong("rights"))
    doctor.mend(lacking["commands"][1])  # kubectl's own answer to the same question is yes
    servers.serve("alpha")


def test_a_right_in_the_operators_own_namespace_is_missed_too(restored: Cluster, doctor: Doctor) -> None:
    restored.kubectl("delete", "rolebinding", "tailrace", "-n", SYSTEM)
    found = eventually(lambda: doctor.wrong("rights"))
    assert ["leases" in one["message"] and "no replica can register" in one["message"] for one in found] == [True]
    doctor.mend(found[0]["commands"][0])
    eventually(lambda: not doctor.wrong("rights"))


def test_a_missing_definition_is_named_and_applied(restored: Cluster, doctor: Doctor) -> None:
    restored.kubectl("delete", "crd", "inferenceservers.inference.tailrace.dev", "--timeout=60s")
    (missing,) = doctor.wrong("crd")
    assert "is not installed" in missing["message"]
    doctor.mend(missing["commands"][0])
    eventually(lambda: not doctor.wrong("crd"))


def test_a_definition_of_another_version_is_told_by_the_field_that_differs(restored: Cluster, doctor: Doctor) -> None:
    path = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/capacity/maximum"
    change = json.dumps([{"op": "replace", "path": path, "value": 64}])
    restored.kubectl("patch", "crd", "inferenceservers.inference.tailrace.dev", "--type=json", "-p", change)
    (differs,) = eventually(lambda: doctor.wrong("crd"))
    assert "differs at spec.capacity.maximum." in differs["message"]
    doctor.mend(differs["commands"][0])
    eventually(lambda: not doctor.wrong("crd"))


def test_gates_that_call_a_wrong_address_are_told_where_routers_are(
    deployed: Cluster, doctor: Doctor, servers: Servers, namespace: str
) -> None:
    doctor.mend(f"kubectl -n {SYSTEM} set env deployment/tailrace TAILRACE_GATE_ROUTERS=127.0.0.1:1")
    with Replica(deployed, [namespace], status_seconds="1", gate_routers="127.0.0.1:1"):
        servers.serve("alpha")
        (silent,) = eventually(lambda: doctor.wrong("gates"), seconds=120, what="the silence is noticed")
    assert "call 127.0.0.1:1 and no router has heard them" in silent["message"]
    assert f"is tailrace-admin.{SYSTEM}.svc:9090" in silent["message"]
    set_address, renew = silent["commands"]
    doctor.mend(set_address)
    (told,) = doctor.findings("gate-routers")
    assert told["severity"] == "ok"
    with Replica(deployed, [namespace], status_seconds="1") as corrected:  # as the Deployment would start it anew
        doctor.mend(renew)
        address = f"--routers={corrected.admin.removeprefix('http://')}"
        eventually(lambda: all(address in _gate_args(pod) for pod in servers.pods("alpha")), seconds=90)
        eventually(lambda: servers.condition("alpha", "DrainProtected").get("status") == "True")
        assert doctor.wrong("gates") == []


def _gate_args(pod: Document) -> list[str]:
    (gate,) = (one for one in pod["spec"]["initContainers"] if one["name"] == "drain-gate")
    return list(gate["args"])


async def test_a_wrong_model_name_is_answered_with_the_way_to_the_right_one(
    doctor: Doctor, replica: Replica, servers: Servers
) -> None:
    await asyncio.to_thread(servers.serve, "alpha")
    status, answer, _ = await _ask(replica, "dmeo")
    assert (status, answer["error"]["code"]) == (404, "model_not_found")
    assert "'dmeo'" in answer["error"]["message"]
    assert "GET /v1/models" in answer["error"]["message"]
    (wrong,) = await asyncio.to_thread(doctor.wrong, "model", "--model", "dmeo")
    assert f"names that are served: '{MODEL}'" in wrong["message"]
    await asyncio.to_thread(doctor.mend, wrong["commands"][0])
    for _ in range(50):
        if (await _ask(replica, "dmeo"))[0] == 200:
            break
        await asyncio.sleep(0.1)
    assert (await _ask(replica, "dmeo"))[0] == 200
    assert await asyncio.to_thread(doctor.wrong, "model", "--model", "dmeo") == []


async def test_a_full_pool_is_told_and_grows_by_the_command(doctor: Doctor, replica: Replica, servers: Servers) -> None:
    await asyncio.to_thread(servers.serve, "alpha", capacity=1, queue={"maxRequests": 0})
    async with Load(replica.proxy, MODEL, clients=1, tokens=(1000, 1000)):
        found = await asyncio.to_thread(eventually, lambda: doctor.wrong("pool"), what="the status tells it")
        status, answer, headers = await _ask(replica)
        assert (status, headers["x-tailrace-dropped-reason"]) == (429, "rejected-saturated")
        assert "at capacity" in answer["error"]["message"]
        assert int(headers["retry-after"]) >= 1
        assert "is full (1 of 1 requests in flight)" in found[0]["message"]
        scale, more = found[0]["commands"]
        assert "scale isvr/alpha --replicas=2" in scale
        await asyncio.to_thread(doctor.mend, more)
        await asyncio.to_thread(eventually, lambda: replica.endpoints()[0]["capacity"] == 2)
        assert (await _ask(replica))[0] == 200
    assert await asyncio.to_thread(eventually, lambda: not doctor.wrong("pool"))


def test_a_router_that_does_not_answer_is_exit_code_2_after_all_else_was_said(doctor: Doctor) -> None:
    (port,) = free_ports(1)
    said = doctor.run("--admin", f"127.0.0.1:{port}")
    assert said.returncode == 2
    assert "ServiceAccount tailrace-system/tailrace has all" in said.stdout
    assert f"http://127.0.0.1:{port} can't be asked" in said.stdout


def test_a_second_budget_is_told_and_gone_by_the_command(doctor: Doctor, servers: Servers, namespace: str) -> None:
    labels = {"tailrace.dev/server": "alpha", "app": "llm"}
    pod: Document = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "one", "labels": labels}}
    pod["spec"] = {"schedulerName": "nobody", "containers": [{"name": "main", "image": "none"}]}
    theirs: Document = {"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "theirs"}}
    theirs["spec"] = {"maxUnavailable": 1, "selector": {"matchLabels": {"app": "llm"}}}
    asked = inference_server("alpha", model_server_template(servers.log), disruptionBudget={"maxUnavailable": 1})
    servers.apply(asked, pod, theirs)
    (finding,) = doctor.wrong("budgets")
    assert finding["about"] == f"{namespace}/alpha"
    doctor.mend(finding["commands"][0])
    assert doctor.wrong("budgets") == []


def test_a_webhook_is_looked_at_from_its_registration_to_its_secret(
    deployed: Cluster, doctor: Doctor, tmp_path: Path
) -> None:
    deployed.kubectl("-n", SYSTEM, "patch", "deployment/tailrace", "-p", json.dumps(WEBHOOK_ON))
    anchors = [finding["page"].partition("#")[2] for finding in doctor.wrong("webhook")]
    assert anchors == ["webhook-not-registered", "webhook-certificate"]
    made = write_certificates(tmp_path / "certificates", ["127.0.0.1"])
    files = (f"--from-file={name}={path}" for name, path in (("tls.crt", made.server), ("tls.key", made.server_key)))
    deployed.kubectl("-n", SYSTEM, "create", "secret", "generic", "hook", f"--from-file=ca.crt={made.ca}", *files)
    deployed.apply(_registered(made.ca))
    try:
        (finding,) = doctor.wrong("webhook")
        assert finding["message"].startswith(f"Service {SYSTEM}/tailrace-webhook of the webhook does not exist")
    finally:
        deployed.kubectl("delete", "mutatingwebhookconfiguration/tailrace-test-doctor")
        deployed.kubectl("-n", SYSTEM, "delete", "secret/hook")


WEBHOOK_ON = {
    "spec": {
        "template": {
            "spec": {
                "containers": [
                    {
                        "name": "tailrace",
                        "env": [{"name": "TAILRACE_WEBHOOK_CERTIFICATES", "value": "/hook"}],
                        "volumeMounts": [{"name": "hook", "mountPath": "/hook"}],
                    }
                ],
                "volumes": [{"name": "hook", "secret": {"secretName": "hook"}}],
            }
        }
    }
}


def _registered(authority: Path) -> Document:
    """Return the webhook as the chart registers it, for pods of no namespace."""
    hook = {
        "name": "pods.tailrace.dev",
        "admissionReviewVersions": ["v1"],
        "sideEffects": "None",
        "failurePolicy": "Ignore",
        "clientConfig": {
            "service": {"name": "tailrace-webhook", "namespace": SYSTEM, "path": "/pods"},
            "caBundle": base64.b64encode(authority.read_bytes()).decode(),
        },
        "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}],
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "tailrace-test-nowhere"}},
    }
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": "tailrace-test-doctor"},
        "webhooks": [hook],
    }


def test_who_may_not_look_is_told_what_was_not_checked(installed: Cluster, doctor: Doctor) -> None:
    kubeconfig = installed.bearer_kubeconfig(service_account="tailrace-system/tailrace")
    said = doctor.run("--kubeconfig", str(kubeconfig))
    assert said.returncode == 1
    assert "You may not read customresourcedefinitions" in said.stdout
    assert "has all" in said.stdout  # the operator itself may ask about rights
