"""A whole installation as the doctor sees it, in which every part is as it should be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from tests.kube.documents import pod, server

from tailrace.api.crd import custom_resource_definition
from tailrace.kube import objects
from tailrace.kube.doctor.examination import examine
from tailrace.kube.doctor.findings import Finding, Severity
from tailrace.kube.doctor.rights import questions
from tailrace.kube.doctor.routers import Router
from tailrace.kube.doctor.seen import Look, Seen

Document = dict[str, Any]
ROOT = Path(__file__).resolve().parents[2]
HOME = "tailrace-system"
NOW = objects.seconds("2026-01-02T00:00:00Z")
HELM = {
    "labels": {"app.kubernetes.io/managed-by": "Helm"},
    "annotations": {"meta.helm.sh/release-name": "rel", "meta.helm.sh/release-namespace": "there"},
}


def shipped(file: str) -> list[Document]:
    """Return the documents of a file of the plain install."""
    return [each for each in yaml.safe_load_all((ROOT / "manifests" / "base" / file).read_text()) if each]


def deployment(*, replicas: int = 1, available: int = 1, env: Mapping[str, str] | None = None) -> Document:
    """Return the shipped Deployment with a status; `env` are settings without their prefix, put first."""
    found = next(each for each in shipped("deployment.yaml") if each["kind"] == "Deployment")
    found["spec"]["replicas"] = replicas
    found["status"] = {"availableReplicas": available}
    more = [{"name": f"TAILRACE_{name}", "value": value} for name, value in (env or {}).items()]
    (container,) = found["spec"]["template"]["spec"]["containers"]
    container["env"] = more + container["env"]
    return found


def lease(*, age: float = 3.0, holder: str = "a_1") -> Document:
    """Return the Lease as it was renewed so many seconds ago."""
    return {"spec": {"holderIdentity": holder, "leaseDurationSeconds": 15, "renewTime": objects.timestamp(NOW - age)}}


def conditions(**changed: tuple[str, str]) -> list[Document]:
    """Return the conditions of a server that is well; `changed` are (status, reason) by type."""
    told = {
        "Ready": ("True", "EndpointsReady"),
        "Progressing": ("False", "Complete"),
        "Degraded": ("False", "AsExpected"),
        "DrainProtected": ("True", "Protected"),
    } | changed
    return [
        {"type": kind, "status": status, "reason": reason, "message": f"{reason} it is.", "observedGeneration": 1}
        for kind, (status, reason) in told.items()
    ]


def told_server(
    name: str = "one", namespace: str = "ns", *, status: Document | None = None, spec: Document | None = None
) -> Document:
    """Return an InferenceServer with a status."""
    figures = {"ready": "1/1", "inFlight": 0, "capacity": 32, "conditions": conditions()} | (status or {})
    return server(name, namespace, **(spec or {})) | {"status": figures}


def gated_pod(name: str = "a", *, routers: str = f"tailrace-admin.{HOME}.svc:9090", **changed: Any) -> Document:  # noqa: ANN401
    """Return a ready pod with a drain gate."""
    made = pod(name, **changed)
    made["spec"]["initContainers"] = [
        {"name": "drain-gate", "restartPolicy": "Always", "args": [f"--routers={routers}", "--port=9397"]}
    ]
    return made


def sound(**changed: Any) -> Seen:  # noqa: ANN401 - whatever Seen holds
    """Return an installation without a fault, with these parts in place of the sound ones."""
    established = {"status": {"conditions": [{"type": "Established", "status": "True"}]}}
    seen = Seen(
        look=Look(),
        now=NOW,
        version={"major": "1", "minor": "36", "gitVersion": "v1.36.3"},
        crd=custom_resource_definition() | established,
        account={"metadata": {"name": "tailrace", "namespace": HOME}},
        deployment=deployment(),
        services={each["metadata"]["name"]: each for each in shipped("services.yaml")},
        slices=[
            {
                "metadata": {"labels": {"kubernetes.io/service-name": "tailrace-admin"}},
                "endpoints": [{"addresses": ["10.0.0.9"]}],
            }
        ],
        lease=lease(),
        servers=[told_server()],
        pods=[gated_pod()],
        nodes={"n1": {"metadata": {"name": "n1"}}},
        may=dict.fromkeys(questions(HOME, ()), True),
    )
    return replace(seen, **changed)


def wrong(seen: Seen, *routers: Router) -> list[Finding]:
    """Return the findings that need mending."""
    return [finding for finding in examine(seen, routers) if finding.severity is not Severity.OK]


def only(seen: Seen, *routers: Router) -> Finding:
    """Return the one finding that needs mending."""
    (finding,) = wrong(seen, *routers)
    return finding
