"""What was asked for and what was seen, as plain values that all checks share. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from tailrace.kube import objects
from tailrace.kube.client import Document
from tailrace.kube.doctor.rights import Question

HELM: Final = "Helm"
MANAGED_BY: Final = "app.kubernetes.io/managed-by"
KEY: Final = "tls.key"
RELEASE_NAME: Final = "meta.helm.sh/release-name"
RELEASE_NAMESPACE: Final = "meta.helm.sh/release-namespace"


class Part(StrEnum):
    """A kind of objects that is read; the value is its plural, for `kubectl auth can-i`."""

    CRD = "customresourcedefinitions"
    ACCOUNTS = "serviceaccounts"
    DEPLOYMENT = "deployments"
    SERVICES = "services"
    SLICES = "endpointslices"
    LEASE = "leases"
    SERVERS = "inferenceservers"
    PODS = "pods"
    NODES = "nodes"
    BUDGETS = "poddisruptionbudgets"
    WEBHOOKS = "mutatingwebhookconfigurations"
    SECRETS = "secrets"
    REVIEWS = "subjectaccessreviews"


@dataclass(frozen=True, slots=True)
class Look:
    """What to examine.

    The installation by its namespace and name, its account (``namespace/name``; None: as its Deployment says), the
    InferenceServers and pods of ``only`` these namespaces (none: of those it serves), and a model's name.
    """

    namespace: str = "tailrace-system"
    name: str = "tailrace"
    service_account: str | None = None
    only: tuple[str, ...] = ()
    model: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What was read, once. ``denied`` are parts that may not be read, with what the API server said.

    ``secret`` is the one with the certificate of the webhook, without its key; it and ``webhooks`` are read where the
    webhook is on.
    """

    look: Look
    now: float
    version: Document = field(default_factory=dict)
    crd: Document | None = None
    account: Document | None = None
    deployment: Document | None = None
    services: Mapping[str, Document] = field(default_factory=dict)
    slices: Sequence[Document] = ()
    lease: Document | None = None
    servers: Sequence[Document] = ()
    pods: Sequence[Document] = ()
    nodes: Mapping[str, Document] = field(default_factory=dict)
    budgets: Sequence[Document] = ()
    webhooks: Sequence[Document] = ()
    secret: Document | None = None
    may: Mapping[Question, bool] = field(default_factory=dict)
    denied: Mapping[Part, str] = field(default_factory=dict)

    @property
    def home(self) -> str:
        """The installation as ``namespace/name``."""
        return f"{self.look.namespace}/{self.look.name}"

    def setting(self, name: str) -> str | None:
        """Return a setting of the installation, see ``setting``."""
        return setting(self.deployment, name)

    def admin_address(self) -> str:
        """Return where gates should call: the headless Service of the installation."""
        return f"{self.look.name}-admin.{self.look.namespace}.svc:9090"

    def addresses(self, service: str) -> int:
        """Return to how many addresses that are ready a Service of the installation leads."""
        mine = [one for one in self.slices if objects.labels(one).get("kubernetes.io/service-name") == service]
        ends = [end for one in mine for end in one.get("endpoints") or ()]
        return sum(len(end.get("addresses") or ()) for end in ends if _is_ready(end))

    def watched(self) -> tuple[str, ...]:
        """Return the namespaces that are looked at; none means all."""
        return self.look.only or watched(self.deployment)

    def server(self, key: str) -> Document | None:
        """Return an InferenceServer by ``namespace/name``."""
        return next((each for each in self.servers if objects.key(each) == key), None)

    def pods_of(self, key: str) -> list[Document]:
        """Return the pods with the label of an InferenceServer."""
        return [pod for pod in self.pods if objects.server_key(pod) == key]


def setting(deployment: Document | None, name: str) -> str | None:
    """Return ``TAILRACE_<name>`` as the Deployment sets it; None when it does not, or takes it from elsewhere."""
    for container in _pod_spec(deployment).get("containers") or ():
        for variable in container.get("env") or ():
            if variable.get("name") == f"TAILRACE_{name}" and "value" in variable:
                return str(variable["value"]).replace("$(TAILRACE_NAMESPACE)", objects.namespace(deployment or {}))
    return None


def watched(deployment: Document | None) -> tuple[str, ...]:
    """Return the namespaces that the installation serves; none means all."""
    text = setting(deployment, "WATCH_NAMESPACES") or ""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def account_of(look: Look, deployment: Document | None) -> str:
    """Return the installation's service account as ``namespace/name``."""
    if look.service_account is not None:
        home, _, name = look.service_account.rpartition("/")
        return f"{home or look.namespace}/{name}"
    return f"{look.namespace}/{_pod_spec(deployment).get('serviceAccountName') or look.name}"


def lease_name(look: Look, deployment: Document | None) -> str:
    """Return the name of the Lease."""
    return setting(deployment, "LEASE_NAME") or look.name


def helm_release(document: Document | None) -> tuple[str, str] | None:
    """Return (name, namespace) of the Helm release that an object belongs to, None when Helm did not make it."""
    if document is None or objects.labels(document).get(MANAGED_BY) != HELM:
        return None
    noted = objects.annotations(document)
    return noted.get(RELEASE_NAME, ""), noted.get(RELEASE_NAMESPACE, "")


def webhook_secret(deployment: Document | None) -> str | None:
    """Return the name of the Secret with the webhook's certificate; None where it is off, or comes from elsewhere."""
    folder = setting(deployment, "WEBHOOK_CERTIFICATES")
    mounts = [
        mount for each in _pod_spec(deployment).get("containers") or () for mount in each.get("volumeMounts") or ()
    ]
    volumes = {mount.get("name") for mount in mounts if folder and mount.get("mountPath") == folder}
    secrets = [
        volume.get("secret") for volume in _pod_spec(deployment).get("volumes") or () if volume.get("name") in volumes
    ]
    return next((str(secret["secretName"]) for secret in secrets if secret), None)


def _is_ready(end: Document) -> bool:
    return (end.get("conditions") or {}).get("ready") is not False


def _pod_spec(deployment: Document | None) -> Document:
    found: Document = (((deployment or {}).get("spec") or {}).get("template") or {}).get("spec") or {}
    return found
