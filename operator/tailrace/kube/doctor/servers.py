"""What the InferenceServers say of themselves, and what only a look at all of them tells. Pure."""

from __future__ import annotations

import difflib
import json
import shlex
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Final

from tailrace.api.inferenceserver import ConditionType
from tailrace.kube import objects
from tailrace.kube.client import Document
from tailrace.kube.doctor.findings import Finding, Findings, Severity, well
from tailrace.kube.doctor.seen import Seen

EXPECTED: Final[Mapping[str, str]] = {
    ConditionType.READY: "True",
    ConditionType.DEGRADED: "False",
    ConditionType.DRAIN_PROTECTED: "True",
    ConditionType.PROGRESSING: "True",
}
"""How the conditions that are always there should be; all others are there while something is wrong."""
PATIENT: Final = frozenset({"Complete", "NotManaged"})
"""Reasons of Progressing=False that are as they should be."""
BY_CHOICE: Final = frozenset({"ScaledToZero", "FixedEndpoints"})
"""Reasons that somebody asked for by the spec: told, and nothing to mend."""
TOLD_ELSEWHERE: Final = frozenset({"GateUnreachable", "AmbiguousModel"})
"""Reasons and types that checks of their own look into."""
GRAVE: Final = frozenset({ConditionType.READY, ConditionType.DEGRADED, ConditionType.PROGRESSING})

_DESCRIBE: Final = "kubectl -n {namespace} describe isvr/{name}"
_PODS: Final = "kubectl -n {namespace} describe pods -l tailrace.dev/server={name}"
_EDIT: Final = "kubectl -n {namespace} edit isvr/{name}"
_MESSAGE: Final = (
    "kubectl -n {namespace} get isvr/{name} -o jsonpath='{{.status.conditions[?(@.type==\"DrainProtected\")].message}}'"
)

COMMANDS: Final[dict[str, str]] = {
    "NoEndpoints": "kubectl -n {namespace} get pods,events --show-labels",
    "NoEndpointReady": _PODS,
    "ProgressDeadlineExceeded": _PODS,
    "InvalidTemplate": _EDIT,
    "NotUnderstood": _EDIT,
    "NameTaken": "kubectl -n {namespace} get deployment/{name} -o yaml",
    "AmbiguousSelector": _EDIT,
    "OlderServerDecides": _EDIT,
    "ChangedByHand": "kubectl -n {namespace} rollout history deployment/{name}",
    "OlderImage": "kubectl -n {namespace} get deployment/{name} -o yaml",
    "OtherRouters": _EDIT,
    "GateMissing": _MESSAGE,
    "HookMissing": _MESSAGE,
    "GateDisabled": (
        'kubectl -n {namespace} patch isvr/{name} --type=merge -p \'{{"spec":{{"drain":{{"gate":"Sidecar"}}}}}}\''
    ),
    "GraceTooShort": _EDIT,
    "RequestsOutliveDrain": _EDIT,
    "OwnPreStop": _EDIT,
    "HostNetwork": _EDIT,
    "MeshProxy": _EDIT,
}
"""The next command for each reason; any other gets the description of the resource."""


def conditions(seen: Seen) -> Findings:
    """Yield the conditions of every InferenceServer that are not as they should be."""
    for server in seen.servers:
        told = (server.get("status") or {}).get("conditions") or []
        if not told:
            yield _unseen(seen, server)
            continue
        found = [*_late(seen, server, told), *(_judge(server, each) for each in told if not _as_expected(each))]
        yield from found
        if not found and not any(_told_elsewhere(each) for each in told):
            yield well("server", objects.key(server), _summary(server))
    if not seen.servers and seen.crd is not None:
        yield well("server", "none", "No InferenceServer is applied here yet.")


def _summary(server: Document) -> str:
    status = server.get("status") or {}
    return (
        f"InferenceServer {objects.key(server)}: {status.get('ready', '0/0')} ready, {status.get('inFlight', 0)} of "
        f"{status.get('capacity', 0)} requests in flight, all conditions as they should be."
    )


def _as_expected(condition: Document) -> bool:
    if _told_elsewhere(condition) or condition.get("reason") in PATIENT:
        return True
    return bool(condition.get("status") == EXPECTED.get(condition.get("type", ""), "False"))


def _told_elsewhere(condition: Document) -> bool:
    return bool(TOLD_ELSEWHERE & {condition.get("type"), condition.get("reason")})


def _judge(server: Document, condition: Document) -> Finding:
    kind, reason = str(condition.get("type")), str(condition.get("reason"))
    message = str(condition.get("message") or "").partition("\n")[0].removesuffix(":")
    grave = Severity.ERROR if kind in GRAVE else Severity.WARNING
    return _about(
        server,
        f"InferenceServer {objects.key(server)}: {kind} is {condition.get('status')} ({reason}): {message}",
        severity=Severity.OK if reason in BY_CHOICE else grave,
        commands=(_filled(COMMANDS.get(reason, _DESCRIBE), server),),
        anchor=reason.lower(),
    )


def _filled(command: str, server: Document) -> str:
    return command.format(namespace=objects.namespace(server), name=objects.name(server))


def _about(
    server: Document,
    message: str,
    *,
    commands: tuple[str, ...],
    anchor: str,
    advice: str = "",
    severity: Severity = Severity.ERROR,
    check: str = "server",
) -> Finding:
    return Finding(
        severity=severity,
        check=check,
        about=objects.key(server),
        message=message,
        advice=advice,
        commands=commands,
        anchor=anchor,
    )


