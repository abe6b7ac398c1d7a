"""Reading what a model server sends."""

import asyncio
import json
from collections.abc import Callable
from typing import Any


def chat(max_tokens: int | None = 5, content: object = "hello", **more: object) -> dict[str, object]:
    """Return the body of a chat completion request."""
    limit = {} if max_tokens is None else {"max_tokens": max_tokens}
    return {"model": "llama", "messages": [{"role": "user", "content": content}], **limit, **more}


def numbered(count: int) -> str:
    """Return the answer of `count` tokens, written independently of the server's code."""
    return "".join(f"t{index} " for index in range(count))


def data_events(text: str) -> list[Any]:
    """Return the JSON of each `data:` event; `[DONE]` stays a string."""
    frames = text.split("\n\n")
    assert frames.pop() == "", "a stream ends with a blank line"
    payloads = [frame.removeprefix("data: ") for frame in frames]
    return [payload if payload == "[DONE]" else json.loads(payload) for payload in payloads]


def metric(text: str, name: str) -> float:
    """Return the value of the one sample called `name`."""
    (line,) = [line for line in text.splitlines() if line.startswith(name + "{")]
    return float(line.rsplit(" ", 1)[1])


async def eventually(condition: Callable[[], object]) -> None:
    """Return when `condition` holds; fail after five seconds."""
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - what is waited for happens in another process or connection
            await asyncio.sleep(0.005)
