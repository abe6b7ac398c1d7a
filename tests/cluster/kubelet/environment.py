"""A container's environment variables, from its spec and from what it refers to."""

from collections.abc import Mapping
from typing import Any

from tests.cluster.kubelet.expand import expand
from tests.cluster.kubelet.objects import Object
from tests.cluster.kubelet.references import References


class UnsupportedError(Exception):
    """A pod's spec asks for something that the stand-in kubelet does not play; the message says what."""


METADATA = {"metadata.name": "name", "metadata.namespace": "namespace", "metadata.uid": "uid"}
SPEC = {"spec.nodeName": "nodeName", "spec.serviceAccountName": "serviceAccountName"}


def field_value(pod: Object, path: str, addresses: Mapping[str, str]) -> str:
    """Return the value of a downward API field; `addresses` holds `status.podIP` and `status.hostIP`."""
    if path in METADATA:
        return str(pod["metadata"][METADATA[path]])
    if path in SPEC:
        return str(pod["spec"].get(SPEC[path], ""))
    if path.removesuffix("s") in addresses:
        return addresses[path.removesuffix("s")]
    for kind in ("labels", "annotations"):
        values: dict[str, str] = pod["metadata"].get(kind) or {}
        if path == f"metadata.{kind}":
            return "\n".join(f'{key}="{value}"' for key, value in sorted(values.items()))
        if path.startswith(f"metadata.{kind}['"):
            return values.get(path[len(f"metadata.{kind}['") : -2], "")
    raise UnsupportedError(f"fieldRef {path!r} is not known to the stand-in kubelet")


def build_env(
    pod: Object, container: Object, references: References, addresses: Mapping[str, str], base: Mapping[str, str]
) -> dict[str, str]:
    """Return the variables in the kubelet's order: `base`, envFrom, env; later ones may refer to earlier ones."""
    env = dict(base)
    for source in container.get("envFrom") or ():
        prefix = source.get("prefix", "")
        env |= {prefix + key: value for key, value in _all_values(source, references).items()}
    for variable in container.get("env") or ():
        value = _value(pod, variable, references, addresses, env)
        if value is not None:
            env[variable["name"]] = value
    return env


def _all_values(source: Mapping[str, Any], references: References) -> dict[str, str]:
    kind = "configMap" if "configMapRef" in source else "secret"
    reference = source[f"{kind}Ref"]
    data = references.data(kind, reference["name"], optional=reference.get("optional", False))
    return {key: value.decode() for key, value in data.items()}


def _value(
    pod: Object, variable: Mapping[str, Any], references: References, addresses: Mapping[str, str], env: dict[str, str]
) -> str | None:
    source = variable.get("valueFrom")
    if not source:
        return expand(str(variable.get("value", "")), env)
    if "fieldRef" in source:
        return field_value(pod, source["fieldRef"]["fieldPath"], addresses)
    for kind in ("configMap", "secret"):
        if f"{kind}KeyRef" in source:
            return _referred(kind, source[f"{kind}KeyRef"], references)
    raise UnsupportedError(f"env {variable['name']}: the stand-in kubelet does not know {', '.join(source)}")


def _referred(kind: str, reference: Mapping[str, Any], references: References) -> str | None:
    optional = reference.get("optional", False)
    data = references.data(kind, reference["name"], optional=optional)
    if reference["key"] in data:
        return data[reference["key"]].decode()
    if optional:
        return None
    raise UnsupportedError(f"{kind} {reference['name']} has no key {reference['key']!r}")
