"""`spec` of an InferenceServer: what people ask for. Every description becomes the CRD's."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from tailrace.api.base import (
    PORT,
    Capacity,
    Count,
    GpuMemory,
    IntOrPercent,
    LabelKey,
    LabelValue,
    ModelName,
    Part,
    Port,
    Seconds,
    SecondsOrZero,
    as_set,
    defaulted,
    keyed_by,
)
from tailrace.api.template import PodTemplate

ADDRESS = rf"^(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9]([-A-Za-z0-9.]*[A-Za-z0-9])?):{PORT}$"
HeaderName = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9-]*$")]
Weight = Annotated[int, Field(ge=1, le=1000)]
Tflops = Annotated[int, Field(ge=1, le=1_000_000)]
Address = Annotated[str, Field(max_length=260, pattern=ADDRESS)]


class Engine(StrEnum):
    """Families of model servers."""

    VLLM = "vllm"
    SGLANG = "sglang"
    TRTLLM = "trtllm"
    TRITON = "triton"
    TGI = "tgi"
    LLAMACPP = "llamacpp"
    OLLAMA = "ollama"
    OPENAI = "openai"


class Strategy(StrEnum):
    """How an endpoint is chosen among those that qualify."""

    WEIGHTED_LEAST_CONNECTIONS = "WeightedLeastConnections"
    LEAST_REQUESTS = "LeastRequests"
    ROUND_ROBIN = "RoundRobin"
    WEIGHTED_ROUND_ROBIN = "WeightedRoundRobin"
    POWER_OF_TWO_CHOICES = "PowerOfTwoChoices"
    LEAST_TOKENS = "LeastTokens"
    WEIGHTED_RESPONSE_TIME = "WeightedResponseTime"
    SHORTEST_EXPECTED_COMPLETION = "ShortestExpectedCompletion"
    PREFIX_CACHE = "PrefixCache"
    SESSION_AFFINITY = "SessionAffinity"
    LEAST_ESTIMATED_TTFT = "LeastEstimatedTTFT"
    SLOT_BASED = "SlotBased"
    DYNAMIC_SCORE = "DynamicScore"
    LOCALITY = "Locality"


class WeightBy(StrEnum):
    """What the weight of an endpoint is."""

    CAPACITY = "Capacity"
    EXPLICIT = "Explicit"
    HARDWARE = "Hardware"


class Latency(StrEnum):
    """Which figure of an endpoint's response times counts."""

    MEAN = "Mean"
    P95 = "P95"


class SessionMode(StrEnum):
    """What happens to a session while its endpoint is full."""

    SOFT = "Soft"
    HARD = "Hard"


class ReadEngines(StrEnum):
    """When the engines' own metrics are read."""

    WHEN_NEEDED = "WhenNeeded"
    ALWAYS = "Always"
    NEVER = "Never"


class Gate(StrEnum):
    """Who holds SIGTERM back from a pod that still answers requests."""

    SIDECAR = "Sidecar"
    NONE = "None"


class LabelOperator(StrEnum):
    """How a label is compared with the values of a requirement."""

    IN = "In"
    NOT_IN = "NotIn"
    EXISTS = "Exists"
    DOES_NOT_EXIST = "DoesNotExist"


class ServedModel(Part):
    """One model and every name that requests may use for it."""

    name: ModelName = Field(
        description="Name that requests ask for, matched exactly; slashes are fine, as in meta-llama/Llama-3-70B."
    )
    aliases: tuple[ModelName, ...] = Field(
        default=(),
        max_length=16,
        description="Other names for the model; the request's model is rewritten to servedName, or to name.",
        json_schema_extra=as_set(),
    )
    served_name: ModelName | None = Field(
        default=None,
        description="Name by which the model server knows the model. Left out: the same as name.",
    )
    adapters: tuple[ModelName, ...] = Field(
        default=(),
        max_length=64,
        description="LoRA adapters that the model server has loaded; requests name them as their model.",
        json_schema_extra=as_set(),
    )


class Rollout(Part):
    """How the owned Deployment replaces pods; the fields of a Deployment's rolling update."""

    max_surge: IntOrPercent = Field(
        default=1,
        description="Pods above replicas during a rollout: a number, or a percentage that is rounded up. "
        "With no spare GPU set it to 0 and maxUnavailable to 1.",
    )
    max_unavailable: IntOrPercent = Field(
        default=0,
        description="Pods that may be missing during a rollout: a number, or a percentage that is rounded down.",
    )
    progress_deadline_seconds: Seconds = Field(
        default=3600,
        description="Seconds without progress after which the rollout counts as stuck; an hour, because large "
        "models take long to load. More than minReadySeconds.",
    )
    min_ready_seconds: SecondsOrZero = Field(
        default=0, description="Seconds that a new pod must stay ready before it counts."
    )


