"""The Deployment of an InferenceServer: what it should be, and what has to change. Pure.

The template is replaced as a whole, and only when what the InferenceServer says about it has changed since it was
last applied (``tailrace.dev/template-hash``). So ``kubectl rollout undo`` and ``restart`` stand, an operator upgrade
restarts nothing (the gate's image in use is kept), and a change by hand is told, not fought. The replica count and
the rollout settings are kept as the InferenceServer says at all times.

What was applied is noted in **labels** of the Deployment: ``kubectl rollout undo`` brings its annotations back as they
were at that revision, as if the older template were the one last asked for. For the gate's image that is just right.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Any, Final

import orjson

from tailrace.api import names
from tailrace.api.inferenceserver import Gate, InferenceServer
from tailrace.kube import objects
from tailrace.kube.client import MANAGER, Document
from tailrace.kube.injection import GateParams, inject

ANNOTATION_GENERATION: Final = f"{names.PREFIX}/applied-generation"
LABEL_HASH: Final = f"{names.PREFIX}/template-hash"
LABEL_LIVE_HASH: Final = f"{names.PREFIX}/applied-template"
ANNOTATION_GATE_IMAGE: Final = f"{names.PREFIX}/gate-image"
ANNOTATION_RESTARTED: Final = "kubectl.kubernetes.io/restartedAt"


@dataclass(frozen=True, slots=True)
class Installation:
    """What the installation gives to every gate."""

    gate_image: str
    gate_routers: str
    gate_image_pull_policy: str = "IfNotPresent"


def gate_params(server: InferenceServer, installation: Installation) -> GateParams:
    """Return what injection needs for the pods of this server."""
    spec, drain = server.spec, server.spec.drain
    return GateParams(
        image=installation.gate_image,
        routers=installation.gate_routers,
        server=server.metadata.name,
        port=spec.port,
        engine=spec.engine.value,
        drain_timeout=drain.timeout_seconds,
        drain_settle=drain.settle_seconds,
        drain_shutdown=drain.shutdown_seconds,
        total_timeout=spec.timeouts.total_seconds,
        gate=drain.gate is Gate.SIDECAR,
        image_pull_policy=installation.gate_image_pull_policy,
    )


def template_hash(template: Document, params: GateParams) -> str:
    """Return what changes when the InferenceServer says something else about its pods; the installation has no part."""
    neutral = replace(params, image="", routers="", image_pull_policy="", total_timeout=0)
    said = {"template": template, "gate": {field: getattr(neutral, field) for field in GateParams.__dataclass_fields__}}
    return _digest(said)


def live_hash(template: Document) -> str:
    """Return what changes when somebody changes a stored template; a ``rollout restart`` is no such change."""
    meta = template.get("metadata") or {}
    annotations = {key: text for key, text in (meta.get("annotations") or {}).items() if key != ANNOTATION_RESTARTED}
    return _digest({"metadata": meta | {"annotations": annotations}, "spec": template.get("spec")})


def deployment(server: InferenceServer, template: Document, params: GateParams) -> Document:
    """Return the whole Deployment, as it is created. ValueError names what is wrong with the template's shape."""
    meta = server.metadata
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": meta.name,
            "namespace": meta.namespace,
            "labels": own_labels(server) | {LABEL_HASH: template_hash(template, params)},
            "annotations": _annotations(server, params),
            "ownerReferences": [owner(server)],
        },
        "spec": {
            "replicas": server.spec.replicas,
            "selector": {"matchLabels": {names.LABEL_SERVER: meta.name}},
            "template": inject(template, params),
            **_rollout(server),
        },
    }


def controlled(live: Document, server: InferenceServer) -> bool:
    """Whether the Deployment is this very InferenceServer's."""
    found = objects.controller(live)
    return found is not None and found.get("uid") == server.metadata.uid


def template_is_due(live: Document, template: Document, params: GateParams) -> bool:
    """Whether the InferenceServer says something else about its pods than when the template was last applied."""
    return objects.labels(live).get(LABEL_HASH) != template_hash(template, params)


