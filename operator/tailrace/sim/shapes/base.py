"""What the shapes share: reading a request's fields, and the values that an answer is made of."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import orjson

from tailrace.sim.sequence import Sequence
from tailrace.sim.tokens import answer_text

DEFAULT_MAX_TOKENS = 16

Json = dict[str, Any]


class BadRequestError(ValueError):
    """The request is malformed; `param` names the field."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


@dataclass(frozen=True, slots=True)
class Ask:
    """A request as the engine needs it."""

    model: str
    prompt: bytes
    max_tokens: int
    limited: bool = False
    """The client named the length itself, so the answer ends for the reason `length`."""
    stream: bool = False
    include_usage: bool = False
    prompt_tokens: int = 0
    """0: to be counted from the prompt."""
    texts: tuple[bytes, ...] = ()
    """The inputs of an embedding, one by one."""
    base64: bool = False
    """Vectors as base64 of little-endian float32, as the official client asks for."""
    dimensions: int = 0

    @property
    def finish_reason(self) -> str:
        """Return why the answer ends, in OpenAI's words."""
        return "length" if self.limited else "stop"


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer under way: who asked what, and the sequence that tells how far it has come."""

    id: str
    created: int
    ask: Ask
    sequence: Sequence

    @property
    def text(self) -> str:
        """Return the text so far."""
        return answer_text(self.sequence.generated)

    def usage(self) -> Json:
        """Return the `usage` object of chat completions and completions."""
        sequence = self.sequence
        return {
            "prompt_tokens": sequence.prompt_tokens,
            "completion_tokens": sequence.generated,
            "total_tokens": sequence.held,
            "prompt_tokens_details": {"cached_tokens": sequence.cached_tokens},
        }


class Stream(Protocol):
    """The bytes of a streamed answer: `opening`, then each token in order, then `closing`."""

    def opening(self) -> bytes:
        """Return what is sent before the engine has done anything."""
        ...

    def token(self, index: int) -> bytes:
        """Return the events of token `index` (from 0)."""
        ...

    def closing(self) -> bytes:
        """Return everything after the last token."""
        ...


class Shape(Protocol):
    """One path of the API: how its requests are read and its answers written."""

    path: str
    id_prefix: str

    def read(self, fields: "Fields") -> Ask:
        """Return what is asked; raise BadRequestError naming the field."""
        ...

    def whole(self, answer: Answer) -> Json:
        """Return the body of a complete answer."""
        ...

    def stream(self, answer: Answer, /) -> Stream | None:
        """Return the writer of a streamed answer; None where the path has no streams."""
        ...


class Fields:
    """The top-level fields of a JSON body, read with a type each; null counts as absent."""

    def __init__(self, body: Mapping[str, object]) -> None:
        self._body = body

    @classmethod
    def parse(cls, raw: bytes) -> "Fields":
        """Read `raw`; raise BadRequestError when it is not a JSON object."""
        try:
            body = orjson.loads(raw)
        except orjson.JSONDecodeError as error:
            raise BadRequestError(f"the body is not valid JSON: {error}") from None
        if not isinstance(body, dict):
            raise BadRequestError("the body must be a JSON object")
        return cls(body)

    def as_mapping(self) -> Mapping[str, object]:
        """Return all fields."""
        return self._body

    def get(self, name: str) -> object:
        """Return the raw value, None when absent."""
        return self._body.get(name)

    def text(self, name: str) -> str:
        """Return a required string that is not empty."""
        value = self.get(name)
        if not isinstance(value, str) or not value:
            raise BadRequestError(f"`{name}` must be a string that is not empty", name)
        return value

    def flag(self, name: str) -> bool:
        """Return a boolean, false when absent."""
        value = self.get(name)
        if value is None or isinstance(value, bool):
            return bool(value)
        raise BadRequestError(f"`{name}` must be true or false", name)

    def count(self, *names: str) -> int | None:
        """Return the first of `names` that is present, a whole number of at least 1."""
        for name in names:
            value = self.get(name)
            if value is None:
                continue
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise BadRequestError(f"`{name}` must be a whole number of at least 1", name)
            return value
        return None

    def include_usage(self) -> bool:
        """Return `stream_options.include_usage`; options without a stream are refused as OpenAI does."""
        options = self.get("stream_options")
        if options is None:
            return False
        if not isinstance(options, dict):
            raise BadRequestError("`stream_options` must be an object", "stream_options")
        if not self.flag("stream"):
            raise BadRequestError("`stream_options` is only allowed with `stream: true`", "stream_options")
        return Fields(options).flag("include_usage")


def generation(fields: Fields, prompt: bytes, limit_names: tuple[str, ...], prompt_tokens: int = 0) -> Ask:
    """Return the Ask of a request for text; `limit_names` are the fields that can bound its length."""
    if fields.count("n") not in {None, 1}:
        raise BadRequestError("`n` must be 1: send a request for each choice", "n")
    limit = fields.count(*limit_names)
    return Ask(
        model=fields.text("model"),
        prompt=prompt,
        prompt_tokens=prompt_tokens,
        max_tokens=limit or DEFAULT_MAX_TOKENS,
        limited=limit is not None,
        stream=fields.flag("stream"),
        include_usage=fields.include_usage(),
    )


def content_text(content: object, param: str) -> bytes:
    """Return the text of a message's content: a string, null, or a list of parts."""
    if content is None:
        return b""
    if isinstance(content, str):
        return content.encode()
    if isinstance(content, list) and all(isinstance(part, dict) for part in content):
        return b"".join(_part_text(part) for part in content)
    raise BadRequestError(f"`{param}` must be a string or a list of objects", param)


def _part_text(part: Json) -> bytes:
    text = part.get("text")
    return text.encode() if isinstance(text, str) else orjson.dumps(part)


def turn(role: str, content: bytes) -> bytes:
    """Return one message of a conversation as the prompt has it; a longer conversation keeps the prefix."""
    return b"<|" + role.encode() + b"|>\n" + content + b"\n"


ANSWER_TURN = b"<|assistant|>\n"


def sse(payload: Json, event: str | None = None) -> bytes:
    """Return one server-sent event."""
    head = f"event: {event}\n".encode() if event else b""
    return head + b"data: " + orjson.dumps(payload) + b"\n\n"
