"""`status` of an InferenceServer: what the operator has seen. Conditions are written at once, counters now and then."""

from enum import StrEnum

from pydantic import AwareDatetime, Field

from tailrace.api.base import Count, Part, Text, Word, keyed_by

MAX_ENDPOINTS = 100
MAX_DRAINS = 10


class ConditionType(StrEnum):
    """The conditions of an InferenceServer that it always carries."""

    READY = "Ready"
    PROGRESSING = "Progressing"
    DEGRADED = "Degraded"
    DRAIN_PROTECTED = "DrainProtected"


class ConditionStatus(StrEnum):
    """Whether a condition holds."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class Condition(Part):
    """One thing that is true, false or not known about the server."""

    type: Word = Field(
        min_length=1,
        description="What is told: Ready (an endpoint takes requests), Progressing (a rollout is under way), Degraded "
        "(something needs a person), DrainProtected (no request is cut when a pod goes away).",
    )
    status: ConditionStatus = Field(description="True, False or Unknown.")
    observed_generation: Count | None = Field(
        default=None, description="The metadata.generation that the condition was computed from."
    )
    last_transition_time: AwareDatetime = Field(description="When status last changed.")
    reason: Word = Field(
        min_length=1,
        pattern="^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$",
        description="The cause in one word, for programs.",
    )
    message: Text = Field(default="", description="The cause in a sentence, and what to do about it.")


class EndpointStatus(Part):
    """One endpoint as the replica that writes the status sees it."""

    pod: Word | None = Field(default=None, description="Name of the pod; none for a fixed address.")
    address: Word = Field(description="host:port to which requests are sent.")
    node: Word | None = Field(default=None, description="Node that the pod runs on.")
    gpu_memory_gb: Count | None = Field(
        default=None, description="GPU memory in GB. Missing: not known, reason says why; it gets no long prompts."
    )
    state: Word = Field(description="Where the endpoint is in its life, such as Ready or Draining.")
    in_flight: Count = Field(default=0, description="Requests that it is answering.")
    capacity: Count = Field(default=0, description="Requests that it takes at once.")
    reason: Text = Field(default="", description="Why it is in this state, or why its GPU memory is not known.")


class DrainRecord(Part):
    """How one drain ended."""

    pod: Word = Field(description="Name of the pod that was drained.")
    started_at: AwareDatetime = Field(description="When the drain began.")
    in_flight_at_start: Count = Field(default=0, description="Requests in flight when it began.")
    finished: Count = Field(default=0, description="Requests that finished before the deadline.")
    lost: Count = Field(default=0, description="Requests that did not.")
    seconds: float = Field(default=0.0, ge=0, le=1e9, description="Seconds from the begin to the release of the pod.")
    reason: Word = Field(description="Why the pod went away: rollout, scale-down, eviction, delete or manual.")


class Status(Part):
    """What the operator has seen."""

    observed_generation: Count | None = Field(
        default=None, description="The metadata.generation that this status describes."
    )
    conditions: tuple[Condition, ...] = Field(
        default=(),
        max_length=32,
        description="Ready, Progressing, Degraded, DrainProtected, and others while there is something to say.",
        json_schema_extra=keyed_by("type"),
    )
    replicas: Count = Field(default=0, description="Endpoints that exist, draining ones not counted.")
    ready_replicas: Count = Field(default=0, description="Endpoints that take requests.")
    draining_replicas: Count = Field(
        default=0, description="Endpoints that finish their requests before they go. A rollout is over at 0."
    )
    ready: Word | None = Field(default=None, description="readyReplicas of replicas as people read it: 2/3.")
    in_flight: Count = Field(default=0, description="Requests in flight on all endpoints.")
    capacity: Count = Field(default=0, description="Requests that the ready endpoints take at once.")
    quality: Word | None = Field(
        default=None,
        description="How evenly its endpoints are used by load and latency: Excellent, Good, Fair or Poor, the worst "
        "of its pools, by the requests of one router. Missing while too little goes on to tell.",
    )
    selector: str | None = Field(
        default=None, max_length=4096, description="Label selector of the pods as text, for the scale subresource."
    )
    endpoints: tuple[EndpointStatus, ...] = Field(
        default=(), max_length=MAX_ENDPOINTS, description="The endpoints, at most 100 of them."
    )
    drains: tuple[DrainRecord, ...] = Field(
        default=(), max_length=MAX_DRAINS, description="The last ten drains, the newest first."
    )
