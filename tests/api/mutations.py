"""Documents that are right, and what one change makes of them: read by the unit tests and by the cluster's."""

import reprlib
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import yaml

from tailrace.api.spec import Strategy

ABSENT = object()
"""As a row's value: the field is taken out."""

TEMPLATE: dict[str, Any] = yaml.safe_load("""
apiVersion: inference.tailrace.dev/v1alpha1
kind: InferenceServer
metadata: {name: llama, labels: {team: search}}
spec:
  models:
  - {name: meta-llama/Llama-3-70B, aliases: [gpt-4o-mini], servedName: llama-3-70b, adapters: [finance-lora]}
  - {name: qwen3}
  engine: vllm
  replicas: 3
  rollout: {maxSurge: 25%, maxUnavailable: 0, progressDeadlineSeconds: 1800, minReadySeconds: 5}
  disruptionBudget: {maxUnavailable: 1}
  template:
    metadata: {labels: {app: llama}, annotations: {note: kept}}
    spec:
      nodeSelector: {gpu: h100}
      containers:
      - name: server
        image: vllm/vllm-openai:v0.11.0
        ports: [{name: http, containerPort: 8000, protocol: TCP}]
        resources: {limits: {nvidia.com/gpu: 2}}
      - {name: exporter, image: example.com/exporter:1}
      initContainers: [{name: fetch, image: example.com/fetch:1}]
  port: 8000
  capacity: 64
  gpuMemoryGB: 160
  gpuTFLOPS: 624
  weight: 4
  loadBalancing:
    strategy: PowerOfTwoChoices
    longPromptTokens: 8192
    longPromptMinGPUMemoryGB: 141
    weightBy: Hardware
    latency: P95
    session: {header: x-chat-id, mode: Hard, ttlSeconds: 600}
    maxLoadPercent: 150
    engineMetrics: {read: Always, intervalSeconds: 5}
    scoreWeights: {gpuPercent: 0, memoryPercent: 0, queuePercent: 100, latencyPercent: 0}
    maxKVUsagePercent: 95
    spillPercent: 70
    whenPoor: {strategy: LeastRequests, afterSeconds: 600, forSeconds: 3600}
  timeouts: {connectSeconds: 3, firstByteSeconds: 60, idleSeconds: 30, totalSeconds: 900}
  drain: {timeoutSeconds: 900, settleSeconds: 1, shutdownSeconds: 20, gate: Sidecar}
""")

SELECTOR: dict[str, Any] = yaml.safe_load("""
apiVersion: inference.tailrace.dev/v1alpha1
kind: InferenceServer
metadata: {name: adopted}
spec:
  models: [{name: llama}]
  selector:
    matchLabels: {app: llama, example.com/tier: gold}
    matchExpressions: [{key: zone, operator: In, values: [a, b]}]
""")

ENDPOINTS: dict[str, Any] = yaml.safe_load("""
apiVersion: inference.tailrace.dev/v1alpha1
kind: InferenceServer
metadata: {name: fixed}
spec:
  models: [{name: llama}]
  engine: openai
  endpoints:
  - {address: "10.0.0.7:8000", gpuMemoryGB: 80, capacity: 16, gpuTFLOPS: 312, weight: 2, zone: eu-1a, backup: true}
  - {address: "[2001:db8::7]:443"}
  - {address: "gpu-3.example.com:8000"}
""")

MINIMAL: dict[str, Any] = yaml.safe_load("""
apiVersion: inference.tailrace.dev/v1alpha1
kind: InferenceServer
metadata: {name: small}
spec:
  models: [{name: m}]
  template: {spec: {containers: [{name: server}]}}
""")

RIGHT = {"template": TEMPLATE, "selector": SELECTOR, "endpoints": ENDPOINTS, "minimal": MINIMAL}


