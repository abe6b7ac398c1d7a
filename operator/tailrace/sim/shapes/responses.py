"""`POST /v1/responses`."""

from tailrace.sim.shapes.base import (
    ANSWER_TURN,
    Answer,
    Ask,
    BadRequestError,
    Fields,
    Json,
    content_text,
    generation,
    sse,
    turn,
)
from tailrace.sim.tokens import token_text

LIMITS = ("max_output_tokens",)
AT_ITEM: Json = {"output_index": 0}
AT_PART: Json = {"output_index": 0, "content_index": 0}


class Responses:
    """Responses with one message of text; nothing is kept, so `previous_response_id` adds no context."""

    path = "/v1/responses"
    id_prefix = "resp_"

    def read(self, fields: Fields) -> Ask:
        """Return what is asked; raise BadRequestError naming the field."""
        instructions = fields.get("instructions")
        system = turn("system", content_text(instructions, "instructions")) if instructions else b""
        return generation(fields, system + _input(fields.get("input")) + ANSWER_TURN, LIMITS)

    def whole(self, answer: Answer) -> Json:
        """Return a finished `response`."""
        status = "incomplete" if answer.ask.limited else "completed"
        return _response(answer, status, [_item(answer, status)], _usage(answer))

    def stream(self, answer: Answer) -> "ResponseStream":
        """Return the writer of `response.*` events."""
        return ResponseStream(answer)


class ResponseStream:
    """The events of a response with one text part, numbered from 0; it has no `[DONE]`.

    As in vLLM the last event is `response.completed` even when a limit ended the answer; its status says so.
    """

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._number = -1

    def opening(self) -> bytes:
        """Return `response.created` and `response.in_progress`, which do not wait for the engine."""
        response = _response(self._answer, "in_progress", [], None)
        return b"".join(self._event(f"response.{name}", response=response) for name in ("created", "in_progress"))

    def token(self, index: int) -> bytes:
        """Return the delta of token `index`, after the item's and the part's beginning when it is the first."""
        start = self._begin() if index == 0 else b""
        return start + self._at_part("response.output_text.delta", delta=token_text(index), logprobs=[])

    def closing(self) -> bytes:
        """Return the events that end the part, the item and the response."""
        whole = Responses().whole(self._answer)
        (item,) = whole["output"]
        (part,) = item["content"]
        return (
            self._at_part("response.output_text.done", text=part["text"], logprobs=[])
            + self._at_part("response.content_part.done", part=part)
            + self._event("response.output_item.done", **AT_ITEM, item=item)
            + self._event("response.completed", response=whole)
        )

    def _begin(self) -> bytes:
        item = {**_item(self._answer, "in_progress"), "content": []}
        return self._event("response.output_item.added", **AT_ITEM, item=item) + self._at_part(
            "response.content_part.added", part=_part("")
        )

    def _at_part(self, name: str, **fields: object) -> bytes:
        return self._event(name, item_id=_item_id(self._answer), **AT_PART, **fields)

    def _event(self, name: str, **fields: object) -> bytes:
        self._number += 1
        return sse({"type": name, "sequence_number": self._number, **fields}, event=name)


def _input(value: object) -> bytes:
    if isinstance(value, str) and value:
        return turn("user", value.encode())
    if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        return b"".join(map(_input_item, value))
    raise BadRequestError("`input` must be a string or a list of items, and not empty", "input")


def _input_item(item: Json) -> bytes:
    role = item.get("role")
    if isinstance(role, str):
        return turn(role, content_text(item.get("content"), "input.content"))
    return turn(str(item.get("type", "item")), content_text([item], "input"))


def _response(answer: Answer, status: str, output: list[Json], usage: Json | None) -> Json:
    ask = answer.ask
    return {
        "id": answer.id,
        "object": "response",
        "created_at": answer.created,
        "status": status,
        "error": None,
        "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
        "instructions": None,
        "max_output_tokens": ask.max_tokens,
        "model": ask.model,
        "output": output,
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "temperature": 1.0,
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "truncation": "disabled",
        "metadata": {},
        "usage": usage,
    }


def _item_id(answer: Answer) -> str:
    return "msg_" + answer.id.removeprefix(Responses.id_prefix)


def _item(answer: Answer, status: str) -> Json:
    return {
        "id": _item_id(answer),
        "type": "message",
        "role": "assistant",
        "status": status,
        "content": [_part(answer.text)],
    }


def _part(text: str) -> Json:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _usage(answer: Answer) -> Json:
    sequence = answer.sequence
    return {
        "input_tokens": sequence.prompt_tokens,
        "input_tokens_details": {"cached_tokens": sequence.cached_tokens},
        "output_tokens": sequence.generated,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": sequence.held,
    }
