"""One line for people about each InferenceServer, from what its status says. Pure."""

from __future__ import annotations

from typing import Any

from tailrace.api.inferenceserver import ConditionType
from tailrace.kube import objects
from tailrace.kube.client import Document
from tailrace.kube.doctor.servers import BY_CHOICE, EXPECTED, PATIENT


def row(server: Document) -> dict[str, Any]:
    """Return the figures of a server, and the first condition that is not as it should be, else Ready.

    A status that tells of an older spec is marked ``(stale)``, whatever it says.
    """
    status, spec = server.get("status") or {}, server.get("spec") or {}
    condition, message = _standing(server)
    stale = _stale(server)
    return {
        "namespace": objects.namespace(server),
        "name": objects.name(server),
        "models": ", ".join(model["name"] for model in spec.get("models", ())),
        "ready": status.get("ready", "?"),
        "in-flight": status.get("inFlight", 0),
        "draining": status.get("drainingReplicas", 0),
        "quality": status.get("quality", ""),
        "condition": f"{condition}(stale)" if stale else condition,
        "message": f"{stale}; {message}" if stale else message,
    }


def _standing(server: Document) -> tuple[str, str]:
    told = (server.get("status") or {}).get("conditions") or ()
    wrong = (condition for condition in told if not _as_expected(condition))
    shown = next(wrong, None) or objects.condition(server, ConditionType.READY)
    if shown is None:
        return "Unknown", "no operator has looked at it yet"
    reason, message = shown.get("reason", ""), shown.get("message", "")
    return f"{shown.get('type')}={shown.get('status')}", f"{reason}: {message}" if message else str(reason)


def _as_expected(condition: Document) -> bool:
    as_wanted = condition.get("status") == EXPECTED.get(str(condition.get("type")), "False")
    return as_wanted or condition.get("reason") in PATIENT | BY_CHOICE


def _stale(server: Document) -> str:
    """Return how far the status is behind the spec; empty when it is not, or when there is none."""
    seen, wanted = (server.get("status") or {}).get("observedGeneration"), objects.meta(server).get("generation")
    if seen is None or wanted is None or int(seen) >= int(wanted):
        return ""
    return f"status of generation {seen}, the spec is at {wanted}"