def _unseen(seen: Seen, server: Document) -> Finding:
    return _about(
        server,
        f"InferenceServer {objects.key(server)} has no conditions: no operator has looked at it.",
        advice="A replica must lead, may write, and serve this namespace (TAILRACE_WATCH_NAMESPACES).",
        commands=(f"kubectl -n {seen.look.namespace} logs deployment/{seen.look.name} --tail=50",),
        anchor="no-operator",
    )


def _late(seen: Seen, server: Document, told: list[Document]) -> Findings:
    wanted = int(objects.meta(server).get("generation") or 0)
    looked_at = min(int(condition.get("observedGeneration") or 0) for condition in told)
    if looked_at < wanted:
        yield _about(
            server,
            f"InferenceServer {objects.key(server)} was changed (generation {wanted}) and its status still tells of "
            f"generation {looked_at}: the operator does not follow.",
            advice="A replica must lead and may write the status.",
            commands=(f"kubectl -n {seen.look.namespace} logs deployment/{seen.look.name} --tail=50",),
            anchor="no-operator",
            severity=Severity.WARNING,
        )


# Names


def names_of(server: Document) -> Iterator[str]:
    """Yield every name that requests may use for a model of this server."""
    for model in (server.get("spec") or {}).get("models") or ():
        yield from (str(model.get("name")), *(model.get("aliases") or ()), *(model.get("adapters") or ()))


def ambiguous(seen: Seen) -> Findings:
    """Yield the names that more than one namespace serves."""
    for name, keys in sorted(_served(seen).items()):
        namespaces = sorted({key.partition("/")[0] for key in keys})
        if len(namespaces) > 1:
            first, *_, last = sorted(keys)
            yield Finding(
                severity=Severity.WARNING,
                check="names",
                about=name,
                message=f"The model name {name!r} is served in the namespaces {', '.join(namespaces)}: a request that "
                "does not say which is answered with 400 model_ambiguous.",
                advice=f"Send the header x-tailrace-namespace: {namespaces[0]}; or rename it in {first} or {last}.",
                commands=(f"kubectl -n {last.partition('/')[0]} edit isvr/{last.partition('/')[2]}",),
                anchor="servedintwonamespaces",
            )


def _served(seen: Seen) -> dict[str, set[str]]:
    found: dict[str, set[str]] = defaultdict(set)
    for server in seen.servers:
        for name in names_of(server):
            found[name].add(objects.key(server))
    return found


def model(seen: Seen) -> Findings:
    """Yield whether the model that was asked about is served, and else which names are near."""
    asked, served = seen.look.model, _served(seen)
    if asked is None:
        return
    if asked in served:
        yield well("model", asked, f"The model {asked!r} is served by {', '.join(sorted(served[asked]))}.")
        return
    near = difflib.get_close_matches(asked, served, n=3, cutoff=0.4)
    told = ", ".join(map(repr, sorted(served)[:20])) or "none"
    yield Finding(
        severity=Severity.ERROR,
        check="model",
        about=asked,
        message=f"No InferenceServer names the model {asked!r}, so requests for it are answered with 404; names that "
        f"are served: {told}.",
        advice=f"Ask for {near[0]!r}, or make {asked!r} an alias of it." if near else "Apply an InferenceServer.",
        commands=_alias(seen, asked, near[0]) if near else ("kubectl get isvr -A",),
        anchor="model_not_found",
    )


def _alias(seen: Seen, asked: str, near: str) -> tuple[str, ...]:
    for server in seen.servers:
        for index, found in enumerate((server.get("spec") or {}).get("models") or ()):
            if near in (found.get("name"), *(found.get("aliases") or ())):
                more = [*(found.get("aliases") or ()), asked]
                change = [{"op": "add", "path": f"/spec/models/{index}/aliases", "value": more}]
                return (_patch(server, change, "json"),)
    return ("kubectl get isvr -A",)


def _patch(server: Document, change: object, how: str) -> str:
    where = f"-n {objects.namespace(server)} patch isvr/{objects.name(server)} --type={how}"
    return f"kubectl {where} -p {shlex.quote(json.dumps(change))}"


# Pools


def full(seen: Seen) -> Findings:
    """Yield the pools whose endpoints are all at capacity."""
    for (namespace, name), servers in sorted(_pools(seen).items()):
        in_flight, capacity = (sum(_figure(server, field) for server in servers) for field in ("inFlight", "capacity"))
        if capacity and in_flight >= capacity:
            yield _full(namespace, name, servers, f"{in_flight} of {capacity}")


def _pools(seen: Seen) -> dict[tuple[str, str], list[Document]]:
    found: dict[tuple[str, str], list[Document]] = defaultdict(list)
    for server in seen.servers:
        for each in (server.get("spec") or {}).get("models") or ():
            found[objects.namespace(server), str(each.get("name"))].append(server)
    return found


def _figure(server: Document, field: str) -> int:
    return int((server.get("status") or {}).get(field) or 0)


def _full(namespace: str, name: str, servers: list[Document], used: str) -> Finding:
    grown = next((server for server in servers if "template" in server["spec"]), servers[0])
    capacity = int(grown["spec"].get("capacity") or 1)
    raise_capacity = _patch(grown, {"spec": {"capacity": 2 * capacity}}, "merge")
    replicas = int(grown["spec"].get("replicas") or 0) + 1
    scale = f"kubectl -n {namespace} scale isvr/{objects.name(grown)} --replicas={replicas}"
    return Finding(
        severity=Severity.WARNING,
        check="pool",
        about=f"{namespace}/{name}",
        message=f"The pool of the model {name!r} in {namespace} is full ({used} requests in flight): more are answered "
        "with 429 rejected-saturated until one ends.",
        advice=f"Add pods, or let each take more than spec.capacity {capacity} if its engine can.",
        commands=((scale,) if "template" in grown["spec"] else ()) + (raise_capacity,),
        anchor="rejected-saturated",
    )
