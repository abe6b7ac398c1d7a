"""Every setting of an installation in one typed place, read from the environment (prefix ``TAILRACE_``) or flags."""

from __future__ import annotations

import socket
from typing import Annotated

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

Names = Annotated[tuple[str, ...], NoDecode]
"""A list that the environment gives separated by commas."""


class Settings(BaseSettings):
    """What an administrator may set. Every field says why its default is what it is. Durations are seconds."""

    model_config = SettingsConfigDict(env_prefix="TAILRACE_", frozen=True, extra="ignore")

    host: str = Field(
        "0.0.0.0",  # noqa: S104
        description="Address the three ports listen on; pods and ingresses come from anywhere.",
    )
    proxy_port: int = Field(8080, ge=0, le=65535, description="OpenAI proxy. 8080: above 1024, so no privilege needed.")
    routing_port: int = Field(8081, ge=0, le=65535, description="The endpoint that an ingress asks.")
    admin_port: int = Field(9090, ge=0, le=65535, description="Health, metrics, drains.")

    replica: str = Field(
        default_factory=socket.gethostname,
        description="Name of this replica: the pod's name in a cluster, which is the host name there.",
    )
    pod_uid: str = Field(
        "",
        description="Uid of the pod this replica is. Empty: it is no pod, and stays a member until it stops in order.",
    )
    node: str = Field(
        "", description="Node this replica runs on, for the strategy Locality. Empty: nothing counts as on the same."
    )
    zone: str = Field("", description="Zone this replica is in, for Locality. Empty: that of its node, where known.")
    advertise_address: str = Field(
        "",
        description="Address at which the other replicas reach this one's admin port. Empty: the host above, or the "
        "machine's own where that is every address.",
    )
    peer_token_file: str = Field(
        "/var/run/secrets/tailrace/token",
        description="Token of this replica's service account for the audience tailrace, shown to the other replicas.",
    )
    namespace: str = Field("tailrace-system", description="Where the operator itself runs: its Lease lives there.")
    watch_namespaces: Names = Field(
        (), description="Namespaces to serve. Empty: all, because one installation a cluster is the common case."
    )
    kubeconfig: str | None = Field(None, description="A kubeconfig file. None: the pod's own service account.")

    lease_name: str = Field("tailrace", description="Only the holder of this Lease writes to the cluster.")
    lease_seconds: float = Field(15.0, gt=0, description="Life of the Lease; the value of the Kubernetes components.")
    lease_renew_seconds: float = Field(5.0, gt=0, description="A third of the Lease: two renewals may fail.")
    resync_seconds: float = Field(
        30.0, gt=0, description="Full list and diff: bounds how long a broken watch is wrong."
    )
    status_seconds: float = Field(
        10.0, gt=0, description="Counters in status at most this often: etcd is no time series."
    )

    gate_image: str = Field("tailrace:dev", description="Image of the drain gate: the operator's own image.")
    gate_image_pull_policy: str = Field("IfNotPresent", description="Pull policy of the gate's image.")
    gate_routers: str = Field(
        "tailrace-admin.tailrace-system.svc:9090",
        description="host:port,... of the admin ports as pods reach them: the headless Service of the installation.",
    )

    webhook_certificates: str = Field(
        "",
        description="Folder with tls.crt and tls.key of the admission webhook. Empty: there is none, because the API "
        "server has to be told of it too: the chart does both.",
    )
    webhook_port: int = Field(9443, ge=0, le=65535, description="The admission webhook, for the API server; HTTPS.")

    gpu_memory_labels: Names = Field(
        (), description="More node labels with MiB per GPU, asked before the well-known ones."
    )

    max_body_bytes: int = Field(32 * 1024 * 1024, gt=0, description="Largest request body: a few images in base64.")
    body_budget_bytes: int = Field(
        512 * 1024 * 1024, gt=0, description="All buffered bodies together: half the memory limit of the chart."
    )
    body_seconds: float = Field(
        60.0, gt=0, description="How long a request body may take to arrive: 32 MiB at 5 Mbit/s."
    )
    image_tokens: int = Field(1000, ge=0, description="What an image counts in the estimate of a prompt: 765 to 1,500.")
    output_tokens: int = Field(
        512, ge=0, description="What an answer counts at most in the estimate: max_tokens is a limit, rarely reached."
    )
    open_reads: bool = Field(True, description="GET on the admin port needs no token inside the cluster.")
    settle_seconds: float = Field(
        0.0,
        ge=0,
        description="How long a stopping replica takes requests after it turned unready. 0 suits `tailrace serve`, "
        "which no Service stands before; Services hear late: manifests and chart set 5.",
    )
    shutdown_seconds: float = Field(
        600.0, ge=0, description="How long a stopping router lets its streams finish: the longest request by default."
    )

    @field_validator("watch_namespaces", "gpu_memory_labels", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value
