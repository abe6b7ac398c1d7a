"""`POST /v1/completions`."""

from tailrace.sim.shapes.base import Answer, Ask, BadRequestError, Fields, Json, generation
from tailrace.sim.shapes.chunks import ChunkStream
from tailrace.sim.tokens import BYTES_PER_TOKEN

LIMITS = ("max_tokens",)
PIECE = (b'{"index":0,"text":"', b'","logprobs":null,"finish_reason":null}')


class Completions:
    """Completions of one prompt, as text or as token ids."""

    path = "/v1/completions"
    id_prefix = "cmpl-"

    def read(self, fields: Fields) -> Ask:
        """Return what is asked; raise BadRequestError naming the field."""
        prompts = inputs(fields.get("prompt"), "prompt")
        if len(prompts) > 1:
            raise BadRequestError("`prompt` must be one prompt: send a request for each", "prompt")
        return generation(fields, prompts[0], LIMITS)

    def whole(self, answer: Answer) -> Json:
        """Return a `text_completion`."""
        return {
            "id": answer.id,
            "object": "text_completion",
            "created": answer.created,
            "model": answer.ask.model,
            "choices": [_choice(answer.text, answer.ask.finish_reason)],
            "usage": answer.usage(),
        }

    def stream(self, answer: Answer) -> ChunkStream:
        """Return the writer of `text_completion` events."""
        final = _choice("", answer.ask.finish_reason)
        return ChunkStream(answer, "text_completion", PIECE, first=None, final=final)


def _choice(text: str, finish_reason: str) -> Json:
    return {"index": 0, "text": text, "logprobs": None, "finish_reason": finish_reason}


def inputs(value: object, param: str) -> list[bytes]:
    """Return the inputs of a field that takes a string, a list of strings, token ids, or lists of token ids.

    A token id becomes four bytes, so that its prompt counts as many tokens as it has ids.
    """
    if isinstance(value, str):
        return [value.encode()]
    if isinstance(value, list) and value:
        if _are_ids(value):
            return [_ids_text(value, param)]
        return [_one_input(item, f"{param}[{index}]") for index, item in enumerate(value)]
    raise BadRequestError(f"`{param}` must be a string, a list of strings or token ids", param)


def _one_input(item: object, param: str) -> bytes:
    if isinstance(item, str):
        return item.encode()
    if isinstance(item, list) and item and _are_ids(item):
        return _ids_text(item, param)
    raise BadRequestError(f"`{param}` must be a string or a list of token ids", param)


def _are_ids(items: list[object]) -> bool:
    return all(type(item) is int for item in items)


def _ids_text(ids: list[int], param: str) -> bytes:
    try:
        return b"".join(token.to_bytes(BYTES_PER_TOKEN) for token in ids)
    except OverflowError:
        raise BadRequestError(f"`{param}` holds a token id outside 0..{2**32 - 1}", param) from None
