"""What a body asks for: the model, about how many tokens, a stream or not. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from tailrace import collector
from tailrace.core.model import Needs, Traits
from tailrace.http.errors import DoorError, bad_request, too_complex
from tailrace.http.estimate import estimate
from tailrace.http.traits import traits

LARGE_BYTES = 256 * 1024
"""Bodies up to here can't hold enough values to matter."""

MAX_BRACKETS = 500_000
MAX_COMMAS = 4_000_000
"""In text or not: a prompt of a million token numbers, or of ten megabytes of source code, has fewer of them. What is
parsed takes up to fifty times the bytes that it is written in, and the loop stands still meanwhile."""


@dataclass(frozen=True, slots=True)
class Ask:
    """What the pick and the timers need to know of a body."""

    model: str
    tokens: int
    stream: bool


class Reader:
    """Reads bodies of the OpenAI API. An image counts ``image_tokens``, an answer ``output_tokens`` at most."""

    def __init__(self, *, image_tokens: int, output_tokens: int) -> None:
        self._image_tokens = image_tokens
        self._output_tokens = output_tokens

    def read(self, document: dict[str, Any]) -> Ask:
        """Return what the document asks for; DoorError 400 when it says no model."""
        model = document.get("model")
        if not isinstance(model, str) or not model:
            raise bad_request(
                "model_missing" if model is None else "model_invalid",
                "the field 'model' must be the name of a model as a string; GET /v1/models lists the names",
                "model",
            )
        return Ask(model, self.tokens(document), document.get("stream") is True)

    def tokens(self, document: dict[str, Any]) -> int:
        """Return the estimated tokens of the request."""
        return estimate(document, image_tokens=self._image_tokens, output_tokens=self._output_tokens)

    def traits(self, document: dict[str, Any], headers: Mapping[str, str], needs: Needs, model: str) -> Traits:
        """Return what the strategy for the model needs besides."""
        image, output = self._image_tokens, self._output_tokens
        return traits(document, headers, needs, model=model, image_tokens=image, output_tokens=output)


def parse_object(body: bytes) -> dict[str, Any]:
    """Return the JSON object in ``body``; DoorError 400 when there is none, 413 when it holds too many values."""
    try:
        document = orjson.loads(body) if len(body) <= LARGE_BYTES else _parse_large(body)
    except orjson.JSONDecodeError as error:
        raise _malformed(error) from None
    if not isinstance(document, dict):
        raise bad_request("body_not_object", "the body must be a JSON object with the field 'model'")
    return document


def _parse_large(body: bytes) -> Any:  # noqa: ANN401 - JSON
    if body.count(b"{") + body.count(b"[") > MAX_BRACKETS or body.count(b",") > MAX_COMMAS:
        raise too_complex(f"the body holds more than {MAX_BRACKETS} objects and lists, or {MAX_COMMAS} values")
    with collector.paused():
        return orjson.loads(body)


def _malformed(error: orjson.JSONDecodeError) -> DoorError:
    return bad_request(
        "body_malformed", f"the body is not JSON: {error.msg} (line {error.lineno}, column {error.colno}); mend it"
    )