class DisruptionBudget(Part):
    """How many pods evictions may take at a time; one of its two bounds."""

    max_unavailable: IntOrPercent | None = Field(
        default=None,
        description="Pods that may be missing at a time, those included that still drain: a number, or a percentage "
        "that is rounded up. 0 keeps nodes from being drained.",
    )
    min_available: IntOrPercent | None = Field(
        default=None,
        description="Pods that must stay ready: a number, or a percentage that is rounded up. As many as replicas "
        "keeps nodes from being drained.",
    )


class SelectorRequirement(Part):
    """One comparison of a label with a set of values."""

    key: LabelKey = Field(description="Label that is compared.")
    operator: LabelOperator = Field(description="In and NotIn need values, Exists and DoesNotExist have none.")
    values: tuple[LabelValue, ...] = Field(
        default=(), max_length=64, description="Values for In and NotIn.", json_schema_extra=as_set()
    )


class Selector(Part):
    """Which pods of the namespace belong to the server; all terms must hold."""

    match_labels: dict[str, LabelValue] = Field(
        default_factory=dict, max_length=32, description="Labels that a pod must carry, with exactly these values."
    )
    match_expressions: tuple[SelectorRequirement, ...] = Field(
        default=(), max_length=16, description="Comparisons that must all hold."
    )


class FixedEndpoint(Part):
    """A model server at an address that does not change."""

    address: Address = Field(
        description="host:port of the model server: an IPv4 address, an IPv6 address in brackets or a name, "
        "as in 10.0.0.7:8000."
    )
    gpu_memory_gb: GpuMemory | None = Field(
        default=None, description="GPU memory behind the address in GB. Left out: spec.gpuMemoryGB."
    )
    capacity: Capacity | None = Field(
        default=None, description="Requests that it takes at once, 1 to 1000. Left out: spec.capacity."
    )
    weight: Weight | None = Field(
        default=None, description="Share of requests under weightBy Explicit. Left out: spec.weight."
    )
    gpu_tflops: Tflops | None = Field(
        default=None, description="Dense FP16 TFLOPS of its GPUs, for weightBy Hardware. Left out: spec.gpuTFLOPS."
    )
    zone: LabelValue = Field(default="", description="Zone that it is in, for the strategy Locality.")
    backup: bool | None = Field(
        default=None, description="Whether it is used only while no other is available. Left out: spec.backup."
    )


class Session(Part):
    """How SessionAffinity tells sessions and how long it keeps them."""

    header: HeaderName = Field(
        default="x-session-id",
        description="Request header whose value is the session. Requests without it go to the least loaded endpoint.",
    )
    mode: SessionMode = Field(
        default=SessionMode.SOFT,
        description="While the session's endpoint is full, Soft sends its requests elsewhere and Hard has them wait "
        "for it (spec.queue). Either lets go of an endpoint that drains or is not ready.",
    )
    ttl_seconds: Seconds = Field(
        default=3600, description="Seconds after its last request for which a session is remembered."
    )


class EngineMetrics(Part):
    """Whether and how often engines are asked how they are doing."""

    read: ReadEngines = Field(
        default=ReadEngines.WHEN_NEEDED,
        description="WhenNeeded: when the strategy makes something of it (SlotBased, DynamicScore, "
        "LeastEstimatedTTFT). Always: also to show it in this router's metrics. Never: strategies go by what they see.",
    )
    interval_seconds: int = Field(
        default=1,
        ge=1,
        le=60,
        description="Seconds between two readings of one engine by each router; three without news make it unknown.",
    )


Percent = Annotated[int, Field(ge=0, le=100)]


class ScoreWeights(Part):
    """What each part of DynamicScore counts."""

    gpu_percent: Percent = Field(default=30, description="Weight of GPU utilisation.")
    memory_percent: Percent = Field(default=30, description="Weight of GPU memory in use.")
    queue_percent: Percent = Field(default=20, description="Weight of ten times the requests that wait.")
    latency_percent: Percent = Field(default=20, description="Weight of response times against the usual ones.")


class WhenPoor(Part):
    """Another strategy for a pool that is used unevenly."""

    strategy: Strategy = Field(description="Strategy that takes the place of the pool's own.")
    after_seconds: Seconds = Field(default=300, description="Seconds that the pool must have been Poor.")
    for_seconds: Seconds = Field(
        default=1800, description="Seconds after which the pool's own strategy is tried again."
    )


