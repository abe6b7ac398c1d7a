"""The stream that chat completions and completions share: chunks of one object, then `[DONE]`."""

import orjson

from tailrace.sim.shapes.base import Answer, Json, sse
from tailrace.sim.tokens import token_text

DONE = b"data: [DONE]\n\n"


class ChunkStream:
    """Chunks named `kind`; `piece` is the choice that carries a token, written as the bytes around its text.

    Everything but the token is encoded once: a stream costs little per token.
    """

    def __init__(
        self, answer: Answer, kind: str, piece: tuple[bytes, bytes], *, first: Json | None, final: Json
    ) -> None:
        self._answer = answer
        self._kind = kind
        self._first = self._chunk([first]) if first else b""
        self._final = final
        self._head, self._tail = self._around(piece)

    def opening(self) -> bytes:
        """Return nothing: vLLM says nothing before its first token."""
        return b""

    def token(self, index: int) -> bytes:
        """Return the chunk of token `index`, after the role when it is the first."""
        chunk = self._head + token_text(index).encode() + self._tail
        return self._first + chunk if index == 0 else chunk

    def closing(self) -> bytes:
        """Return the chunk with the finish reason, the usage if it was asked for, and `[DONE]`."""
        return self._chunk([self._final]) + self._usage() + DONE

    def _chunk(self, choices: list[Json]) -> bytes:
        return sse({**self._meta(), "choices": choices, **self._null_usage()})

    def _usage(self) -> bytes:
        if not self._answer.ask.include_usage:
            return b""
        return sse({**self._meta(), "choices": [], "usage": self._answer.usage()})

    def _meta(self) -> Json:
        answer = self._answer
        return {"id": answer.id, "object": self._kind, "created": answer.created, "model": answer.ask.model}

    def _null_usage(self) -> Json:
        return {"usage": None} if self._answer.ask.include_usage else {}

    def _around(self, piece: tuple[bytes, bytes]) -> tuple[bytes, bytes]:
        before, after = piece
        head = b"data: " + orjson.dumps(self._meta())[:-1] + b',"choices":[' + before
        usage = b',"usage":null' if self._answer.ask.include_usage else b""
        return head, after + b"]" + usage + b"}\n\n"
