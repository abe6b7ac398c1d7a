"""The rules that a schema can't express: one table, read by the CRD (the CEL column) and by `validate` (the checks).

A row's `path` is where the rule stands: `models[]` means every item. `self` in CEL is the value there, with defaults
filled in; the check is given the same value as a model, and is not run where the value is absent. `field` says which
field below `path` the message belongs to. A rule that reads `oldSelf` holds between two versions of one resource.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from tailrace.api.base import LABEL_KEY
from tailrace.api.inferenceserver import (
    Container,
    DisruptionBudget,
    InferenceServer,
    LabelOperator,
    PodMetadata,
    PodTemplate,
    Rollout,
    ScoreWeights,
    Selector,
    SelectorRequirement,
    ServedModel,
    Spec,
)
from tailrace.api.names import GATE_CONTAINER, LABEL_SERVER

MODES = ("template", "selector", "endpoints")
MAX_NAMES = 512
"""Names of one resource, whatever their kind: comparing each with each must stay within the API server's budget."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One row: where it stands, what the API server evaluates, what people read, and the same as a function."""

    path: str
    cel: str
    message: str
    check: Callable[..., bool]
    field: str = ""

    @property
    def transition(self) -> bool:
        """Whether the rule compares with the version before; then the check takes (value, old value)."""
        return "oldSelf" in self.cel


def modes(spec: Spec) -> list[str]:
    """Which of template, selector and endpoints the spec has."""
    return [mode for mode in MODES if getattr(spec, mode) is not None]


def _names(model: ServedModel) -> list[str]:
    return [model.name, *model.aliases, *model.adapters]


def _names_once_in_model(model: ServedModel) -> bool:
    return len(set(_names(model))) == len(_names(model))


def _names_once(models: tuple[ServedModel, ...]) -> bool:
    owners = Counter(name for model in models for name in set(_names(model)))
    return all(count == 1 for count in owners.values())


def _replaces_something(rollout: Rollout) -> bool:
    return not all(value in (0, "0%") for value in (rollout.max_surge, rollout.max_unavailable))


def _owned_or_unscaled(spec: Spec) -> bool:
    return spec.template is not None or spec.replicas == 1


def _owned_or_no_rollout(spec: Spec) -> bool:
    return spec.template is not None or "rollout" not in spec.model_fields_set


def _owned_or_no_budget(spec: Spec) -> bool:
    return spec.template is not None or spec.disruption_budget is None


def _one_bound(budget: DisruptionBudget) -> bool:
    return (budget.max_unavailable is None) != (budget.min_available is None)


def _declared_ports(template: PodTemplate) -> list[int]:
    return [port.container_port for container in template.spec.containers for port in container.ports]


def _port_is_declared(spec: Spec) -> bool:
    ports = _declared_ports(spec.template) if spec.template else []
    return not ports or spec.port in ports


def _selects_something(selector: Selector) -> bool:
    return bool(selector.match_labels or selector.match_expressions)


def _weighs_something(weights: ScoreWeights) -> bool:
    return weights.gpu_percent + weights.memory_percent + weights.queue_percent + weights.latency_percent > 0


def _values_suit_operator(requirement: SelectorRequirement) -> bool:
    return bool(requirement.values) == (requirement.operator in (LabelOperator.IN, LabelOperator.NOT_IN))


def _not_the_gate(container: Container) -> bool:
    return container.name != GATE_CONTAINER


def _leaves_our_label(metadata: PodMetadata) -> bool:
    return LABEL_SERVER not in metadata.labels


_GATE_NAME = f"self.name != '{GATE_CONTAINER}'"
_GATE_MESSAGE = f"{GATE_CONTAINER} is the name of the container that Tailrace adds; give this one another name"

