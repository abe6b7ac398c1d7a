"""The conditions of an InferenceServer from what is known of it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from tailrace.api import names
from tailrace.api.inferenceserver import ConditionType
from tailrace.core.model import EndpointSpec, EndpointState
from tailrace.kube import objects, workload
from tailrace.kube.client import Document
from tailrace.kube.injection import GateParams, Weakness, inject, protection
from tailrace.kube.problems import Problem
from tailrace.kube.servers import Server
from tailrace.link import EndpointReport

FIELDS_IGNORED = "FieldsIgnored"
GATE_SILENCE_SECONDS: Final = 60.0
MAX_MESSAGE: Final = 1024
OWN_CONDITIONS: Final = frozenset({"AmbiguousSelector"})
"""Problems that are conditions of their own, by their reason; all others make the server Degraded."""


@dataclass(frozen=True, slots=True)
class Facts:
    """All that a status is made of. ``memory`` says why the GPU memory of an endpoint (by uid) is not known.

    ``listening_since`` is when this replica began to hear gates: before it, silence says nothing. ``grade`` is the
    worst of its pools, None while there is none.
    """

    server: Server
    now: float
    params: GateParams
    endpoints: Sequence[EndpointSpec] = ()
    reports: Mapping[str, EndpointReport] = field(default_factory=dict)
    pods: Sequence[Document] = ()
    deployment: Document | None = None
    problems: Sequence[Problem] = ()
    standing: Mapping[str, Problem] = field(default_factory=dict)
    memory: Mapping[str, str] = field(default_factory=dict)
    drains: Sequence[Document] = ()
    listening_since: float = 0.0
    grade: str | None = None

    def state(self, spec: EndpointSpec) -> EndpointState:
        """Return the state of an endpoint: as the data plane reports it, else as it looks from here."""
        report = self.reports.get(spec.uid)
        if report is not None:
            return report.state
        if spec.deletion is not None or spec.cordon is not None:
            return EndpointState.DRAINING
        return EndpointState.READY if spec.ready else EndpointState.STARTING

    def count(self, *states: EndpointState) -> int:
        """Return how many endpoints are in one of these states."""
        return sum(1 for spec in self.endpoints if self.state(spec) in states)


@dataclass(frozen=True, slots=True)
class Verdict:
    """A condition without its times."""

    type: str
    status: bool
    reason: str
    message: str


def verdicts(facts: Facts) -> list[Verdict]:
    """Return the conditions: the four that are always there, then those that apply."""
    return [ready(facts), progressing(facts), degraded(facts), drain_protected(facts), *_occasional(facts)]


def ready(facts: Facts) -> Verdict:
    """Whether an endpoint takes requests."""
    here, able = len(_staying(facts)), facts.count(EndpointState.READY)
    if able:
        note = next((_no_long_prompts(spec, facts) for spec in _staying(facts) if facts.memory.get(spec.uid)), "")
        return Verdict(ConditionType.READY, True, "EndpointsReady", f"{able} of {here} endpoints take requests.{note}")
    if facts.server.model.spec.template is not None and facts.server.model.spec.replicas == 0:
        return Verdict(
            ConditionType.READY, False, "ScaledToZero", "spec.replicas is 0: requests are answered with 503."
        )
    if not here:
        return Verdict(ConditionType.READY, False, "NoEndpoints", _why_none(facts))
    told = "; ".join(f"{spec.name}: {spec.reason}" for spec in _staying(facts)[:3] if spec.reason)
    return Verdict(
        ConditionType.READY, False, "NoEndpointReady", f"None of {here} endpoints is ready: {told or 'not told why'}"
    )


def progressing(facts: Facts) -> Verdict:
    """Whether a rollout is under way; it is until the last old pod has finished draining."""
    if facts.server.model.spec.template is None:
        return Verdict(
            ConditionType.PROGRESSING, False, "NotManaged", "Others run the pods; there is nothing to roll out."
        )
    if facts.problems:
        return Verdict(ConditionType.PROGRESSING, False, facts.problems[0].reason, facts.problems[0].message)
    live = facts.deployment
    if live is None:
        return Verdict(ConditionType.PROGRESSING, True, "CreatingDeployment", "The Deployment does not exist yet.")
    stuck = _stuck(live)
    if stuck:
        return Verdict(ConditionType.PROGRESSING, False, "ProgressDeadlineExceeded", stuck)
    return _rollout(facts, live)


def degraded(facts: Facts) -> Verdict:
    """Whether something needs a person."""
    found = [problem for problem in facts.problems if problem.reason not in OWN_CONDITIONS]
    if facts.server.error:
        found.append(Problem("NotUnderstood", f"The stored resource is not understood: {facts.server.error}"))
    if facts.deployment is not None and (stuck := _stuck(facts.deployment)):
        found.append(Problem("ProgressDeadlineExceeded", stuck))
    if not found:
        return Verdict(ConditionType.DEGRADED, False, "AsExpected", "")
    return Verdict(ConditionType.DEGRADED, True, found[0].reason, " ".join(problem.message for problem in found))


def drain_protected(facts: Facts) -> Verdict:
    """Whether no request is cut when a pod goes away, as far as can be told beforehand."""
    found = weaknesses(facts)
    if not found:
        return Verdict(ConditionType.DRAIN_PROTECTED, True, "Protected", "")
    return Verdict(
        ConditionType.DRAIN_PROTECTED, False, found[0].reason, " ".join(weakness.message for weakness in found)
    )


def weaknesses(facts: Facts) -> list[Weakness]:
    """Return what weakens the drain of this server's pods, each reason once."""
    spec = facts.server.model.spec
    if spec.endpoints is not None:
        return [Weakness("FixedEndpoints", "Nobody tells Tailrace when a fixed address goes away: drain it by hand.")]
    if spec.template is None:
        found = [_about(pod, weakness) for pod in facts.pods for weakness in protection(pod, facts.params)]
    else:
        found = protection(_template(facts), facts.params)
    return list({weakness.reason: weakness for weakness in reversed([*found, *_unreachable(facts)])}.values())[::-1]


