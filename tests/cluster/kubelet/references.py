"""The config maps and secrets that a pod refers to, read once before its containers start."""

import base64
from collections.abc import Iterator, Mapping
from typing import Any

from tests.cluster.kubelet.api import Api, ApiError
from tests.cluster.kubelet.objects import Object, containers, init_containers

PLURALS = {"configMap": "configmaps", "secret": "secrets"}


class MissingError(Exception):
    """A config map or secret that the pod needs does not exist (yet)."""


class References:
    """Data of config maps and secrets by kind and name; what does not exist is None."""

    def __init__(self, found: Mapping[tuple[str, str], dict[str, bytes] | None]) -> None:
        self._found = found

    def data(self, kind: str, name: str, *, optional: bool = False) -> dict[str, bytes]:
        """Return the entries of one object; MissingError when it does not exist and is not optional."""
        data = self._found.get((kind, name))
        if data is None and not optional:
            raise MissingError(f"{kind} {name!r} does not exist")
        return data or {}


async def fetch_references(api: Api, pod: Object) -> References:
    """Read everything that the pod's variables and volumes refer to."""
    namespace = pod["metadata"]["namespace"]
    return References({key: await _fetch(api, namespace, *key) for key in set(named_by(pod))})


def named_by(pod: Object) -> Iterator[tuple[str, str]]:
    """Yield (kind, name) of every config map and secret in the pod's spec."""
    for container in (*init_containers(pod), *containers(pod)):
        for source in container.get("envFrom") or ():
            yield from _references(source, "Ref")
        for variable in container.get("env") or ():
            yield from _references(variable.get("valueFrom") or {}, "KeyRef")
    for volume in pod["spec"].get("volumes") or ():
        for source in (volume, *((volume.get("projected") or {}).get("sources") or ())):
            yield from _references(source, "")


def _references(source: Mapping[str, Any], suffix: str) -> Iterator[tuple[str, str]]:
    for kind in PLURALS:
        reference = source.get(kind + suffix)
        if reference:
            yield kind, reference.get("name") or reference["secretName"]


async def _fetch(api: Api, namespace: str, kind: str, name: str) -> dict[str, bytes] | None:
    try:
        found = await api.get(f"/api/v1/namespaces/{namespace}/{PLURALS[kind]}/{name}")
    except ApiError as error:
        if error.code == 404:
            return None
        raise
    encoded = dict(found.get("binaryData") or {})
    plain = {key: value.encode() for key, value in (found.get("data") or {}).items()}
    if kind == "secret":
        encoded, plain = found.get("data") or {}, {}
    return plain | {key: base64.b64decode(value) for key, value in encoded.items()}
