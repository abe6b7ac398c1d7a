"""InferenceServers for tests: documents, waiting, and the audit of what the model servers wrote down."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.cluster.clusters import Cluster

Document = dict[str, Any]
MODEL = "demo"


def model_server_template(
    log: Path, *, args: tuple[str, ...] = (), gpus: int = 0, liveness: bool = False, model: str = MODEL
) -> Document:
    """Return a pod template that runs `tailrace model-server` on the pod's own address; it aborts on SIGTERM."""
    container: Document = {
        "name": "engine",
        "image": "tailrace:test",
        "command": ["tailrace", "model-server"],
        "args": [
            *("--host", "$(POD_IP)", "--port", "8000", "--model", model, "--on-sigterm", "abort"),
            *("--itl-ms", "15", "--ttft-base-ms", "10", "--request-log", str(log), *args),
        ],
        "env": [{"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
        "ports": [{"name": "http", "containerPort": 8000}],
        "readinessProbe": {"httpGet": {"path": "/health", "port": 8000}, "periodSeconds": 1},
    }
    if gpus:
        container["resources"] = {"limits": {"nvidia.com/gpu": str(gpus)}}
    if liveness:
        probe = {"httpGet": {"path": "/health", "port": 8000}, "periodSeconds": 1, "timeoutSeconds": 1}
        container["livenessProbe"] = {**probe, "failureThreshold": 3, "terminationGracePeriodSeconds": 4}
    return {"spec": {"containers": [container]}}


def inference_server(name: str, template: Document | None = None, **spec: Any) -> Document:  # noqa: ANN401 - JSON
    """Return an InferenceServer that drains within 30 s and settles for one."""
    body: Document = {"models": [{"name": MODEL}], "drain": {"timeoutSeconds": 30, "settleSeconds": 1}}
    body["timeouts"] = {"totalSeconds": 30, "firstByteSeconds": 20, "idleSeconds": 20}
    if template is not None:
        body["template"] = template
    return {
        "apiVersion": "inference.tailrace.dev/v1alpha1",
        "kind": "InferenceServer",
        "metadata": {"name": name},
        "spec": body | spec,
    }


POLL_SECONDS = 0.1


def eventually(check: Callable[[], Any], *, seconds: float = 30.0, what: str = "") -> Any:  # noqa: ANN401
    """Return the first true answer of `check`; after `seconds` fail with the last one.

    Between two checks it sleeps for twice as long as one takes: a check is mostly a program that is started, and what
    is waited for needs the core, too.
    """
    deadline = time.monotonic() + seconds
    while True:
        began = time.monotonic()
        if answer := check():
            return answer
        now = time.monotonic()
        assert now < deadline, f"not within {seconds:g} s: {what or check} (last: {answer!r})"
        time.sleep(max(POLL_SECONDS, 2 * (now - began)))


class Servers:
    """InferenceServers of one namespace."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self.cluster = cluster
        self.namespace = namespace
        self.log = cluster.workdir / f"requests-{namespace}.jsonl"

    def kubectl(self, *args: str, input: str | None = None, check: bool = True) -> str:  # noqa: A002
        """Run kubectl in the namespace; return what it printed."""
        return self.cluster.kubectl("-n", self.namespace, *args, input=input, check=check).stdout

    def apply(self, *documents: Document) -> None:
        """Apply documents in the namespace."""
        body = {"apiVersion": "v1", "kind": "List", "items": documents}
        self.kubectl("apply", "-f", "-", input=json.dumps(body))

    def serve(self, name: str, *, replicas: int = 1, args: tuple[str, ...] = (), **spec: Any) -> None:  # noqa: ANN401
        """Apply an InferenceServer with simulated engines and wait until all are ready."""
        self.apply(inference_server(name, model_server_template(self.log, args=args), replicas=replicas, **spec))
        self.wait_ready(name, replicas)

    def wait_ready(self, name: str, replicas: int, *, seconds: float = 60.0) -> None:
        """Wait until the status says that so many are ready."""
        eventually(
            lambda: self.status(name).get("ready") == f"{replicas}/{replicas}",
            seconds=seconds,
            what=f"{name} {replicas} ready",
        )

    def get(self, *args: str) -> Document:
        """Return an object or list as JSON, empty when it does not exist."""
        return self.cluster.get(*args, "-n", self.namespace)

    def status(self, name: str) -> Document:
        """Return the status of an InferenceServer."""
        found: Document = self.get("isvr", name).get("status", {})
        return found

    def condition(self, name: str, kind: str) -> Document:
        """Return one condition, empty when it is not there."""
        conditions = self.status(name).get("conditions", [])
        return next((one for one in conditions if one["type"] == kind), {})

    def pods(self, server: str | None = None) -> list[Document]:
        """Return the pods, of one server or all, terminating ones included."""
        selector = ("-l", f"tailrace.dev/server={server}") if server else ()
        items: list[Document] = self.get("pods", *selector).get("items", [])
        return items

    def events(self, reason: str) -> list[Document]:
        """Return the events of one reason."""
        items: list[Document] = self.get("events").get("items", [])
        return [event for event in items if event["reason"] == reason]

    def engine_log(self) -> list[Document]:
        """Return every line that the model servers wrote."""
        if not self.log.exists():
            return []
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def forget_requests(self) -> None:
        """Drop what the model servers wrote, all but who listens where. Call it when they are idle."""
        kept = [line for line in self.engine_log() if line["event"] == "startup"]
        self.log.write_text("".join(json.dumps(line) + "\n" for line in kept))

    def engine_ends(self) -> dict[str, Document]:
        """Return how each request ended as the engines saw it, by request id; a retried one by its last attempt."""
        return {line["request_id"]: line for line in self.engine_log() if line["event"] == "end"}
