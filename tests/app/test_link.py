import asyncio
import pickle
import struct

import pytest

from tailrace import link
from tailrace.core.model import (
    DrainOutcome,
    DrainReason,
    EndpointGone,
    EndpointSeen,
    EndpointSpec,
    EndpointState,
    Release,
    Snapshot,
)
from tailrace.link import (
    ChildHealth,
    Cordon,
    Cordoned,
    Desired,
    EndpointReport,
    GarbledError,
    Message,
    Observed,
    Review,
    Reviewed,
    encode,
    receive,
)

POD = EndpointSpec("uid-1", "shop/llama", "llama-0", "10.0.0.7:8000", capacity=4, ready=True)
RELEASE = Release("uid-1", DrainReason.ROLLOUT, DrainOutcome.DRAINED, 1.0, 2.0, 3, 3, 0)
MESSAGES: list[Message] = [
    Observed((EndpointSeen(POD), EndpointGone("uid-2"), Snapshot((), (POD,)))),
    ChildHealth(1.0, 2.0, leader=True, holder="replica-0", api_error="gone"),
    Review(7, "token", audience="tailrace", verb="update", resource="inferenceservers", namespace="shop"),
    Reviewed(7, authenticated=True, allowed=False, user="someone", pod_uid="uid-1"),
    Desired((RELEASE,), (EndpointReport("uid-1", "shop/llama", EndpointState.DRAINED, 0, gate_seen=True),)),
    Cordon("uid-1", draining=True, generation=3),
    Cordoned(Cordon("uid-1", draining=True, generation=3)),
]


def reader(*pieces: bytes, ended: bool = True) -> asyncio.StreamReader:
    """Return a pipe's end that holds these bytes."""
    stream = asyncio.StreamReader()
    for piece in pieces:
        stream.feed_data(piece)
    if ended:
        stream.feed_eof()
    return stream


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
async def test_a_message_arrives_as_it_was_sent(message: Message) -> None:
    assert await receive(reader(encode(message))) == message


async def test_messages_in_one_piece_arrive_one_by_one_in_order() -> None:
    stream = reader(b"".join(encode(message) for message in MESSAGES))
    assert [await receive(stream) for _ in MESSAGES] == MESSAGES
    assert await receive(stream) is None


async def test_a_message_that_comes_byte_by_byte_arrives() -> None:
    stream = reader(ended=False)
    waiting = asyncio.create_task(receive(stream))
    for byte in encode(MESSAGES[0]):
        stream.feed_data(bytes([byte]))
        await asyncio.sleep(0)
    assert await waiting == MESSAGES[0]


async def test_a_message_larger_than_the_streams_buffer_arrives() -> None:
    long = Review(1, "x" * 1_000_000)
    assert await receive(reader(encode(long))) == long


async def test_the_other_ends_leaving_is_told_as_none() -> None:
    assert await receive(reader()) is None


@pytest.mark.parametrize("cut", [1, 3, 4, 5, -1])
async def test_half_a_message_is_the_other_ends_leaving(cut: int) -> None:
    assert await receive(reader(encode(MESSAGES[0])[:cut])) is None


async def test_a_broken_pipe_is_the_other_ends_leaving() -> None:
    stream = asyncio.StreamReader()
    stream.set_exception(ConnectionResetError())
    assert await receive(stream) is None


async def test_an_oversized_message_is_refused_before_it_is_read() -> None:
    stream = reader(struct.pack(">I", link.MAX_MESSAGE_BYTES + 1), ended=False)
    with pytest.raises(GarbledError, match="268435457 bytes on the pipe; the limit is 268435456"):
        await asyncio.wait_for(receive(stream), 1)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"hello, world", "12 bytes on the pipe are no message"),
        (b"", "0 bytes on the pipe are no message"),
        (pickle.dumps(POD)[:-5], "are no message"),
        (b"cno.such.module\nThing\n.", "ModuleNotFoundError"),
        (pickle.dumps({"a": 1}), "a dict on the pipe is no message"),
        (pickle.dumps(POD), "a EndpointSpec on the pipe is no message"),
    ],
)
async def test_what_is_no_message_is_refused(body: bytes, said: str) -> None:
    with pytest.raises(GarbledError, match=said):
        await receive(reader(struct.pack(">I", len(body)) + body))


async def test_a_stray_print_between_messages_is_refused() -> None:
    stream = reader(encode(MESSAGES[1]), b"Warning: something is deprecated\n", encode(MESSAGES[1]))
    assert await receive(stream) == MESSAGES[1]
    with pytest.raises(GarbledError):
        await receive(stream)
