"""A question about a request that its asker holds: the model and what else is known, in headers, query or body."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from aiohttp import web

from tailrace.core.model import Request, Traits
from tailrace.core.router import Router
from tailrace.http.ask import Reader
from tailrace.http.errors import bad_request
from tailrace.http.headers import SUBSET
from tailrace.settings import Settings


class Asker:
    """Makes a core's request of such a question.

    ``model``, ``tokens`` and ``namespace`` may come as header ``x-tailrace-NAME``, query or field of the body; without
    ``tokens`` they are estimated from the body. A gateway may name the endpoints that it allows.
    """

    def __init__(self, router: Router, settings: Settings) -> None:
        self._router = router
        self._reader = Reader(image_tokens=settings.image_tokens, output_tokens=settings.output_tokens)

    def asked(self, request: web.BaseRequest, document: Mapping[str, Any], *, leased: bool) -> Request:
        """Return the request that is asked about; DoorError 400 when it names no model, or tokens are no number."""

        def said(name: str) -> Any:  # noqa: ANN401 - JSON
            return request.headers.get(f"x-tailrace-{name}") or request.query.get(name) or document.get(name)

        model = said("model")
        if not isinstance(model, str) or not model:
            raise bad_request(
                "model_missing",
                "name the model: header x-tailrace-model, query ?model=, or the field 'model' of a JSON body",
                "model",
            )
        tokens, namespace = said("tokens"), said("namespace")
        estimate = self._reader.tokens(dict(document)) if tokens is None else _whole(tokens)
        namespace = namespace if isinstance(namespace, str) else None
        traits = self._traits(request, document, model, namespace)
        if traits is not None:
            traits = replace(traits, prompt_tokens=traits.prompt_tokens or estimate)
        return Request(model, estimate, namespace, leased=leased, traits=traits, subset=_subset(request))

    def _traits(
        self, request: web.BaseRequest, document: Mapping[str, Any], model: str, namespace: str | None
    ) -> Traits | None:
        needs = self._router.needs(model, namespace)
        return None if needs is None else self._reader.traits(dict(document), request.headers, needs, model)


def _subset(request: web.BaseRequest) -> frozenset[str] | None:
    """Return the addresses that the gateway allows; None without its header. An empty header allows none."""
    lists = request.headers.getall(SUBSET, None)
    if lists is None:
        return None
    return frozenset(address.strip() for each in lists for address in each.split(",") if address.strip())


def _whole(value: object) -> int:
    """Return the number of tokens; DoorError 400 when it is none."""
    text = str(value) if isinstance(value, int | str) else ""
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise bad_request("tokens_invalid", "'tokens' must be a whole number, 0 or more; or leave it out", "tokens")
    return max(1, int(text))
