"""`POST /v1/chat/completions`."""

from tailrace.sim.shapes.base import (
    ANSWER_TURN,
    Answer,
    Ask,
    BadRequestError,
    Fields,
    Json,
    content_text,
    generation,
    turn,
)
from tailrace.sim.shapes.chunks import ChunkStream

LIMITS = ("max_completion_tokens", "max_tokens")
PIECE = (b'{"index":0,"delta":{"content":"', b'"},"logprobs":null,"finish_reason":null}')


class Chat:
    """Chat completions; the prompt is the conversation with a mark before each message."""

    path = "/v1/chat/completions"
    id_prefix = "chatcmpl-"

    def read(self, fields: Fields) -> Ask:
        """Return what is asked; raise BadRequestError naming the field."""
        return generation(fields, conversation(fields.get("messages"), "messages") + ANSWER_TURN, LIMITS)

    def whole(self, answer: Answer) -> Json:
        """Return a `chat.completion`."""
        message: Json = {"role": "assistant", "content": answer.text, "refusal": None, "tool_calls": []}
        return {
            "id": answer.id,
            "object": "chat.completion",
            "created": answer.created,
            "model": answer.ask.model,
            "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": answer.ask.finish_reason}],
            "usage": answer.usage(),
        }

    def stream(self, answer: Answer) -> ChunkStream:
        """Return the writer of `chat.completion.chunk` events."""
        return ChunkStream(
            answer,
            "chat.completion.chunk",
            PIECE,
            first=_choice({"role": "assistant", "content": ""}, None),
            final=_choice({}, answer.ask.finish_reason),
        )


def _choice(delta: Json, finish_reason: str | None) -> Json:
    return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}


def conversation(messages: object, param: str) -> bytes:
    """Return the prompt of a list of messages, each `{role, content}`."""
    if not isinstance(messages, list) or not messages:
        raise BadRequestError(f"`{param}` must be a list of at least one message", param)
    return b"".join(_message(message, f"{param}[{index}]") for index, message in enumerate(messages))


def _message(message: object, param: str) -> bytes:
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        raise BadRequestError(f"`{param}` must be an object with a `role`", param)
    return turn(message["role"], content_text(message.get("content"), f"{param}.content"))
