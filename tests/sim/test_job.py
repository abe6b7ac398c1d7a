import asyncio

from tests.sim.wire import data_events

from tailrace.sim.job import Job, Sink
from tailrace.sim.sequence import Sequence
from tailrace.sim.shapes.base import Answer, Ask
from tailrace.sim.shapes.completions import Completions


class Wire(asyncio.Transport):
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.closing = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data

    def is_closing(self) -> bool:
        return self.closing


def streaming_job(max_tokens: int) -> Job:
    ask = Ask("llama", b"hello", max_tokens, stream=True)
    answer = Answer("cmpl-1", 0, ask, Sequence("r", ask.prompt, max_tokens))
    done = asyncio.get_running_loop().create_future()
    return Job("r", answer, None, 0.0, done, stream=Completions().stream(answer))


def texts(wire: Wire) -> list[str]:
    return [event["choices"][0]["text"] for event in data_events(wire.written.decode()) if event != "[DONE]"]


async def test_tokens_that_came_before_the_head_was_sent_follow_it() -> None:
    job, wire = streaming_job(3), Wire()
    job.sequence.generated = 2
    job.send(2)
    job.open(Sink(wire, chunked=False))
    assert (texts(wire), job.tokens_sent) == (["t0 ", "t1 "], 2)


async def test_an_answer_that_was_complete_before_its_head_was_sent_is_sent_whole() -> None:
    job, wire = streaming_job(2), Wire()
    job.sequence.generated = 2
    job.send(2)
    job.complete()
    job.open(Sink(wire, chunked=False))
    assert texts(wire) == ["t0 ", "t1 ", ""]
    assert wire.written.endswith(b"data: [DONE]\n\n")


def test_a_sink_frames_each_write_as_one_chunk_and_is_silent_once_its_client_left() -> None:
    wire = Wire()
    sink = Sink(wire, chunked=True)
    sink.write(b"x" * 26)
    wire.closing = True
    sink.write(b"late")
    assert wire.written == b"1a\r\n" + b"x" * 26 + b"\r\n"
