"""Every error a door answers itself: its status, its words and its OpenAI shape. Each says what to do next."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus

from aiohttp import web

from tailrace.core.exchange import Verdict
from tailrace.core.model import Refusal, RefusalCode
from tailrace.http.headers import DROPPED_REASON, SERVER

RETRY_AFTER = "Retry-After"


class DoorError(Exception):
    """An answer that is an error. ``kind`` and ``code`` are ``error.type`` and ``error.code``; ``param`` the field."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
        close: bool = False,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.param = param
        self.headers = dict(headers or {})
        self.close = close

    def body(self) -> bytes:
        """Return the error as JSON in OpenAI's shape."""
        kind = _TYPES.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        error = {"message": self.message, "type": kind, "param": self.param, "code": self.code}
        return json.dumps({"error": error}).encode()

    def response(self) -> web.Response:
        """Return the error as an answer."""
        answer = web.Response(
            status=self.status,
            body=self.body(),
            content_type="application/json",
            headers={"Server": SERVER, **self.headers},
        )
        if self.close:
            answer.force_close()
        return answer


_TYPES: dict[int, str] = {
    HTTPStatus.UNAUTHORIZED: "authentication_error",
    HTTPStatus.FORBIDDEN: "permission_error",
    HTTPStatus.NOT_FOUND: "not_found_error",
    HTTPStatus.TOO_MANY_REQUESTS: "rate_limit_error",
    HTTPStatus.SERVICE_UNAVAILABLE: "service_unavailable_error",
    HTTPStatus.GATEWAY_TIMEOUT: "timeout_error",
}


@dataclass(frozen=True, slots=True)
class _Shape:
    """How a refusal is answered: HTTP status, what to do next, the request field at fault."""

    status: HTTPStatus
    advice: str
    param: str | None = field(default=None)
    dropped: bool = True


_REFUSALS: dict[RefusalCode, _Shape] = {
    RefusalCode.UNKNOWN_MODEL: _Shape(
        HTTPStatus.NOT_FOUND, "GET /v1/models lists the names that are served", "model", dropped=False
    ),
    RefusalCode.AMBIGUOUS_MODEL: _Shape(HTTPStatus.BAD_REQUEST, "", "model", dropped=False),
    RefusalCode.NO_ENDPOINTS: _Shape(HTTPStatus.SERVICE_UNAVAILABLE, "try again after the seconds in Retry-After"),
    RefusalCode.NOT_QUALIFIED: _Shape(
        HTTPStatus.SERVICE_UNAVAILABLE, "shorten the request, or try again after the seconds in Retry-After"
    ),
    RefusalCode.SATURATED: _Shape(HTTPStatus.TOO_MANY_REQUESTS, "try again after the seconds in Retry-After"),
    RefusalCode.WAITED_OUT: _Shape(HTTPStatus.TOO_MANY_REQUESTS, "try again after the seconds in Retry-After"),
    RefusalCode.NOT_SYNCED: _Shape(
        HTTPStatus.SERVICE_UNAVAILABLE, "try again after the seconds in Retry-After; /readyz of the admin port says why"
    ),
    RefusalCode.SHUTTING_DOWN: _Shape(HTTPStatus.SERVICE_UNAVAILABLE, "connect again and repeat the request"),
}


def refused(refusal: Refusal) -> DoorError:
    """Return the answer to a refusal of the core."""
    shape = _REFUSALS[refusal.code]
    headers = {DROPPED_REASON: refusal.code.value} if shape.dropped else {}
    if refusal.retry_after is not None:
        headers[RETRY_AFTER] = str(refusal.retry_after)
    message = "; ".join(part for part in (refusal.message, shape.advice) if part)
    return DoorError(shape.status, refusal.code.value, message, param=shape.param, headers=headers)


_ADVICE: dict[int, str] = {
    HTTPStatus.BAD_GATEWAY: "repeat the request; if it fails again, look at the model server's log",
    HTTPStatus.SERVICE_UNAVAILABLE: "repeat the request",
    HTTPStatus.GATEWAY_TIMEOUT: "ask for less output, or raise the InferenceServer's spec.timeouts",
}


def failed(verdict: Verdict) -> DoorError:
    """Return the answer to a request that could not be carried through."""
    headers = {RETRY_AFTER: "1"} if verdict.status == HTTPStatus.SERVICE_UNAVAILABLE else {}
    return DoorError(verdict.status, verdict.code, f"{verdict.text}; {_ADVICE[verdict.status]}", headers=headers)


def bad_request(code: str, message: str, param: str | None = None) -> DoorError:
    """Return the answer to a request that the client must mend."""
    return DoorError(HTTPStatus.BAD_REQUEST, code, message, param=param)


def too_complex(message: str) -> DoorError:
    """Return the answer to a body that would take too long to read, whatever its size."""
    return DoorError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "body_too_complex", f"{message}; send less in one request")


def internal() -> DoorError:
    """Return the answer to a fault of our own: nothing of it is shown."""
    return DoorError(
        HTTPStatus.INTERNAL_SERVER_ERROR,
        "internal_error",
        "Tailrace failed on this request; repeat it, and report it with the x-request-id and the replica's log",
        close=True,
    )
