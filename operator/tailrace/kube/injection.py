"""Puts the drain gate, the finalizer and the drain's figures into a pod template, and says what weakens them.

Plain dicts in, plain dicts out: the same template and parameters always give the same result, so that a server-side
apply changes nothing when nothing has changed.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

import yaml

from tailrace.api import names

Manifest = dict[str, Any]

GATE_PORT: Final = 9397
GATE_PORT_NAME: Final = "tailrace-gate"
TOKEN_VOLUME: Final = "tailrace-gate-token"  # noqa: S105 - the name of a volume
TOKEN_FOLDER: Final = "/var/run/secrets/tailrace"  # noqa: S105 - a path
TOKEN_AUDIENCE: Final = "tailrace"  # noqa: S105 - an audience
ANNOTATION_PORT: Final = f"{names.PREFIX}/port"
MESH_ANNOTATIONS: Final = ("traffic.sidecar.istio.io/excludeInboundPorts", "config.linkerd.io/skip-inbound-ports")
MESH_PROXIES: Final = ("istio-proxy", "linkerd-proxy")
MARGIN_SECONDS: Final = 5
PROBE_GRACE_SECONDS: Final = 30
_UNITS: Final = {"": Decimal(1), "m": Decimal("0.001")}
_UNITS.update({unit: Decimal(1000) ** power for power, unit in enumerate("kMGTPE", 1)})
_UNITS.update({f"{unit}i": Decimal(1024) ** power for power, unit in enumerate("KMGTPE", 1)})
_QUANTITY: Final = re.compile(rf"([0-9]*\.?[0-9]+)({'|'.join(_UNITS)})")
START_CPU: Final = "1"
"""CPU limit of a gate that need not match its request: importing is most of what it ever does."""
DEFAULT_GRACE_SECONDS: Final = 30
"""What Kubernetes gives a pod that says nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GateParams:
    """What injection needs to know of an InferenceServer and of the installation. Times in whole seconds."""

    image: str
    routers: str
    server: str
    port: int = 8000
    engine: str = "vllm"
    drain_timeout: int = 600
    drain_settle: int = 2
    drain_shutdown: int = 10
    total_timeout: int = 600
    gate: bool = True
    image_pull_policy: str = "IfNotPresent"

    @property
    def grace(self) -> int:
        """The shortest grace period in which a whole drain fits."""
        return self.drain_settle + self.drain_timeout + self.drain_shutdown + MARGIN_SECONDS


@dataclass(frozen=True, slots=True)
class Weakness:
    """Why requests may be lost when this pod goes away: a CamelCase reason and a sentence that says what to do."""

    reason: str
    message: str


def inject(template: Manifest, params: GateParams) -> Manifest:
    """Return a copy of a PodTemplateSpec with the drain in it; `template` is the user's own, or one injected before.

    A grace period, a probe's grace period and a preStop hook that are set stay as they are. ValueError names the
    field that has not the shape a pod template gives it.
    """
    pod = deepcopy(template)
    _mark(_part(pod, "metadata"), params)
    spec = _part(pod, "spec")
    if spec.get("terminationGracePeriodSeconds") is None:
        spec["terminationGracePeriodSeconds"] = params.grace
    for container in (*_list(spec, "containers"), *_list(spec, "initContainers")):
        _shorten_probe_grace(container)
    if params.gate:
        _add_gate(pod, params)
    return pod


def _part(parent: Manifest, key: str) -> Manifest:
    """Return the mapping under `key`, made if it is absent or null."""
    if parent.get(key) is None:
        parent[key] = {}
    part = parent[key]
    if not isinstance(part, dict):
        raise ValueError(f"template: {key} must be an object, not {part!r}")  # noqa: TRY004 - bad input, not a bug
    return part


def _list(parent: Manifest, key: str) -> list[Manifest]:
    entries = parent.get(key) or []
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ValueError(f"template: {key} must be a list of objects, not {entries!r}")
    return entries


def _mapping(value: object) -> Manifest:
    """Return what is meant to be read only, empty if it is no mapping: the API server refuses it by its name."""
    return value if isinstance(value, dict) else {}


def _mark(metadata: Manifest, params: GateParams) -> None:
    _part(metadata, "labels")[names.LABEL_SERVER] = params.server
    _part(metadata, "annotations").update(
        {
            names.ANNOTATION_DRAIN_TIMEOUT: str(params.drain_timeout),
            names.ANNOTATION_DRAIN_SETTLE: str(params.drain_settle),
            names.ANNOTATION_DRAIN_SHUTDOWN: str(params.drain_shutdown),
            ANNOTATION_PORT: str(params.port),
        }
    )
    finalizers = metadata.get("finalizers") or []
    if not isinstance(finalizers, list):
        raise ValueError(f"template: finalizers must be a list, not {finalizers!r}")  # noqa: TRY004 - see _part
    metadata["finalizers"] = finalizers + [names.FINALIZER] * (names.FINALIZER not in finalizers)


