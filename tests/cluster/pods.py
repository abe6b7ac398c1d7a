"""Pods for tests: a small scriptable server as the container, and short ways to make, watch and end pods."""

import json
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.cluster.controlplane import ClusterError
from tests.cluster.embedded import EmbeddedCluster

SERVER = Path(__file__).with_name("scripted_server.py")
PORT = 8000
WAIT_SECONDS = 30.0
Pod = dict[str, Any]


def server_container(name: str = "main", port: int = PORT, **fields: object) -> dict[str, Any]:
    """Return a container that runs the scripted server on the pod's address; `fields` are those of the API."""
    address = {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}
    command = ["python", "-u", str(SERVER), "$(POD_IP)", str(port)]
    probe = {"httpGet": {"path": "/ready", "port": port}, "periodSeconds": 1}
    started = {"httpGet": {"path": "/", "port": port}, "periodSeconds": 1, "failureThreshold": 60}
    described = {"name": name, "image": "scripted", "env": [address], "command": command}
    return described | {"startupProbe": started, "readinessProbe": probe} | fields


def shell_container(name: str, script: str, **fields: object) -> dict[str, Any]:
    """Return a container that runs a shell script; `fields` are those of the API."""
    return {"name": name, "image": "shell", "command": ["sh", "-c", script]} | fields


class Pods:
    """Pods of one namespace of the embedded cluster."""

    def __init__(self, cluster: EmbeddedCluster, namespace: str) -> None:
        self.cluster = cluster
        self.namespace = namespace

    def kubectl(self, *args: str) -> str:
        """Run kubectl in the namespace and return what it printed."""
        return self.cluster.kubectl("-n", self.namespace, *args).stdout

    def create(self, name: str, metadata: dict[str, Any] | None = None, /, **spec: object) -> None:
        """Create a pod with this spec."""
        described = {"name": name, "namespace": self.namespace} | (metadata or {})
        self.cluster.apply({"apiVersion": "v1", "kind": "Pod", "metadata": described, "spec": spec})

    def server(self, name: str, *, grace: int = 30, **container: object) -> None:
        """Create a pod of one scripted server; keywords are fields of its container."""
        self.create(name, containers=[server_container(**container)], terminationGracePeriodSeconds=grace)  # type: ignore[arg-type]

    def get(self, name: str) -> Pod:
        """Return the pod; empty when it does not exist."""
        return self.cluster.get("pod", name, "-n", self.namespace)

    def wait(self, name: str, holds: Callable[[Pod], bool], seconds: float = WAIT_SECONDS) -> Pod:
        """Wait until `holds(pod)` (an absent pod is empty) and return the pod; AssertionError shows the last one."""
        deadline = time.monotonic() + seconds
        while not _holds(holds, pod := self._get_patiently(name)):
            assert time.monotonic() < deadline, f"pod {name} after {seconds} s: {json.dumps(pod.get('status'))}"
            time.sleep(0.1)
        return pod

    def _get_patiently(self, name: str) -> Pod:
        try:
            return self.get(name)
        except ClusterError:  # the API server is just starting
            return {"status": {}}

    def ready(self, name: str) -> Pod:
        """Wait until the pod is Ready and return it."""
        return self.wait(name, lambda pod: condition(pod, "Ready") == "True")

    def gone(self, name: str, seconds: float = WAIT_SECONDS) -> None:
        """Wait until the pod's object does not exist."""
        self.wait(name, lambda pod: not pod, seconds)

    def delete(self, name: str, *flags: str, wait: bool = True) -> None:
        """Delete the pod by kubectl."""
        self.kubectl("delete", "pod", name, f"--wait={str(wait).lower()}", *flags)

    def patch(self, name: str, change: dict[str, Any]) -> None:
        """Merge a change into the pod."""
        self.kubectl("patch", "pod", name, "--type=merge", "--patch", json.dumps(change))

    def evict(self, name: str) -> None:
        """Ask the Eviction API to remove the pod."""
        body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": self.namespace}}
        path = f"/api/v1/namespaces/{self.namespace}/pods/{name}/eviction"
        self.cluster.kubectl("create", "--raw", path, "-f", "-", input=json.dumps(body))

    def all(self) -> list[Pod]:
        """Return every pod of the namespace."""
        found: list[Pod] = self.cluster.get("pods", "-n", self.namespace).get("items", [])
        return found

    def processes(self, name: str) -> list[int]:
        """Return the ids of living processes that run in a folder of the pod."""
        folder = str(self.cluster.pod_log_dir / f"{self.namespace}_{name}_")
        return [int(entry.name) for entry in Path("/proc").glob("[0-9]*") if _folder_of(entry).startswith(folder)]

    def call(self, name: str, path: str, port: int = PORT) -> str:
        """Send a GET to the pod's scripted server and return the answer's body."""
        return ask(self.get(name)["status"]["podIP"], path, port)

    def log(self, name: str, container: str = "main") -> str:
        """Return all that a container has written."""
        return self.cluster.logs(name, container, self.namespace)

    def said(self, name: str, word: str, container: str = "main") -> list[float]:
        """Return the moments (seconds since the epoch) at which a scripted server wrote `word`."""
        lines = (line.split() for line in self.log(name, container).splitlines())
        return [float(line[0]) for line in lines if line[1:] == [word]]

    def wait_said(self, name: str, word: str, container: str = "main", *, times: int = 1) -> float:
        """Wait until a scripted server has written `word` so many times and return when it first did."""
        deadline = time.monotonic() + WAIT_SECONDS
        while len(moments := self.said(name, word, container)) < times:
            assert time.monotonic() < deadline, f"{name}/{container} never wrote {word}: {self.log(name, container)}"
            time.sleep(0.05)
        return moments[0]

    def wait_log(self, name: str, container: str = "main", seconds: float = WAIT_SECONDS) -> str:
        """Wait until a container has written something and return it."""
        deadline = time.monotonic() + seconds
        while not (text := self.log(name, container)):
            assert time.monotonic() < deadline, f"{name}/{container} wrote nothing"
            time.sleep(0.05)
        return text

    @staticmethod
    def container(pod: Pod, name: str = "main") -> dict[str, Any]:
        """Return the status of one container, init containers included."""
        status = pod["status"]
        found = [*status.get("containerStatuses", []), *status.get("initContainerStatuses", [])]
        return next(one for one in found if one["name"] == name)

    @classmethod
    def state(cls, pod: Pod, name: str = "main") -> dict[str, Any]:
        """Return one container's present state."""
        state: dict[str, Any] = cls.container(pod, name)["state"]
        return state


def ask(address: str, path: str, port: int = PORT) -> str:
    """Send a GET to a scripted server by its address and return the answer's body."""
    with urllib.request.urlopen(f"http://{address}:{port}{path}", timeout=10) as answer:
        return str(answer.read().decode())


def condition(pod: Pod, kind: str) -> str:
    """Return the status of one condition; empty when it is not there."""
    conditions = pod.get("status", {}).get("conditions") or ()
    return next((one["status"] for one in conditions if one["type"] == kind), "")


def _folder_of(process: Path) -> str:
    try:
        return str((process / "cwd").readlink())
    except OSError:
        return ""


def _holds(holds: Callable[[Pod], bool], pod: Pod) -> bool:
    try:
        return holds(pod)
    except (KeyError, StopIteration):
        return False