RULES: tuple[Rule, ...] = (
    Rule(
        "spec",
        "[has(self.template), has(self.selector), has(self.endpoints)].exists_one(present, present)",
        "give exactly one of template (Tailrace runs the pods), selector (others run them) and endpoints (addresses)",
        lambda spec: len(modes(spec)) == 1,
    ),
    Rule(
        "spec",
        "has(self.template) == has(oldSelf.template) && has(self.selector) == has(oldSelf.selector)"
        " && has(self.endpoints) == has(oldSelf.endpoints)",
        "which of template, selector and endpoints is used can't change; create an InferenceServer of another name "
        "with the same models and delete this one",
        lambda spec, old: modes(spec) == modes(old),
    ),
    Rule(
        "spec",
        "has(self.template) || self.replicas == 1",
        "replicas works with template only; leave it out, and scale the pods or list more endpoints where they are run",
        _owned_or_unscaled,
        field="replicas",
    ),
    Rule(
        "spec",
        "has(self.template) || !has(self.rollout)",
        "rollout works with template only; leave it out",
        _owned_or_no_rollout,
        field="rollout",
    ),
    Rule(
        "spec",
        "has(self.template) || !has(self.disruptionBudget)",
        "disruptionBudget works with template only; leave it out, and make a budget where the pods are run",
        _owned_or_no_budget,
        field="disruptionBudget",
    ),
    Rule(
        "spec",
        "!has(self.template) || !self.template.spec.containers.exists(c, has(c.ports) && size(c.ports) > 0)"
        " || self.template.spec.containers.exists(c, has(c.ports)"
        " && c.ports.exists(p, p.containerPort == self.port))",
        "no container of template declares this port, though ports are declared; set port to the containerPort of "
        "the model server, or declare it",
        _port_is_declared,
        field="port",
    ),
    Rule(
        "spec.models",
        f"self.map(m, 1 + size(m.aliases) + size(m.adapters)).sum() <= {MAX_NAMES}",
        f"more than {MAX_NAMES} names, aliases and adapters in all; spread them over several InferenceServers",
        lambda models: sum(len(_names(model)) for model in models) <= MAX_NAMES,
    ),
    Rule(
        "spec.models",
        "self.all(m, ([m.name] + m.aliases + m.adapters).all(x,"
        " self.exists_one(n, n.name == x || x in n.aliases || x in n.adapters)))",
        "a name, alias or adapter stands in two models; a request for it could mean either, so take it out of one",
        _names_once,
    ),
    Rule(
        "spec.models[]",
        "!(self.name in self.aliases) && !(self.name in self.adapters) && !self.aliases.exists(x, x in self.adapters)",
        "name, aliases and adapters must all differ; take the repeated one out",
        _names_once_in_model,
    ),
    Rule(
        "spec.rollout",
        "!((type(self.maxSurge) == int ? self.maxSurge == 0 : self.maxSurge == '0%')"
        " && (type(self.maxUnavailable) == int ? self.maxUnavailable == 0 : self.maxUnavailable == '0%'))",
        "maxSurge and maxUnavailable can't both be 0, no pod could be replaced; with no spare GPU set maxUnavailable "
        "to 1, else maxSurge to 1",
        _replaces_something,
    ),
    Rule(
        "spec.rollout",
        "self.progressDeadlineSeconds > self.minReadySeconds",
        "must be more than minReadySeconds, or every rollout would count as stuck; raise it",
        lambda rollout: rollout.progress_deadline_seconds > rollout.min_ready_seconds,
        field="progressDeadlineSeconds",
    ),
    Rule(
        "spec.disruptionBudget",
        "has(self.maxUnavailable) != has(self.minAvailable)",
        "give exactly one of maxUnavailable and minAvailable",
        _one_bound,
    ),
    Rule(
        "spec.selector",
        "(has(self.matchLabels) && size(self.matchLabels) > 0)"
        " || (has(self.matchExpressions) && size(self.matchExpressions) > 0)",
        "an empty selector would take every pod of the namespace; give matchLabels or matchExpressions",
        _selects_something,
    ),
    Rule(
        "spec.selector.matchLabels",
        f"self.all(key, key.matches('{LABEL_KEY}'))",
        "a key is not a label's name, as in app or example.com/app; correct it",
        lambda labels: all(re.fullmatch(LABEL_KEY, key) for key in labels),
    ),
    Rule(
        "spec.selector.matchExpressions[]",
        "(self.operator in ['In', 'NotIn']) == (size(self.values) > 0)",
        "In and NotIn need at least one value, Exists and DoesNotExist take none",
        _values_suit_operator,
        field="values",
    ),
    Rule(
        "spec.loadBalancing.scoreWeights",
        # The default {} is judged before its fields are filled in, by the API server when it takes the definition.
        "!has(self.gpuPercent) || !has(self.memoryPercent) || !has(self.queuePercent) || !has(self.latencyPercent)"
        " || self.gpuPercent + self.memoryPercent + self.queuePercent + self.latencyPercent > 0",
        "all four are 0, every endpoint would score the same; raise one",
        _weighs_something,
    ),
    Rule("spec.template.spec.containers[]", _GATE_NAME, _GATE_MESSAGE, _not_the_gate, field="name"),
    Rule("spec.template.spec.initContainers[]", _GATE_NAME, _GATE_MESSAGE, _not_the_gate, field="name"),
    Rule(
        "spec.template.metadata",
        f"!has(self.labels) || !('{LABEL_SERVER}' in self.labels)",
        f"the label {LABEL_SERVER} is set by Tailrace; leave it out",
        _leaves_our_label,
        field="labels",
    ),
)


def _attribute(value: BaseModel, alias: str) -> object:
    for name, field in type(value).model_fields.items():
        if field.alias == alias:
            return getattr(value, name)
    raise KeyError(alias)


def values_at(root: BaseModel, path: str) -> Iterator[tuple[str, Any]]:
    """Every value that `path` names below `root`, each with its own path (`models[0]`); absent values are left out."""
    found: list[tuple[str, Any]] = [("", root)]
    for step in path.split("."):
        found = [pair for prefix, value in found for pair in _step(prefix, value, step)]
    yield from found


def _step(prefix: str, value: BaseModel, step: str) -> Iterator[tuple[str, Any]]:
    name = step.removesuffix("[]")
    child: Any = _attribute(value, name)
    path = f"{prefix}.{name}".lstrip(".")
    if child is None:
        return
    if step.endswith("[]"):
        yield from ((f"{path}[{index}]", item) for index, item in enumerate(child))
    else:
        yield path, child


def broken(server: InferenceServer, old: InferenceServer | None = None) -> Iterator[tuple[str, str]]:
    """(path of the field, message) of every rule that `server` breaks; `old` is the version it replaces."""
    for rule in RULES:
        before = dict(values_at(old, rule.path)) if old and rule.transition else {}
        for path, value in values_at(server, rule.path):
            if not _holds(rule, value, before.get(path)):
                yield ".".join(filter(None, (path, rule.field))), rule.message


def _holds(rule: Rule, value: object, old: object) -> bool:
    if not rule.transition:
        return rule.check(value)
    return old is None or rule.check(value, old)
