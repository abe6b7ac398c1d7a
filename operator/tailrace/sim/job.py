"""One request on its way through the server: the engine's sequence and the client's connection."""

import asyncio
from dataclasses import dataclass

from tailrace.sim.sequence import Sequence
from tailrace.sim.shapes.base import Answer, Ask, Stream


class Sink:
    """Writes body bytes of an answer whose head is sent, straight to the transport.

    A task per token would cost more than the token. The transport buffers for a slow reader, at most one answer.
    """

    def __init__(self, transport: asyncio.Transport, *, chunked: bool) -> None:
        self._transport = transport
        self._chunked = chunked

    def write(self, data: bytes) -> None:
        """Send `data`, framed as one HTTP chunk where the answer is chunked."""
        if self._transport.is_closing():
            return
        self._transport.write(b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data)


@dataclass(slots=True, eq=False)
class Job:
    """A request that was accepted; `done` is set when its last token is out."""

    request_id: str
    answer: Answer
    transport: asyncio.Transport | None
    started: float
    done: asyncio.Future[None]
    stream: Stream | None = None
    sink: Sink | None = None
    first_token: float | None = None
    tokens_sent: int = 0
    ended: bool = False

    @property
    def sequence(self) -> Sequence:
        """The engine's side."""
        return self.answer.sequence

    @property
    def ask(self) -> Ask:
        """What the client asked for."""
        return self.answer.ask

    def open(self, sink: Sink) -> None:
        """Begin the stream: the head is sent, tokens may follow."""
        self.sink = sink
        if self.stream is not None and (opening := self.stream.opening()):
            sink.write(opening)
        self.send(self.sequence.generated)
        if self.done.done():
            self.complete()

    def send(self, count: int) -> None:
        """Send the tokens up to `count` to a client that streams."""
        if self.stream is None or self.sink is None:
            return
        for index in range(self.tokens_sent, count):
            self.sink.write(self.stream.token(index))
        self.tokens_sent = count

    def complete(self) -> None:
        """Send what follows the last token and wake the handler."""
        if self.stream is not None and self.sink is not None:
            self.sink.write(self.stream.closing())
        if not self.done.done():
            self.done.set_result(None)