def _shorten_probe_grace(container: Manifest) -> None:
    """Give probes that kill a grace of their own: a hung engine must not keep its GPU for the whole drain timeout."""
    for probe in (_mapping(container.get("livenessProbe")), _mapping(container.get("startupProbe"))):
        if probe and probe.get("terminationGracePeriodSeconds") is None:
            probe["terminationGracePeriodSeconds"] = PROBE_GRACE_SECONDS


def _add_gate(pod: Manifest, params: GateParams) -> None:
    spec = pod["spec"]
    # First, so that the routers hear from the pod while a long model download still runs.
    gate = gate_container(params, _grace(spec), guaranteed=_is_guaranteed(spec))
    spec["initContainers"] = _with(_list(spec, "initContainers"), gate, at_start=True)
    spec["volumes"] = _with(_list(spec, "volumes"), token_volume(), at_start=False)
    for container in _list(spec, "containers"):
        lifecycle = _part(container, "lifecycle")
        if not lifecycle.get("preStop"):
            lifecycle["preStop"] = hook()
    for annotation in MESH_ANNOTATIONS:
        _exclude_port(_part(pod["metadata"], "annotations"), annotation)


def _is_guaranteed(spec: Manifest) -> bool:
    """Whether every container but the gate has limits of CPU and memory and requests what they are."""
    containers = (*_list(spec, "containers"), *_list(spec, "initContainers"))
    resources = [_mapping(one.get("resources")) for one in containers if one.get("name") != names.GATE_CONTAINER]
    return all(_requests_its_limits(_mapping(one.get("limits")), _mapping(one.get("requests"))) for one in resources)


def _requests_its_limits(limits: Manifest, requests: Manifest) -> bool:
    """As the API server sees it, which takes what is not requested from the limits."""
    return {"cpu", "memory"} <= limits.keys() and all(
        _amount(requests.get(name, limits[name])) == _amount(limits[name]) for name in ("cpu", "memory")
    )


def _amount(written: object) -> object:
    """Return the number that is meant, whichever way it is written; what is none is left to the API server."""
    found = _QUANTITY.fullmatch(str(written))
    return Decimal(found[1]) * _UNITS[found[2]] if found else written


def _with(entries: Iterable[Manifest], ours: Manifest, *, at_start: bool) -> list[Manifest]:
    others = [entry for entry in entries if entry.get("name") != ours["name"]]
    return [ours, *others] if at_start else [*others, ours]


def _exclude_port(annotations: Manifest, key: str) -> None:
    ports = [port.strip() for port in str(annotations.get(key) or "").split(",") if port.strip()]
    annotations[key] = ",".join(ports if str(GATE_PORT) in ports else [*ports, str(GATE_PORT)])


def _grace(spec: Manifest) -> int:
    grace = spec.get("terminationGracePeriodSeconds")
    return grace if isinstance(grace, int) else DEFAULT_GRACE_SECONDS


def hook() -> Manifest:
    """Return the preStop hook that waits for the gate; without a host it goes to the pod's own address."""
    return {"httpGet": {"path": "/wait", "port": GATE_PORT}}


def token_volume() -> Manifest:
    """Return the volume with the token by which the routers know the pod."""
    token = {"audience": TOKEN_AUDIENCE, "expirationSeconds": 3600, "path": "token"}
    return {"name": TOKEN_VOLUME, "projected": {"sources": [{"serviceAccountToken": token}]}}


def gate_container(params: GateParams, grace: int, *, guaranteed: bool = False) -> Manifest:
    """Return the native sidecar. Its timeout leaves a grace period that is too short room for the engine's shutdown.

    ``guaranteed`` says that the pod is of the Guaranteed class without it, as GPU pods often are, and has to stay one:
    limits equal requests, and the gate takes some 5 s to start. In other pods it may start as fast as it can.
    """
    timeout = max(0, min(params.drain_timeout, grace - params.drain_shutdown - MARGIN_SECONDS))
    requests = {"cpu": "100m", "memory": "128Mi"}
    limits = requests if guaranteed else requests | {"cpu": START_CPU}
    return {
        "name": names.GATE_CONTAINER,
        "image": params.image,
        "imagePullPolicy": params.image_pull_policy,
        "restartPolicy": "Always",
        "command": ["tailrace", "drain-gate"],
        "args": [
            f"--routers={params.routers}",
            f"--port={GATE_PORT}",
            f"--engine={params.engine}",
            f"--engine-port={params.port}",
            f"--timeout-seconds={timeout}",
            f"--token-file={TOKEN_FOLDER}/token",
        ],
        "env": [_from_field("POD_IP", "status.podIP"), _from_field("POD_UID", "metadata.uid")],
        "ports": [{"name": GATE_PORT_NAME, "containerPort": GATE_PORT, "protocol": "TCP"}],
        "startupProbe": {
            "httpGet": {"path": "/healthz", "port": GATE_PORT},
            "periodSeconds": 1,
            "failureThreshold": 120,
        },
        "resources": {"requests": requests, "limits": dict(limits)},
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 65532,
            "readOnlyRootFilesystem": True,
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumeMounts": [{"name": TOKEN_VOLUME, "mountPath": TOKEN_FOLDER, "readOnly": True}],
    }


def _from_field(name: str, path: str) -> Manifest:
    return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}


