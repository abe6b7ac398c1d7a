"""`POST /v1/embeddings`."""

import base64
import struct
from collections.abc import Sequence
from hashlib import blake2b
from math import sqrt

from tailrace.sim.shapes.base import Answer, Ask, BadRequestError, Fields, Json
from tailrace.sim.shapes.completions import inputs
from tailrace.sim.tokens import count_tokens

DEFAULT_DIMENSIONS = 32
ENCODINGS = {None: False, "float": False, "base64": True}


class Embeddings:
    """Unit vectors that depend on nothing but the text; the request ends with its prefill."""

    path = "/v1/embeddings"
    id_prefix = "embd-"

    def read(self, fields: Fields) -> Ask:
        """Return what is asked; raise BadRequestError naming the field."""
        texts = tuple(inputs(fields.get("input"), "input"))
        encoding = fields.get("encoding_format")
        if not (encoding is None or isinstance(encoding, str)) or encoding not in ENCODINGS:
            raise BadRequestError("`encoding_format` must be float or base64", "encoding_format")
        return Ask(
            model=fields.text("model"),
            prompt=b"".join(texts),
            prompt_tokens=sum(map(count_tokens, texts)),
            max_tokens=0,
            texts=texts,
            base64=ENCODINGS[encoding],
            dimensions=fields.count("dimensions") or DEFAULT_DIMENSIONS,
        )

    def whole(self, answer: Answer) -> Json:
        """Return a `list` of embeddings, one for each input."""
        ask = answer.ask
        tokens = answer.sequence.prompt_tokens
        return {
            "id": answer.id,
            "object": "list",
            "created": answer.created,
            "model": ask.model,
            "data": [
                {"object": "embedding", "index": index, "embedding": _encoded(vector(text, ask.dimensions), ask)}
                for index, text in enumerate(ask.texts)
            ],
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        }

    def stream(self, _answer: Answer, /) -> None:
        """Return nothing: embeddings have no streams."""


def vector(text: bytes, dimensions: int) -> list[float]:
    """Return the unit vector of `text`: equal texts give equal vectors, in every process."""
    raw = [_component(text, index) for index in range(dimensions)]
    length = sqrt(sum(value * value for value in raw)) or 1.0
    return [value / length for value in raw]


def _component(text: bytes, index: int) -> float:
    digest = blake2b(text, digest_size=4, salt=index.to_bytes(8)).digest()
    return int.from_bytes(digest) / 2**31 - 1


def _encoded(values: Sequence[float], ask: Ask) -> list[float] | str:
    if not ask.base64:
        return list(values)
    return base64.b64encode(struct.pack(f"<{len(values)}f", *values)).decode()