def changed(document: dict[str, Any], where: str, value: object) -> dict[str, Any]:
    """Copy `document` with the field at `where` (`spec/models/0/name`) set, or taken out when `value` is ABSENT."""
    copy = deepcopy(document)
    *parents, last = [int(step) if step.isdecimal() else step for step in where.split("/")]
    target: Any = copy
    for step in parents:
        target = target[step]
    if value is ABSENT:
        del target[last]
    elif isinstance(target, list) and last == len(target):
        target.append(value)
    else:
        target[last] = value
    return copy


@dataclass(frozen=True)
class Change:
    """One change of one of the right documents; `path` is the field that the refusal names (empty: it is right)."""

    base: str
    where: str
    value: object
    path: str = ""

    @property
    def document(self) -> dict[str, Any]:
        return changed(RIGHT[self.base], self.where, self.value)

    def __str__(self) -> str:
        shown = "absent" if self.value is ABSENT else reprlib.repr(self.value)
        return f"{self.base}:{self.where}={shown}"


def full_models(aliases: int, adapters: int, models: int) -> list[dict[str, Any]]:
    """Models with as many names as wanted, each as long as a name may be."""
    return [
        {
            "name": f"{'m' * 249}{model:04}",
            "aliases": [f"{'a' * 245}{model:04}{index:04}" for index in range(aliases)],
            "adapters": [f"{'l' * 245}{model:04}{index:04}" for index in range(adapters)],
        }
        for model in range(models)
    ]


CONTAINERS = [
    {"name": f"c{index}", "ports": [{"containerPort": 8000 + port} for port in range(64)]} for index in range(32)
]
LABELS = {f"key-{index}": "x" for index in range(33)}

