"""`spec.template`: a PodTemplateSpec, of which only what the rules read is declared here."""

from typing import Annotated, Literal

from pydantic import Field

from tailrace.api.base import OpenPart, Port, keyed_by

ContainerName = Annotated[str, Field(max_length=63, pattern="^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")]


class ContainerPort(OpenPart):
    """A port that a container says it listens on."""

    container_port: Port = Field(description="Number of the port, 1 to 65535.")


class Container(OpenPart):
    """A container of the pod."""

    name: ContainerName = Field(description="Name of the container, unique in the pod.")
    ports: tuple[ContainerPort, ...] = Field(
        default=(), max_length=64, description="Ports that the container says it listens on."
    )


class PodSpec(OpenPart):
    """What the pod runs."""

    containers: tuple[Container, ...] = Field(
        min_length=1,
        max_length=32,
        description="Containers of the pod; at least one, and one of them serves the models on spec.port.",
        json_schema_extra=keyed_by("name"),
    )
    init_containers: tuple[Container, ...] = Field(
        default=(),
        max_length=32,
        description="Containers that run first, and native sidecars. Tailrace adds its drain gate here.",
        json_schema_extra=keyed_by("name"),
    )
    restart_policy: Literal["Always"] = Field(
        default="Always", description="Always: a Deployment knows no other policy."
    )


class PodMetadata(OpenPart):
    """Labels and annotations of the pods."""

    labels: dict[str, Annotated[str, Field(max_length=63)]] = Field(
        default_factory=dict, max_length=64, description="Labels of the pods; Tailrace adds its own."
    )


class PodTemplate(OpenPart):
    """A PodTemplateSpec. Fields that are not declared are kept and checked by a dry run of the Deployment."""

    metadata: PodMetadata = Field(default_factory=PodMetadata, description="Labels and annotations of the pods.")
    spec: PodSpec = Field(description="The pod, as in a Deployment.")
