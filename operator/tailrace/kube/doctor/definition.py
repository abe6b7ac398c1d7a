"""Is the resource definition there, and is it the one of this program? Pure."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any, Final

import tailrace
from tailrace.api import names
from tailrace.api.crd import custom_resource_definition
from tailrace.kube import objects
from tailrace.kube.client import Document
from tailrace.kube.doctor.findings import Finding, Findings, Severity, well
from tailrace.kube.doctor.seen import Seen, helm_release

APPLY: Final = "tailrace crds | kubectl apply --server-side --force-conflicts -f -"
TOLD: Final = 3
"""How many differences are told by name."""


def definition(seen: Seen) -> Findings:
    """Yield what is wrong with the CustomResourceDefinition."""
    if seen.crd is None:
        yield _finding(
            seen,
            Severity.ERROR,
            f"The definition {names.CRD_NAME} is not installed: no InferenceServer can be applied or seen.",
            "missing-definition",
        )
        return
    established = objects.condition(seen.crd, "Established") or {}
    if established.get("status") != "True":
        why = established.get("message") or "the API server has not looked at it yet"
        yield _finding(
            seen,
            Severity.ERROR,
            f"The definition {names.CRD_NAME} is not established: {why}",
            "definition-not-established",
        )
        return
    found = list(islice(differences(_essence(custom_resource_definition()), _essence(seen.crd), ""), TOLD + 1))
    if not found:
        yield well("crd", names.CRD_NAME, f"The definition is established and the one of tailrace {_version()}.")
        return
    told = ", ".join(found[:TOLD]) + (" and elsewhere" if len(found) > TOLD else "")
    yield _finding(
        seen,
        Severity.WARNING,
        f"The definition {names.CRD_NAME} is not the one of this program (tailrace {_version()}): it differs at "
        f"{told}. Fields that it does not know are dropped without a word.",
        "definition-differs",
    )


def _version() -> str:
    return tailrace.__version__


def _finding(seen: Seen, severity: Severity, message: str, anchor: str) -> Finding:
    return Finding(
        severity=severity,
        check="crd",
        about=names.CRD_NAME,
        message=message,
        advice="Apply the definition of the version that runs; InferenceServers are kept.",
        commands=_commands(seen),
        anchor=anchor,
    )


def _commands(seen: Seen) -> tuple[str, ...]:
    release = helm_release(seen.crd)
    return (f"helm upgrade {release[0]} charts/tailrace-crds -n {release[1]}",) if release else (APPLY,)


def _essence(crd: Document) -> Document:
    """Return what makes the resource: not its metadata, nor what the API server adds."""
    spec = crd.get("spec") or {}
    versions: dict[str, Document] = {each["name"]: each for each in spec.get("versions") or ()}
    version = versions.get(names.VERSION) or {}
    parts = ("served", "storage", "schema", "subresources", "additionalPrinterColumns")
    kept = {part: version.get(part) for part in parts}
    return {"scope": spec.get("scope"), "names": spec.get("names"), names.VERSION: kept}


def differences(ours: Any, theirs: Any, path: str) -> Iterator[str]:  # noqa: ANN401 - JSON
    """Yield the paths at which two JSON values differ; a list is compared as a whole when its length differs."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key in sorted({*ours, *theirs}):
            yield from differences(ours.get(key), theirs.get(key), f"{path}.{key}")
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for index, (one, other) in enumerate(zip(ours, theirs, strict=True)):
            yield from differences(one, other, f"{path}[{index}]")
    elif ours != theirs:
        yield _short(path)


def _short(path: str) -> str:
    """Name a field of the resource as its users write it."""
    plain = path.removeprefix(f".{names.VERSION}").removeprefix(".schema.openAPIV3Schema")
    return plain.replace(".properties.", ".").replace(".items", "[]").lstrip(".")