def _template(facts: Facts) -> Document:
    if facts.deployment is not None and workload.controlled(facts.deployment, facts.server.model):
        return dict(facts.deployment["spec"]["template"])
    try:
        return inject(facts.server.document["spec"]["template"], facts.params)
    except ValueError:
        return {}


def _about(pod: Document, weakness: Weakness) -> Weakness:
    return Weakness(weakness.reason, f"Pod {objects.name(pod)}: {weakness.message}")


def _unreachable(facts: Facts) -> list[Weakness]:
    silent = [pod for pod in facts.pods if _is_silent(pod, facts)]
    if not silent:
        return []
    return [
        Weakness(
            "GateUnreachable",
            f"The drain gate of pod {objects.name(silent[0])} has not called any router: check that pods may reach "
            f"{facts.params.routers} (NetworkPolicy, service mesh, TAILRACE_GATE_ROUTERS).",
        )
    ]


def _is_silent(pod: Document, facts: Facts) -> bool:
    report = facts.reports.get(objects.uid(pod))
    created = objects.seconds(objects.meta(pod).get("creationTimestamp"))
    # An older gate said hello before we listened and says it once a minute: it has that long to be heard again.
    older = created < facts.listening_since
    heard_by = (facts.listening_since + GATE_SILENCE_SECONDS if older else created) + GATE_SILENCE_SECONDS
    sidecars = (pod.get("spec") or {}).get("initContainers") or ()
    gated = any(container.get("name") == names.GATE_CONTAINER for container in sidecars)
    silent = report is not None and not report.gate_seen
    return gated and silent and facts.now > heard_by and _running(pod) and not objects.deleting(pod)


def _running(pod: Document) -> bool:
    return bool((pod.get("status") or {}).get("phase") == "Running")


def _occasional(facts: Facts) -> list[Verdict]:
    found = dict(facts.standing)
    found |= {problem.reason: problem for problem in facts.problems if problem.reason in OWN_CONDITIONS}
    if facts.server.ignored:
        found[FIELDS_IGNORED] = _newer_fields(facts.server.ignored)
    live = facts.deployment
    if live is not None and workload.controlled(live, facts.server.model):
        found |= _deployment_notes(live, facts)
    return [Verdict(kind, True, problem.reason, problem.message) for kind, problem in sorted(found.items())]


def _newer_fields(paths: Sequence[str]) -> Problem:
    return Problem(
        "NewerDefinition",
        f"This version of Tailrace does not know {', '.join(paths)}, or what it says, and goes on as if it were left "
        "out: upgrade Tailrace to the version of the definition.",
    )


def _deployment_notes(live: Document, facts: Facts) -> dict[str, Problem]:
    notes: dict[str, Problem] = {}
    if workload.drifted(live):
        notes["TemplateDrift"] = Problem(
            "ChangedByHand",
            "The Deployment's template is not the one of spec.template: somebody changed or undid it. It stays so "
            "until spec.template is changed.",
        )
    if facts.params.gate and (outdated := _outdated_gate(live, facts.params)):
        notes["GateOutdated"] = outdated
    return notes


def _outdated_gate(live: Document, params: GateParams) -> Problem | None:
    routers, image = workload.gate_routers(live), workload.gate_image(live)
    kept = "it is not replaced by itself, because that restarts the pods: the next change of spec.template brings it."
    if routers not in (None, params.routers):
        return Problem(
            "OtherRouters", f"The pods' drain gate calls {routers}, and routers are at {params.routers}; {kept}"
        )
    if image not in (None, params.image):
        return Problem("OlderImage", f"The pods' drain gate runs {image}, this release has {params.image}; {kept}")
    return None


def _staying(facts: Facts) -> list[EndpointSpec]:
    return [spec for spec in facts.endpoints if facts.state(spec) in (EndpointState.READY, EndpointState.STARTING)]


def _no_long_prompts(spec: EndpointSpec, facts: Facts) -> str:
    return f" {spec.name} gets no long prompts: {facts.memory[spec.uid]}"


def _why_none(facts: Facts) -> str:
    if facts.server.model.spec.selector is not None:
        return "No pod of this namespace matches spec.selector."
    live = objects.condition(facts.deployment, "ReplicaFailure") if facts.deployment else None
    if live is not None and live.get("status") == "True":
        return f"Pods can't be created: {live.get('message', '')}"
    return facts.problems[0].message if facts.problems else "There is no pod yet."


def _stuck(live: Document) -> str:
    found = objects.condition(live, "Progressing")
    return str(found.get("message", "")) if found and found.get("reason") == "ProgressDeadlineExceeded" else ""


def _rollout(facts: Facts, live: Document) -> Verdict:
    status, wanted = live.get("status") or {}, facts.server.model.spec.replicas
    updated, available = int(status.get("updatedReplicas") or 0), int(status.get("availableReplicas") or 0)
    draining = facts.count(EndpointState.DRAINING, EndpointState.DRAINED)
    seen = int(status.get("observedGeneration") or 0) >= int(objects.meta(live).get("generation") or 0)
    if seen and updated == available == int(status.get("replicas") or 0) == wanted and not draining:
        return Verdict(
            ConditionType.PROGRESSING, False, "Complete", f"{wanted} of {wanted} pods are up to date and available."
        )
    told = f"{updated} of {wanted} pods are up to date, {available} available, {draining} draining."
    return Verdict(ConditionType.PROGRESSING, True, "RollingOut", told)