class LoadBalancing(Part):
    """How requests are spread over the endpoints of the pool."""

    strategy: Strategy = Field(
        default=Strategy.LEAST_ESTIMATED_TTFT,
        description="LeastEstimatedTTFT takes the endpoint whose first token should come first, by prompts pending, "
        "prefixes remembered and speeds learnt, WeightedLeastConnections the lowest share of capacity in use, "
        "LeastRequests the fewest requests in flight, RoundRobin each in turn, WeightedRoundRobin each as often as its "
        "weight says, PowerOfTwoChoices the better of two at random, LeastTokens the fewest tokens outstanding, "
        "WeightedResponseTime each by capacity and response time, ShortestExpectedCompletion the earliest predicted "
        "end, PrefixCache the same one for prompts that begin alike, SessionAffinity the same one for a session, "
        "SlotBased the most slots that the engine says are free, DynamicScore the least of a sum of the engine's own "
        "metrics, Locality the nearest one that is not too full.",
    )
    weight_by: WeightBy = Field(
        default=WeightBy.CAPACITY,
        description="Weights of WeightedRoundRobin: Capacity, Explicit (weight), or Hardware (gpuTFLOPS times "
        "gpuMemoryGB; what is not known counts as a T4's).",
    )
    latency: Latency = Field(
        default=Latency.MEAN,
        description="Response time of WeightedResponseTime: Mean (recent ones weigh more) or P95 of the last hundred.",
    )
    session: Session = Field(
        default_factory=Session, description="Sessions of SessionAffinity.", json_schema_extra=defaulted()
    )
    max_load_percent: int = Field(
        default=125,
        ge=101,
        le=1000,
        description="How loaded PrefixCache, and SessionAffinity for a new session, may make an endpoint, in percent "
        "of the pool's mean load; above it the next endpoint is taken.",
    )
    engine_metrics: EngineMetrics = Field(
        default_factory=EngineMetrics,
        description="Reading the engines' own metrics.",
        json_schema_extra=defaulted(),
    )
    score_weights: ScoreWeights = Field(
        default_factory=ScoreWeights, description="Weights of DynamicScore.", json_schema_extra=defaulted()
    )
    when_poor: WhenPoor | None = Field(
        default=None,
        description="Strategy to change to by itself when the pool stays Poor. Left out: the strategy stays.",
    )
    spill_percent: Percent = Field(
        default=80,
        description="Share of the capacity of a preferred endpoint, in percent, that may be in use before others are "
        "used: of one on the router's node or in its zone (Locality), or with a LoRA adapter loaded.",
    )
    max_kv_usage_percent: int = Field(
        default=90,
        ge=1,
        le=100,
        description="Share of an engine's KV cache in use, in percent, above which LeastEstimatedTTFT avoids it.",
    )
    long_prompt_tokens: int = Field(
        default=4096,
        ge=1,
        le=100_000_000,
        description="Requests of more tokens than this go only to endpoints with longPromptMinGPUMemoryGB.",
    )
    long_prompt_min_gpu_memory_gb: GpuMemory = Field(
        default=80, description="GPU memory in GB that an endpoint needs to be given long prompts."
    )


class Queue(Part):
    """Where requests wait while every endpoint that could serve them is at capacity."""

    max_requests: int = Field(
        default=1000,
        ge=0,
        le=100_000,
        description="Requests that may wait for a slot at each router; one more is answered 429, unless it was sent "
        "to an endpoint that failed. 0: none waits.",
    )
    max_wait_seconds: Seconds = Field(
        default=30, description="Seconds after which a request that got no slot is answered 429."
    )


class Timeouts(Part):
    """How long a request may take; whichever ends first counts."""

    connect_seconds: Seconds = Field(
        default=5,
        description="Seconds for the connection to an endpoint. Inside a cluster it takes milliseconds: 5 allows for "
        "one lost SYN (1 s) and its second try (3 s).",
    )
    first_byte_seconds: Seconds = Field(
        default=300,
        description="Seconds until the first byte of a streamed answer: waiting in the engine and reading the prompt, "
        "which takes minutes for a very long one. An answer that is not streamed comes all at its end, so only "
        "totalSeconds bounds it.",
    )
    idle_seconds: Seconds = Field(
        default=120,
        description="Seconds between two pieces of a streamed answer. Tokens come every few milliseconds; two minutes "
        "allow for an engine that preempts a request and computes it again.",
    )
    total_seconds: Seconds = Field(
        default=600,
        description="Seconds for the whole request. Keep it at or below drain.timeoutSeconds: a longer request can "
        "be cut when its pod goes away, and the condition DrainProtected says so.",
    )