REFUSED = (
    Change("minimal", "metadata/name", "n" * 64, "metadata.name"),
    Change("minimal", "metadata/name", "Upper", "metadata.name"),
    Change("minimal", "spec/models", ABSENT, "spec.models"),
    Change("minimal", "spec/models", None, "spec.models"),
    Change("minimal", "spec/models", [], "spec.models"),
    Change("minimal", "spec/models", {"name": "m"}, "spec.models"),
    Change("minimal", "spec/models", [{"name": f"m{index}"} for index in range(33)], "spec.models"),
    Change("minimal", "spec/models/0/name", ABSENT, "spec.models[0].name"),
    Change("minimal", "spec/models/0/name", "", "spec.models[0].name"),
    Change("minimal", "spec/models/0/name", "two words", "spec.models[0].name"),
    Change("minimal", "spec/models/0/name", "line\n", "spec.models[0].name"),
    Change("minimal", "spec/models/0/name", 7, "spec.models[0].name"),
    Change("minimal", "spec/models/0/name", "m" * 254, "spec.models[0].name"),
    Change("minimal", "spec/models/0/colour", "red", "spec.models[0].colour"),
    Change("minimal", "spec/models/1", {"name": "m"}, "spec.models[1]"),
    Change("minimal", "spec/models/0/aliases", ["m"], "spec.models[0]"),
    Change("minimal", "spec/models/0/adapters", ["m"], "spec.models[0]"),
    Change("minimal", "spec/models/0/aliases", ["a", "a"], "spec.models[0].aliases[1]"),
    Change("minimal", "spec/models/0/aliases", [f"a{index}" for index in range(17)], "spec.models[0].aliases"),
    Change("minimal", "spec/models/0/aliases", "a", "spec.models[0].aliases"),
    Change("minimal", "spec/models/0/adapters", [None], "spec.models[0].adapters[0]"),
    Change("minimal", "spec/models/0/servedName", "", "spec.models[0].servedName"),
    Change("template", "spec/models/0/adapters", ["gpt-4o-mini"], "spec.models[0]"),
    Change("template", "spec/models/1/aliases", ["gpt-4o-mini"], "spec.models"),
    Change("template", "spec/models/1/aliases", ["finance-lora"], "spec.models"),
    Change("template", "spec/models/1/adapters", ["finance-lora"], "spec.models"),
    Change("template", "spec/models/1/adapters", ["meta-llama/Llama-3-70B"], "spec.models"),
    Change("minimal", "spec/models", [*full_models(15, 0, 31), *full_models(16, 0, 1)], "spec.models"),
    Change("minimal", "spec/models", full_models(16, 64, 32), "spec.models"),
    Change("minimal", "spec/engine", "VLLM", "spec.engine"),
    Change("minimal", "spec/engine", "mlc", "spec.engine"),
    Change("minimal", "spec/replicas", -1, "spec.replicas"),
    Change("minimal", "spec/replicas", "3", "spec.replicas"),
    Change("minimal", "spec/replicas", 1.5, "spec.replicas"),
    Change("minimal", "spec/replicas", True, "spec.replicas"),
    Change("selector", "spec/replicas", 2, "spec.replicas"),
    Change("endpoints", "spec/replicas", 0, "spec.replicas"),
    Change("selector", "spec/rollout", {"maxSurge": 2}, "spec.rollout"),
    Change("minimal", "spec/rollout", {"maxSurge": 0}, "spec.rollout"),
    Change("minimal", "spec/rollout", {"maxSurge": "0%", "maxUnavailable": "0%"}, "spec.rollout"),
    Change("minimal", "spec/rollout", {"maxSurge": -1}, "spec.rollout.maxSurge"),
    Change("minimal", "spec/rollout", {"maxSurge": "1"}, "spec.rollout.maxSurge"),
    Change("minimal", "spec/rollout", {"maxSurge": "25 %"}, "spec.rollout.maxSurge"),
    Change("minimal", "spec/rollout", {"maxUnavailable": "01%"}, "spec.rollout.maxUnavailable"),
    Change("minimal", "spec/rollout", {"maxUnavailable": True}, "spec.rollout.maxUnavailable"),
    Change("minimal", "spec/rollout", {"minReadySeconds": 3600}, "spec.rollout.progressDeadlineSeconds"),
    Change("minimal", "spec/rollout", {"progressDeadlineSeconds": 0}, "spec.rollout.progressDeadlineSeconds"),
    Change("minimal", "spec/rollout", {"surge": 1}, "spec.rollout.surge"),
    Change("selector", "spec/disruptionBudget", {"maxUnavailable": 1}, "spec.disruptionBudget"),
    Change("endpoints", "spec/disruptionBudget", {"minAvailable": 1}, "spec.disruptionBudget"),
    Change("minimal", "spec/disruptionBudget", {}, "spec.disruptionBudget"),
    Change("minimal", "spec/disruptionBudget", {"maxUnavailable": 1, "minAvailable": 1}, "spec.disruptionBudget"),
    Change("minimal", "spec/disruptionBudget", {"maxUnavailable": "one"}, "spec.disruptionBudget.maxUnavailable"),
    Change("minimal", "spec/disruptionBudget", {"minAvailable": -1}, "spec.disruptionBudget.minAvailable"),
    Change("minimal", "spec/template", ABSENT, "spec"),
    Change("minimal", "spec/template", None, "spec"),
    Change("minimal", "spec/selector", {"matchLabels": {"app": "x"}}, "spec"),
    Change("endpoints", "spec/selector", {"matchLabels": {"app": "x"}}, "spec"),
    Change("minimal", "spec/template", {}, "spec.template.spec"),
    Change("minimal", "spec/template/spec/containers", [], "spec.template.spec.containers"),
    Change("minimal", "spec/template/spec/containers", ABSENT, "spec.template.spec.containers"),
    Change("minimal", "spec/template/spec/containers/0/name", ABSENT, "spec.template.spec.containers[0].name"),
    Change("minimal", "spec/template/spec/containers/0/name", "a_b", "spec.template.spec.containers[0].name"),
    Change("minimal", "spec/template/spec/containers/0/name", "drain-gate", "spec.template.spec.containers[0].name"),
    Change("minimal", "spec/template/spec/containers/1", {"name": "server"}, "spec.template.spec.containers[1]"),
    Change(
        "minimal",
        "spec/template/spec/initContainers",
        [{"name": "drain-gate"}],
        "spec.template.spec.initContainers[0].name",
    ),
    Change(
        "minimal",
        "spec/template/spec/containers/0/ports",
        [{"containerPort": 70000}],
        "spec.template.spec.containers[0].ports[0].containerPort",
    ),
    Change(
        "minimal",
        "spec/template/spec/containers/0/ports",
        [{"name": "http"}],
        "spec.template.spec.containers[0].ports[0].containerPort",
    ),
    Change("minimal", "spec/template/spec/restartPolicy", "Never", "spec.template.spec.restartPolicy"),
    Change(
        "minimal", "spec/template/metadata", {"labels": {"tailrace.dev/server": "x"}}, "spec.template.metadata.labels"
    ),
    Change("template", "spec/port", 8001, "spec.port"),
    Change("minimal", "spec/port", 0, "spec.port"),
    Change("minimal", "spec/port", 65536, "spec.port"),
    Change("minimal", "spec/port", "http", "spec.port"),
    Change("selector", "spec/selector", {}, "spec.selector"),
    Change("selector", "spec/selector", {"matchLabels": {}, "matchExpressions": []}, "spec.selector"),
    Change("selector", "spec/selector/matchLabels", {"app": "no spaces"}, "spec.selector.matchLabels.app"),
    Change("selector", "spec/selector/matchLabels", {"no spaces": "x"}, "spec.selector.matchLabels"),
    Change("selector", "spec/selector/matchLabels", LABELS, "spec.selector.matchLabels"),
    Change("selector", "spec/selector/matchExpressions/0/values", [], "spec.selector.matchExpressions[0].values"),
    Change("selector", "spec/selector/matchExpressions/0/operator", "Gt", "spec.selector.matchExpressions[0].operator"),
    Change(
        "selector", "spec/selector/matchExpressions/0/operator", "Exists", "spec.selector.matchExpressions[0].values"
    ),
    Change("selector", "spec/selector/matchExpressions/0/key", "", "spec.selector.matchExpressions[0].key"),
    Change("endpoints", "spec/endpoints", [], "spec.endpoints"),
    Change("endpoints", "spec/endpoints/0/address", "10.0.0.7", "spec.endpoints[0].address"),
    Change("endpoints", "spec/endpoints/0/address", "10.0.0.7:65536", "spec.endpoints[0].address"),
    Change("endpoints", "spec/endpoints/0/address", "http://10.0.0.7:80", "spec.endpoints[0].address"),
    Change("endpoints", "spec/endpoints/0/address", "2001:db8::7:80", "spec.endpoints[0].address"),
    Change("endpoints", "spec/endpoints/0/address", ABSENT, "spec.endpoints[0].address"),
    Change("endpoints", "spec/endpoints/1/address", "10.0.0.7:8000", "spec.endpoints[1]"),
    Change("endpoints", "spec/endpoints/0/capacity", 1001, "spec.endpoints[0].capacity"),
    Change("endpoints", "spec/endpoints/0/gpuMemoryGB", 0, "spec.endpoints[0].gpuMemoryGB"),
    Change("minimal", "spec/capacity", 0, "spec.capacity"),
    Change("minimal", "spec/capacity", 1001, "spec.capacity"),
    Change("minimal", "spec/capacity", "many", "spec.capacity"),
    Change("minimal", "spec/gpuMemoryGB", 0, "spec.gpuMemoryGB"),
    Change("minimal", "spec/gpuMemoryGb", 80, "spec.gpuMemoryGb"),
    Change("minimal", "spec/gpu_memory_gb", 80, "spec.gpu_memory_gb"),
    Change("minimal", "spec/loadBalancing", {"strategy": "Random"}, "spec.loadBalancing.strategy"),
    Change("minimal", "spec/loadBalancing", {"longPromptTokens": 0}, "spec.loadBalancing.longPromptTokens"),
    Change(
        "minimal", "spec/loadBalancing", {"longPromptMinGPUMemoryGB": 0}, "spec.loadBalancing.longPromptMinGPUMemoryGB"
    ),
    Change("minimal", "spec/loadBalancing", "RoundRobin", "spec.loadBalancing"),
    Change("minimal", "spec/loadBalancing", {"weightBy": "Speed"}, "spec.loadBalancing.weightBy"),
    Change("minimal", "spec/loadBalancing", {"latency": "P99"}, "spec.loadBalancing.latency"),
    Change("minimal", "spec/loadBalancing", {"maxLoadPercent": 100}, "spec.loadBalancing.maxLoadPercent"),
    Change("minimal", "spec/loadBalancing", {"session": {"mode": "hard"}}, "spec.loadBalancing.session.mode"),
    Change("minimal", "spec/loadBalancing", {"session": {"header": "a:b"}}, "spec.loadBalancing.session.header"),
    Change("minimal", "spec/loadBalancing", {"session": {"ttlSeconds": 0}}, "spec.loadBalancing.session.ttlSeconds"),
    Change("minimal", "spec/loadBalancing", {"engineMetrics": {"read": "No"}}, "spec.loadBalancing.engineMetrics.read"),
    Change(
        "minimal",
        "spec/loadBalancing",
        {"engineMetrics": {"intervalSeconds": 0}},
        "spec.loadBalancing.engineMetrics.intervalSeconds",
    ),
    Change("minimal", "spec/loadBalancing", {"whenPoor": {}}, "spec.loadBalancing.whenPoor.strategy"),
    Change(
        "minimal",
        "spec/loadBalancing",
        {"whenPoor": {"strategy": "LeastRequests", "afterSeconds": 0}},
        "spec.loadBalancing.whenPoor.afterSeconds",
    ),
    Change("minimal", "spec/loadBalancing", {"spillPercent": 101}, "spec.loadBalancing.spillPercent"),
    Change("endpoints", "spec/endpoints/0/backup", "yes", "spec.endpoints[0].backup"),
    Change("minimal", "spec/backup", 1, "spec.backup"),
    Change("endpoints", "spec/endpoints/0/zone", "eu 1", "spec.endpoints[0].zone"),
    Change("minimal", "spec/loadBalancing", {"maxKVUsagePercent": 101}, "spec.loadBalancing.maxKVUsagePercent"),
    Change(
        "minimal",
        "spec/loadBalancing",
        {"scoreWeights": {"gpuPercent": 101}},
        "spec.loadBalancing.scoreWeights.gpuPercent",
    ),
    Change(
        "minimal",
        "spec/loadBalancing",
        {"scoreWeights": {f"{part}Percent": 0 for part in ("gpu", "memory", "queue", "latency")}},
        "spec.loadBalancing.scoreWeights",
    ),
    Change("minimal", "spec/weight", 0, "spec.weight"),
    Change("minimal", "spec/gpuTFLOPS", 0, "spec.gpuTFLOPS"),
    Change("endpoints", "spec/endpoints/0/weight", 1001, "spec.endpoints[0].weight"),
    Change("endpoints", "spec/endpoints/0/gpuTFLOPS", 0, "spec.endpoints[0].gpuTFLOPS"),
    Change("minimal", "spec/timeouts", {"connectSeconds": 0}, "spec.timeouts.connectSeconds"),
    Change("minimal", "spec/timeouts", {"firstByteSeconds": 0}, "spec.timeouts.firstByteSeconds"),
    Change("minimal", "spec/timeouts", {"idleSeconds": 604801}, "spec.timeouts.idleSeconds"),
    Change("minimal", "spec/timeouts", {"totalSeconds": "10m"}, "spec.timeouts.totalSeconds"),
    Change("minimal", "spec/drain", {"timeoutSeconds": 0}, "spec.drain.timeoutSeconds"),
    Change("minimal", "spec/drain", {"settleSeconds": -1}, "spec.drain.settleSeconds"),
    Change("minimal", "spec/drain", {"shutdownSeconds": 0.5}, "spec.drain.shutdownSeconds"),
    Change("minimal", "spec/drain", {"gate": "sidecar"}, "spec.drain.gate"),
    Change("minimal", "spec/drain", {"gate": False}, "spec.drain.gate"),
    Change("minimal", "spec/replica", 3, "spec.replica"),
    Change("minimal", "spec", ABSENT, "spec"),
    Change("minimal", "spec", [], "spec"),
    Change("minimal", "specs", {}, "specs"),
    Change("minimal", "metadata/label", {}, "metadata.label"),
)

