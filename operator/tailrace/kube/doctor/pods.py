"""What is wrong with pods: marks that are missing, finalizers that nobody takes off, GPUs that nobody knows. Pure."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable
from typing import Final

from tailrace.api import names
from tailrace.api.gpu import gpus_asked
from tailrace.api.inferenceserver import ConditionType
from tailrace.core.model import DrainReason, DrainSpec
from tailrace.kube import finalizers, objects, podstate
from tailrace.kube.client import Document
from tailrace.kube.doctor.findings import Finding, Findings, Severity
from tailrace.kube.doctor.installation import set_routers
from tailrace.kube.doctor.seen import Seen
from tailrace.kube.gpumemory import Measurer

LATE_SECONDS: Final = 30.0
"""Past its deadline a pod is gone within a few seconds, unless nobody releases it; this allows for clocks, too."""
UNSET: Final = "an address that is not told"
_MISLED: Final = (
    "Set TAILRACE_GATE_ROUTERS to the admin Service, then roll the pods out: gates keep the address that they were "
    "made with. If another address is meant, let pods reach the admin port 9090 there."
)
_BLOCKED: Final = "Let pods reach the admin port 9090: look at the Service's endpoints, NetworkPolicies and the mesh."
ANNOTATION_ROUTERS: Final = f"{names.PREFIX}/gate-routers"
"""Put into spec.template, so that the Deployment gets a new template and with it the gates' new address."""


def unmarked(seen: Seen) -> Findings:
    """Yield the InferenceServers with pods that lack the finalizer, or the gate that their template should give."""
    for server in seen.servers:
        living = [pod for pod in seen.pods_of(objects.key(server)) if _lives(pod)]
        bare = [pod for pod in living if names.FINALIZER not in objects.finalizers(pod)]
        if bare:
            yield _bare(server, bare, "the finalizer tailrace.dev/drain: deleted, they vanish before they are booked")
        ungated = [pod for pod in living if _should_have_gate(server) and _gate(pod) is None]
        if ungated:
            yield _bare(server, ungated, "the drain gate: deleted, they get SIGTERM at once and cut their requests")


def _lives(pod: Document) -> bool:
    return not objects.deleting(pod) and (pod.get("status") or {}).get("phase") not in objects.TERMINAL_PHASES


def _should_have_gate(server: Document) -> bool:
    spec = server.get("spec") or {}
    return "template" in spec and (spec.get("drain") or {}).get("gate", "Sidecar") == "Sidecar"


def _gate(pod: Document) -> Document | None:
    sidecars = (pod.get("spec") or {}).get("initContainers") or ()
    return next((each for each in sidecars if each.get("name") == names.GATE_CONTAINER), None)


def _bare(server: Document, pods: list[Document], lack: str) -> Finding:
    namespace, name = objects.namespace(server), objects.name(server)
    restart = f"kubectl -n {namespace} rollout restart deployment/{name}"
    look = f"kubectl -n {namespace} get pods -l {names.LABEL_SERVER}={name} -o yaml"
    return Finding(
        severity=Severity.WARNING,
        check="pods",
        about=objects.key(server),
        message=f"{len(pods)} pods of InferenceServer {objects.key(server)} ({_listed(pods)}) lack {lack}.",
        advice="Replace them; pods of a selector get the finalizer from the replica that leads.",
        commands=(restart if "template" in (server.get("spec") or {}) else look,),
        anchor="pods-without-marks",
    )


def _listed(pods: Iterable[Document]) -> str:
    found = [objects.name(pod) for pod in pods]
    return ", ".join(found[:5]) + (", ..." if len(found) > 5 else "")


# Gates


def silent_gates(seen: Seen) -> Findings:
    """Yield the InferenceServers whose gates reach no router, with the address they call and the one they should."""
    for server in seen.servers:
        condition = objects.condition(server, ConditionType.DRAIN_PROTECTED) or {}
        if condition.get("status") == "False" and condition.get("reason") == "GateUnreachable":
            yield _silent(seen, server)


def _silent(seen: Seen, server: Document) -> Finding:
    key = objects.key(server)
    called = sorted({routers_of(pod) for pod in seen.pods_of(key) if _lives(pod) and _gate(pod)}) or [UNSET]
    wanted = seen.admin_address()
    if called == [wanted]:
        why, advice, commands = ": something between refuses them", _BLOCKED, _way(seen, server)
    else:
        why, advice = f"; the admin Service of this installation is {wanted}", _MISLED
        commands = (*_corrected(seen, wanted), renew(server, wanted))
    return Finding(
        severity=Severity.ERROR,
        check="gates",
        about=key,
        message=f"The drain gates of InferenceServer {key} call {', '.join(called)} and no router has heard them{why}.",
        advice=advice,
        commands=commands,
        anchor="gateunreachable",
    )


def _corrected(seen: Seen, wanted: str) -> tuple[str, ...]:
    return () if seen.setting("GATE_ROUTERS") == wanted else set_routers(seen)


def routers_of(pod: Document) -> str:
    """Return which routers the gate of a pod calls."""
    arguments = [str(argument) for argument in (_gate(pod) or {}).get("args") or ()]
    return next((each.partition("=")[2] for each in arguments if each.startswith("--routers=")), UNSET)