def changes(live: Document, server: InferenceServer, template: Document, params: GateParams) -> list[Document]:
    """Return the JSON patch, without its guard, that makes the Deployment what it should be; empty when it is."""
    due = template_is_due(live, template, params)
    patch = _template_change(live, template, params) if due else []
    wanted = {"replicas": server.spec.replicas, **_rollout(server)}
    patch += [_set(f"/spec/{field}", value) for field, value in wanted.items() if live["spec"].get(field, 0) != value]
    noted = {LABEL_HASH: template_hash(template, params)} if due else {}
    patch += _map_changes(live, "labels", own_labels(server) | noted)
    if patch or objects.annotations(live).get(ANNOTATION_GENERATION) != str(server.metadata.generation):
        said = _annotations(server, params) if due else _generation(server)
        patch += _map_changes(live, "annotations", said)
    return patch


def guarded(live: Document, patch: list[Document]) -> list[Document]:
    """Return the patch so that it fails when somebody has changed the Deployment since it was seen.

    The generation, not the resourceVersion: a rollout writes the status many times a second.
    """
    meta = objects.meta(live)
    tests = [{"op": "test", "path": f"/metadata/{field}", "value": meta[field]} for field in ("uid", "generation")]
    return tests + patch


def with_live_hash(patch: list[Document], tried: Document) -> list[Document]:
    """Return the patch with a note of the template as the API server stores it, so that drift is seen later."""
    noted = live_hash(tried["spec"]["template"])
    return [*patch, _set(f"/metadata/labels/{_escaped(LABEL_LIVE_HASH)}", noted)]


def drifted(live: Document) -> bool:
    """Whether the template is not as it was last applied, because somebody changed or undid it by hand."""
    noted = objects.labels(live).get(LABEL_LIVE_HASH)
    return noted is not None and noted != live_hash(live["spec"]["template"])


def gate_image(live: Document) -> str | None:
    """Return the gate's image that the Deployment was applied with."""
    return objects.annotations(live).get(ANNOTATION_GATE_IMAGE)


def gate_routers(live: Document) -> str | None:
    """Return the routers that the gate of the Deployment's pods calls, None without a gate."""
    containers = (live["spec"]["template"].get("spec") or {}).get("initContainers") or ()
    gates = (container for container in containers if container.get("name") == names.GATE_CONTAINER)
    said = (str(argument).partition("=") for gate in gates for argument in gate.get("args") or ())
    return next((value for option, _, value in said if option == "--routers"), None)


def _template_change(live: Document, template: Document, params: GateParams) -> list[Document]:
    pod = inject(template, params)
    restarted = objects.annotations(live["spec"]["template"]).get(ANNOTATION_RESTARTED)
    if restarted is not None:
        # Kept, or a template that means the same as before would be rolled out because of the missing note.
        pod["metadata"].setdefault("annotations", {}).setdefault(ANNOTATION_RESTARTED, restarted)
    return [_set("/spec/template", pod)]


def _rollout(server: InferenceServer) -> dict[str, Any]:
    rollout = server.spec.rollout
    return {
        "strategy": {
            "type": "RollingUpdate",
            "rollingUpdate": {"maxSurge": rollout.max_surge, "maxUnavailable": rollout.max_unavailable},
        },
        "progressDeadlineSeconds": rollout.progress_deadline_seconds,
        "minReadySeconds": rollout.min_ready_seconds,
    }


def own_labels(server: InferenceServer) -> dict[str, str]:
    """Return the labels of every object that is made for this InferenceServer."""
    return {names.LABEL_SERVER: server.metadata.name, "app.kubernetes.io/managed-by": MANAGER}


def _annotations(server: InferenceServer, params: GateParams) -> dict[str, str]:
    return _generation(server) | {ANNOTATION_GATE_IMAGE: params.image}


def _generation(server: InferenceServer) -> dict[str, str]:
    return {ANNOTATION_GENERATION: str(server.metadata.generation)}


def owner(server: InferenceServer) -> Document:
    """Return the reference by which an object is this InferenceServer's own, and goes with it."""
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND,
        "name": server.metadata.name,
        "uid": server.metadata.uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }


def _map_changes(live: Document, part: str, wanted: dict[str, str]) -> list[Document]:
    present = objects.meta(live).get(part)
    if present is None:
        return [_set(f"/metadata/{part}", wanted)]
    missing = {key: text for key, text in wanted.items() if present.get(key) != text}
    return [_set(f"/metadata/{part}/{_escaped(key)}", text) for key, text in missing.items()]


def _set(path: str, value: object) -> Document:
    return {"op": "add", "path": path, "value": value}


def _escaped(key: str) -> str:
    return key.replace("~", "~0").replace("/", "~1")


def _digest(value: object) -> str:
    return hashlib.sha256(orjson.dumps(value, option=orjson.OPT_SORT_KEYS)).hexdigest()[:16]
