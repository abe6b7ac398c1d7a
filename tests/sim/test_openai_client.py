from collections.abc import AsyncIterator

import pytest
from openai import AsyncOpenAI, BadRequestError, NotFoundError
from openai.types.responses import ResponseCompletedEvent, ResponseTextDeltaEvent
from tests.sim.conftest import Connect
from tests.sim.wire import numbered

HELLO = "hello"


@pytest.fixture
async def openai(connect: Connect) -> AsyncIterator[AsyncOpenAI]:
    client = await connect()
    async with AsyncOpenAI(base_url=str(client.make_url("/v1")), api_key="none", max_retries=0) as official:
        yield official


async def test_chat(openai: AsyncOpenAI) -> None:
    answer = await openai.chat.completions.create(
        model="llama", messages=[{"role": "user", "content": HELLO}], max_tokens=7
    )
    assert answer.choices[0].message.content == numbered(7)
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 7


async def test_chat_stream_with_usage(openai: AsyncOpenAI) -> None:
    stream = await openai.chat.completions.create(
        model="llama",
        messages=[{"role": "user", "content": HELLO}],
        max_tokens=7,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == numbered(7)
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 7


async def test_completions(openai: AsyncOpenAI) -> None:
    answer = await openai.completions.create(model="llama", prompt=HELLO, max_tokens=4)
    assert answer.choices[0].text == numbered(4)
    stream = await openai.completions.create(model="llama", prompt=HELLO, max_tokens=4, stream=True)
    assert "".join([chunk.choices[0].text async for chunk in stream]) == numbered(4)


async def test_responses(openai: AsyncOpenAI) -> None:
    answer = await openai.responses.create(model="llama", input=HELLO)
    assert (answer.output_text, answer.status) == (numbered(16), "completed")
    assert answer.usage is not None
    assert answer.usage.output_tokens == 16


async def test_a_limited_response_says_that_it_is_incomplete(openai: AsyncOpenAI) -> None:
    answer = await openai.responses.create(model="llama", input=HELLO, max_output_tokens=3)
    assert answer.status == "incomplete"
    assert answer.incomplete_details is not None
    assert answer.incomplete_details.reason == "max_output_tokens"


async def test_response_stream(openai: AsyncOpenAI) -> None:
    stream = await openai.responses.create(
        model="llama",
        instructions="be brief",
        input=[{"role": "user", "content": [{"type": "input_text", "text": HELLO}]}],
        stream=True,
    )
    events = [event async for event in stream]
    assert [event.type for event in events] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        *["response.output_text.delta"] * 16,
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    deltas = [event.delta for event in events if isinstance(event, ResponseTextDeltaEvent)]
    assert "".join(deltas) == numbered(16)
    last = events[-1]
    assert isinstance(last, ResponseCompletedEvent)
    assert last.response.output_text == numbered(16)


async def test_embeddings(openai: AsyncOpenAI) -> None:
    answer = await openai.embeddings.create(model="llama", input=[HELLO, "again"], dimensions=5)
    assert [len(item.embedding) for item in answer.data] == [5, 5]


async def test_models(openai: AsyncOpenAI) -> None:
    assert [model.id async for model in openai.models.list()] == ["llama", "alias", "finance-lora"]


async def test_errors_have_the_types_that_the_client_knows(openai: AsyncOpenAI) -> None:
    with pytest.raises(NotFoundError, match="gpt-9"):
        await openai.completions.create(model="gpt-9", prompt=HELLO)
    with pytest.raises(BadRequestError, match="max_tokens"):
        await openai.completions.create(model="llama", prompt=HELLO, max_tokens=-1)