def renew(server: Document, routers: str) -> str:
    """Return the command that gives the pods a gate with the present address: a change of the template does."""
    change = {"spec": {"template": {"metadata": {"annotations": {ANNOTATION_ROUTERS: routers}}}}}
    where = f"-n {objects.namespace(server)} patch isvr/{objects.name(server)}"
    return f"kubectl {where} --type=merge -p {shlex.quote(json.dumps(change))}"


def _way(seen: Seen, server: Document) -> tuple[str, ...]:
    admin = f"kubernetes.io/service-name={seen.look.name}-admin"
    logs = f"kubectl -n {objects.namespace(server)} logs -l {names.LABEL_SERVER}={objects.name(server)}"
    return (
        f"kubectl -n {seen.look.namespace} get endpointslices -l {admin}",
        f"kubectl get networkpolicies -n {objects.namespace(server)}",
        f"{logs} -c {names.GATE_CONTAINER} --tail=20",
    )


# Finalizers


def overdue(seen: Seen) -> Findings:
    """Yield the pods whose drain deadline has passed and that still hold our finalizer."""
    late = [(pod, seconds) for pod in seen.pods if (seconds := _seconds_late(pod, seen.now)) > LATE_SECONDS]
    for pod, seconds in late:
        namespace = objects.namespace(pod)
        release = f"tailrace release-finalizers --terminating -n {namespace}"
        yield Finding(
            severity=Severity.ERROR,
            check="terminating",
            about=objects.key(pod),
            message=f"Pod {objects.key(pod)} is {seconds:.0f} s past its drain deadline and still holds the finalizer "
            f"{names.FINALIZER}: no operator releases it.",
            advice="See why (Lease, rights). If no operator is to run any more, release what is being deleted here.",
            commands=(f"{release} --dry-run", release),
            anchor="pod-past-its-deadline",
        )


def _seconds_late(pod: Document, now: float) -> float:
    if names.FINALIZER not in objects.finalizers(pod):
        return 0.0
    deletion = podstate.deletion(pod, podstate.drain_spec(pod, DrainSpec()), DrainReason.DELETE)
    return now - deletion.deadline if deletion else 0.0


def ownerless(seen: Seen) -> Findings:
    """Yield the pods that hold our finalizer and belong to no InferenceServer."""
    known = {objects.key(server) for server in seen.servers}
    for pod in seen.pods:
        change = finalizers.removal(pod)
        if change is None or objects.deleting(pod) or objects.server_key(pod) in known:
            continue
        where = f"-n {objects.namespace(pod)} patch pod/{objects.name(pod)}"
        yield Finding(
            severity=Severity.WARNING,
            check="finalizers",
            about=objects.key(pod),
            message=f"Pod {objects.key(pod)} holds the finalizer {names.FINALIZER}, but {_whose(pod)}: deleted while "
            "no operator runs, it stays Terminating.",
            advice="A replica that leads takes it off within three resyncs (90 s); otherwise take it off yourself.",
            commands=(f"kubectl {where} --type=json -p {shlex.quote(json.dumps(change))}",),
            anchor="finalizer-without-an-owner",
        )


def _whose(pod: Document) -> str:
    key = objects.server_key(pod)
    return f"InferenceServer {key} does not exist" if key else f"it has no label {names.LABEL_SERVER}"


# GPUs


def unknown_memory(seen: Seen) -> Findings:
    """Yield the nodes whose labels do not tell the memory of GPUs that pods there ask for."""
    more = (seen.setting("GPU_MEMORY_LABELS") or "").split(",")
    measure = Measurer([label.strip() for label in more if label.strip()])
    told: set[str] = set()
    for pod in seen.pods:
        name = str((pod.get("spec") or {}).get("nodeName") or "")
        if name in told or name not in seen.nodes or not _needs_labels(seen, pod):
            continue
        why = measure.explain(pod, objects.labels(seen.nodes[name]))
        if why:
            told.add(name)
            yield _unknown(name, pod, why)


def _needs_labels(seen: Seen, pod: Document) -> bool:
    server = seen.server(objects.server_key(pod) or "")
    if server is None or "gpuMemoryGB" in (server.get("spec") or {}) or not _lives(pod):
        return False
    asked = gpus_asked(pod.get("spec") or {})
    return bool(asked.resources or asked.claims)


def _unknown(node: str, pod: Document, why: str) -> Finding:
    change = json.dumps({"spec": {"gpuMemoryGB": 80}})
    server = objects.labels(pod)[names.LABEL_SERVER]
    return Finding(
        severity=Severity.WARNING,
        check="gpu-labels",
        about=node,
        message=f"The GPU memory of pod {objects.key(pod)} on node {node} is not known, so it gets no long prompts: "
        f"{why}.",
        advice="Install GPU feature discovery, or give the memory yourself: of one GPU in MiB on the node, or of a "
        "whole pod in GB in the InferenceServer (81559 and 80 are an H100's; put in yours).",
        commands=(
            f"kubectl label node {node} nvidia.com/gpu.memory=81559",
            f"kubectl -n {objects.namespace(pod)} patch isvr/{server} --type=merge -p {shlex.quote(change)}",
        ),
        anchor="gpu-memory-unknown",
    )