def protection(pod: Manifest, params: GateParams) -> list[Weakness]:
    """Return what weakens the drain of a Pod or of an injected PodTemplateSpec, for condition DrainProtected=False.

    Empty means protected, as far as a manifest can tell.
    """
    spec = _mapping(pod.get("spec"))
    checks = _ALWAYS + (_WITH_GATE if params.gate else (_gate_disabled,))
    return [weakness for check in checks for weakness in check(spec, params)]


def _grace_too_short(spec: Manifest, params: GateParams) -> Iterator[Weakness]:
    grace = _grace(spec)
    if grace < params.grace:
        yield Weakness(
            "GraceTooShort",
            f"terminationGracePeriodSeconds is {grace}, a whole drain needs {params.grace} "
            f"(settle {params.drain_settle} + timeout {params.drain_timeout} + shutdown {params.drain_shutdown} "
            f"+ {MARGIN_SECONDS}): raise it, leave it out of the template, or lower drain.timeoutSeconds.",
        )


def _requests_outlive_drain(_: Manifest, params: GateParams) -> Iterator[Weakness]:
    if params.total_timeout > params.drain_timeout:
        yield Weakness(
            "RequestsOutliveDrain",
            f"timeouts.totalSeconds {params.total_timeout} is above drain.timeoutSeconds {params.drain_timeout}: "
            "a request may still run at the drain deadline and is cut then; raise drain.timeoutSeconds.",
        )


def _gate_disabled(_: Manifest, __: GateParams) -> Iterator[Weakness]:
    yield Weakness(
        "GateDisabled",
        "drain.gate is None: containers get SIGTERM as soon as the pod is deleted, requests in flight may be cut; "
        "set drain.gate to Sidecar.",
    )


def _gate_missing(spec: Manifest, params: GateParams) -> Iterator[Weakness]:
    if not _has_gate(spec):
        yield Weakness(
            "GateMissing",
            f"The pod has no native sidecar {names.GATE_CONTAINER}: its containers get SIGTERM as soon as it is "
            f"deleted. Add these lines to its template:\n{gate_lines(spec, params)}",
        )


def _has_gate(spec: Manifest) -> bool:
    return any(
        container.get("name") == names.GATE_CONTAINER and container.get("restartPolicy") == "Always"
        for container in _list(spec, "initContainers")
    )


def gate_lines(spec: Manifest, params: GateParams) -> str:
    """Return, as YAML, the lines that give a pod which somebody else runs a gate."""
    held = [
        {"name": container.get("name"), "lifecycle": {"preStop": hook()}}
        for container in _list(spec, "containers")
        if container.get("name") not in MESH_PROXIES
    ]
    lines = {
        "terminationGracePeriodSeconds": params.grace,
        "initContainers": [gate_container(params, params.grace, guaranteed=_is_guaranteed(spec))],
        "containers": held,
        "volumes": [token_volume()],
    }
    return yaml.safe_dump({"spec": lines}, sort_keys=False)


def _not_held(spec: Manifest, _: GateParams) -> Iterator[Weakness]:
    """Look for regular containers whose SIGTERM the gate does not hold back, in a pod that has a gate."""
    for container in _list(spec, "containers"):
        name, own = container.get("name"), _mapping(container.get("lifecycle")).get("preStop")
        if own and not _is_our_hook(own):
            yield Weakness(
                "OwnPreStop",
                f"Container {name} has a preStop hook of its own, so the gate does not hold back its SIGTERM: remove "
                f"the hook, or have it wait for http://$(POD_IP):{GATE_PORT}/wait.",
            )
        elif not own and _has_gate(spec) and name not in MESH_PROXIES:
            yield Weakness(
                "HookMissing",
                f"Container {name} has no preStop hook, so the gate does not hold back its SIGTERM: give it "
                f"lifecycle.preStop.httpGet with path /wait and port {GATE_PORT}.",
            )


def _is_our_hook(own: object) -> bool:
    get = _mapping(_mapping(own).get("httpGet"))
    return (get.get("path"), get.get("port")) == ("/wait", GATE_PORT)


def _host_network(spec: Manifest, _: GateParams) -> Iterator[Weakness]:
    if spec.get("hostNetwork"):
        yield Weakness(
            "HostNetwork",
            f"hostNetwork is true: the gate's port {GATE_PORT} is the node's, so a second pod on the node cannot have "
            "a gate, and the pod cannot be told by its address; leave hostNetwork out.",
        )


def _mesh_proxy(spec: Manifest, _: GateParams) -> Iterator[Weakness]:
    for container in _list(spec, "containers"):
        if container.get("name") in MESH_PROXIES:
            yield Weakness(
                "MeshProxy",
                f"Container {container['name']} is a mesh proxy but no native sidecar: it may exit at SIGTERM while "
                "requests still run through it; turn on native sidecars in the mesh.",
            )


_Check = Callable[[Manifest, GateParams], Iterator[Weakness]]
_ALWAYS: tuple[_Check, ...] = (_grace_too_short, _requests_outlive_drain)
_WITH_GATE: tuple[_Check, ...] = (_gate_missing, _not_held, _host_network, _mesh_proxy)
