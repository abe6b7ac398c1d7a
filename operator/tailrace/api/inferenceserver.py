"""The InferenceServer resource. Its parts are in `spec`, `template` and `status`; import them from here."""

from typing import Any, Literal

from pydantic import AwareDatetime, Field

from tailrace.api.base import SUBDOMAIN, Part
from tailrace.api.spec import (
    DisruptionBudget,
    Drain,
    Engine,
    FixedEndpoint,
    Gate,
    LabelOperator,
    LoadBalancing,
    Rollout,
    ScoreWeights,
    Selector,
    SelectorRequirement,
    ServedModel,
    Spec,
    Strategy,
    Timeouts,
)
from tailrace.api.status import (
    MAX_DRAINS,
    MAX_ENDPOINTS,
    Condition,
    ConditionStatus,
    ConditionType,
    DrainRecord,
    EndpointStatus,
    Status,
)
from tailrace.api.template import Container, ContainerPort, PodMetadata, PodSpec, PodTemplate

__all__ = [
    "MAX_DRAINS",
    "MAX_ENDPOINTS",
    "Condition",
    "ConditionStatus",
    "ConditionType",
    "Container",
    "ContainerPort",
    "DisruptionBudget",
    "Drain",
    "DrainRecord",
    "EndpointStatus",
    "Engine",
    "FixedEndpoint",
    "Gate",
    "InferenceServer",
    "LabelOperator",
    "LoadBalancing",
    "Metadata",
    "PodMetadata",
    "PodSpec",
    "PodTemplate",
    "Rollout",
    "ScoreWeights",
    "Selector",
    "SelectorRequirement",
    "ServedModel",
    "Spec",
    "Status",
    "Strategy",
    "Timeouts",
]


class Metadata(Part):
    """Kubernetes' own metadata, which the API server checks; `name` has one limit of ours."""

    name: str = Field(
        max_length=63,
        pattern=SUBDOMAIN,
        description="Name of the resource; at most 63 characters, because pods carry it as a label.",
    )
    generate_name: str | None = None
    namespace: str = "default"
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)
    finalizers: tuple[str, ...] = ()
    uid: str | None = None
    generation: int = 0
    resource_version: str | None = None
    creation_timestamp: AwareDatetime | None = None
    deletion_timestamp: AwareDatetime | None = None
    deletion_grace_period_seconds: int | None = None
    self_link: str | None = None
    owner_references: tuple[dict[str, Any], ...] = ()
    managed_fields: tuple[dict[str, Any], ...] = ()


class InferenceServer(Part):
    """Model servers that serve the same models: where they run, and how requests reach and leave them."""

    api_version: Literal["inference.tailrace.dev/v1alpha1"] = Field(
        description="Version of this representation: inference.tailrace.dev/v1alpha1."
    )
    kind: Literal["InferenceServer"] = Field(description="Kind of the resource: InferenceServer.")
    metadata: Metadata = Field(description="Name, namespace and labels.")
    spec: Spec = Field(description="What is asked for.")
    status: Status = Field(default_factory=Status, description="What the operator has seen.")
