"""Feels a door's pulse: a question every 10 ms, and how long each had to wait for its answer.

In a process of its own, so that what else the benchmark does keeps no answer waiting.
"""

from __future__ import annotations

import http.client
import json
import multiprocessing
import time
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

PERIOD_SECONDS = 0.01
TIMEOUT_SECONDS = 60.0

Ask = Callable[[http.client.HTTPConnection], None]


def livez(connection: http.client.HTTPConnection) -> None:
    """Ask for as little as there is: what it waits for is the event loop."""
    _answer(connection, "GET", "/livez")


def route(model: str) -> Ask:
    """Ask where a request for the model would go, and end it at once. A refusal is an answer too."""
    return partial(_route, model)


def _route(model: str, connection: http.client.HTTPConnection) -> None:
    status, body = _answer(connection, "POST", f"/route?model={model}&tokens=100")
    if status == http.HTTPStatus.OK:
        _answer(connection, "POST", f"/complete/{json.loads(body)['request']}")


class Pulse:
    """A context manager: asks from when somebody answers at the URL."""

    def __init__(self, url: str, ask: Ask) -> None:
        processes = multiprocessing.get_context("spawn")
        self._pipe, theirs = processes.Pipe()
        self._process = processes.Process(target=_feel, args=(urlsplit(url).netloc, ask, theirs), daemon=True)
        self.waits: list[float] = []
        """Seconds, in the order of asking; there when the block has ended."""

    def __enter__(self) -> Self:
        self._process.start()
        self._pipe.recv()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pipe.send("enough")
        self.waits = self._pipe.recv()
        self._process.join()


def _feel(address: str, ask: Ask, pipe: Connection) -> None:
    """Ask until told that it is enough, then send how long each question waited."""
    connection = http.client.HTTPConnection(address, timeout=TIMEOUT_SECONDS)
    waits = []
    pipe.send("ready")
    while not pipe.poll():
        began = time.perf_counter()
        try:
            ask(connection)
        except OSError:
            connection.close()
        else:
            waits.append(time.perf_counter() - began)
        time.sleep(max(0.0, began + PERIOD_SECONDS - time.perf_counter()))
    pipe.send(waits)
    connection.close()


def _answer(connection: http.client.HTTPConnection, method: str, path: str) -> tuple[int, bytes]:
    connection.request(method, path)
    answer = connection.getresponse()
    return answer.status, answer.read()