ACCEPTED = (
    *(Change(base, "metadata/name", f"right-{base}") for base in RIGHT),
    Change("minimal", "metadata/name", "n" * 63),
    Change("minimal", "metadata/name", "with.dots"),
    Change("minimal", "spec/replicas", 0),
    Change("minimal", "spec/replicas", None),
    Change("minimal", "spec/drain", None),
    Change("minimal", "spec/drain", {}),
    Change("minimal", "spec/selector", None),
    Change("minimal", "spec/models/0/name", "a" * 253),
    Change("minimal", "spec/models/0/servedName", "m"),
    Change("minimal", "spec/models/0/aliases", ["b", "c"]),
    Change("minimal", "spec/models", full_models(15, 0, 32)),
    Change("minimal", "spec/models", full_models(7, 8, 32)),
    Change("minimal", "spec/models", full_models(0, 63, 8)),
    Change("minimal", "spec/template/spec/containers", CONTAINERS),
    Change(
        "selector", "spec/selector/matchLabels", {f"{'p' * 253}/{'n' * 61}{index:02}": "x" * 63 for index in range(32)}
    ),
    Change("endpoints", "spec/endpoints", [{"address": f"{'h' * 250}:{1000 + index}"} for index in range(1000)]),
    Change("minimal", "spec/capacity", 1000),
    *(Change("minimal", "spec/loadBalancing", {"strategy": strategy.value}) for strategy in Strategy),
    Change("minimal", "spec/loadBalancing", {"session": {"mode": "Hard", "ttlSeconds": 60, "header": "X-Chat-Id"}}),
    Change("minimal", "spec/port", 65535),
    Change("minimal", "spec/rollout", {"maxSurge": 0, "maxUnavailable": 1}),
    Change("minimal", "spec/rollout", {"maxSurge": "200%", "maxUnavailable": "100%"}),
    Change("minimal", "spec/rollout", {}),
    Change("minimal", "spec/disruptionBudget", {"minAvailable": "50%"}),
    Change("minimal", "spec/disruptionBudget", {"maxUnavailable": 0}),
    Change("minimal", "spec/template/spec/containers/0/anything", {"at": ["all", None]}),
    Change("minimal", "spec/template/spec/restartPolicy", "Always"),
    Change("minimal", "spec/template/other", 1),
    Change("template", "spec/template/spec/containers/0/ports", []),
    Change("selector", "spec/replicas", 1),
    Change("selector", "spec/selector/matchLabels", ABSENT),
    Change("selector", "spec/selector/matchLabels", {"app": ""}),
    Change("selector", "spec/selector/matchExpressions/0", {"key": "app", "operator": "Exists"}),
    Change("endpoints", "spec/endpoints/0/address", "localhost:1"),
    Change("endpoints", "spec/endpoints/0/address", "[::1]:65535"),
    Change("minimal", "status", {"replicas": 3}),
)

MODE_CHANGES = (
    ("template", "selector"),
    ("selector", "endpoints"),
    ("endpoints", "template"),
)
"""Pairs of right documents: one can't become the other."""
