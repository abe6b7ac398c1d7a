"""An InferenceServer as the API server stores it, which may be of a newer definition than this program.

An upgrade brings the definition first, and with it fields and values that the running operator has never heard of: the
API server fills in their defaults on every read. What is not known is left out, so that the rest goes on to be served;
a field that nobody knows never gets this far, because the API server drops it or refuses the document.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any, Final

from pydantic import ValidationError

from tailrace.api.inferenceserver import InferenceServer
from tailrace.api.problems import path_of

_NEWER: Final = frozenset({"extra_forbidden", "enum"})
"""What pydantic says of a field, and of a value, that only a newer definition has."""

Place = tuple[str | int, ...]


def read_stored(body: Mapping[str, Any]) -> tuple[InferenceServer, tuple[str, ...]]:
    """Return the resource, and the paths of what this version does not know: those fields count as left out.

    ``ValidationError`` when something else is wrong, or when what is left out is required.
    """
    try:
        return InferenceServer.model_validate(body), ()
    except ValidationError as error:
        newer = _newer(error)
        if not newer:
            raise
        known = deepcopy(dict(body))
        for place in newer:
            _leave_out(known, place)
    return InferenceServer.model_validate(known), tuple(path_of(place) for place in newer)


def _newer(error: ValidationError) -> list[Place]:
    return [found["loc"] for found in error.errors(include_url=False) if found["type"] in _NEWER]


def _leave_out(body: Any, place: Place) -> None:  # noqa: ANN401 - JSON
    *parents, last = place
    for step in parents:
        body = body[step]
    del body[last]