class Drain(Part):
    """What happens to requests in flight when a pod goes away."""

    timeout_seconds: Seconds = Field(
        default=600,
        description="Seconds that requests in flight have to finish; what is left then is ended and counted as lost.",
    )
    settle_seconds: SecondsOrZero = Field(
        default=2, description="Seconds without requests, after every replica has stopped picking the pod."
    )
    shutdown_seconds: SecondsOrZero = Field(
        default=10, description="Seconds that the model server has between SIGTERM and SIGKILL."
    )
    gate: Gate = Field(
        default=Gate.SIDECAR,
        description="Sidecar adds a container that holds SIGTERM back until the pod is drained. None adds nothing: "
        "requests are cut unless the pod has a gate of its own.",
    )


class Spec(Part):
    """What is asked for: the models, and exactly one of template, selector and endpoints that says where they run."""

    models: tuple[ServedModel, ...] = Field(
        min_length=1,
        max_length=32,
        description="Models that every endpoint serves. A name, alias or adapter may occur only once in all of them.",
        json_schema_extra=keyed_by("name"),
    )
    engine: Engine = Field(
        default=Engine.VLLM,
        description="Family of the model server: where its health and metrics are. openai is any other server that "
        "speaks the OpenAI API.",
    )
    replicas: Count = Field(
        default=1,
        description="Pods that the Deployment of template has; 0 keeps the models known and answers 503. Autoscalers "
        "write it through the scale subresource. With selector or endpoints leave it out: others run those.",
    )
    rollout: Rollout = Field(
        default_factory=Rollout,
        description="How the Deployment of template replaces pods. With selector or endpoints leave it out.",
    )
    disruption_budget: DisruptionBudget | None = Field(
        default=None,
        description="A PodDisruptionBudget of the same name, kept for the pods of template: how many of them node "
        "drains and other evictions may take at a time. Left out: none. With selector or endpoints leave it out.",
    )
    template: PodTemplate | None = Field(
        default=None,
        description="Pod template: Tailrace owns a Deployment of the same name. One of template, selector and "
        "endpoints; which one can't change.",
    )
    selector: Selector | None = Field(
        default=None,
        description="Pods of this namespace that somebody else runs. One of template, selector and endpoints; which "
        "one can't change.",
    )
    endpoints: tuple[FixedEndpoint, ...] | None = Field(
        default=None,
        min_length=1,
        max_length=1000,
        description="Addresses of model servers, inside or outside the cluster. One of template, selector and "
        "endpoints; which one can't change.",
        json_schema_extra=keyed_by("address"),
    )
    port: Port = Field(
        default=8000,
        description="Port on which the pods serve the OpenAI API. Addresses in endpoints carry their own.",
    )
    capacity: Capacity = Field(
        default=32,
        description="Requests that one pod takes at once, 1 to 1000: as many as its engine runs at once, such as "
        "vLLM's --max-num-seqs.",
    )
    gpu_memory_gb: GpuMemory | None = Field(
        default=None,
        description="GPU memory of one pod in GB, all its GPUs together. Left out: read from the node's labels.",
    )
    gpu_tflops: Tflops | None = Field(
        default=None,
        description="Dense FP16 TFLOPS of one pod, all its GPUs together, for weightBy Hardware. Left out: told by "
        "the node's label nvidia.com/gpu.product.",
    )
    weight: Weight = Field(default=1, description="Share of requests of one pod under weightBy Explicit.")
    backup: bool = Field(
        default=False,
        description="Whether the pods, or endpoints, are used only while no other of the same model is available.",
    )
    load_balancing: LoadBalancing = Field(
        default_factory=LoadBalancing,
        description="How requests are spread. Of several servers of one model the oldest one's settings count.",
        json_schema_extra=defaulted(),
    )
    queue: Queue = Field(
        default_factory=Queue,
        description="Waiting for a slot. Of several servers of one model the oldest one's settings count.",
        json_schema_extra=defaulted(),
    )
    timeouts: Timeouts = Field(
        default_factory=Timeouts, description="How long a request may take.", json_schema_extra=defaulted()
    )
    drain: Drain = Field(
        default_factory=Drain,
        description="What happens to requests in flight when a pod goes away.",
        json_schema_extra=defaulted(),
    )
