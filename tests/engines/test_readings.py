"""What each engine says of itself, from payloads as the engines answer them."""

import asyncio
from collections.abc import Coroutine
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailrace.core.model import Reading
from tailrace.engines.families import Series, family
from tailrace.engines.prometheus import MOST_SAMPLES, PIECE_BYTES
from tailrace.engines.readings import DOCUMENTS, NOTHING, merged, read_document, read_exposition

PAYLOADS = Path(__file__).parent / "payloads"


@pytest.mark.parametrize(
    ("payload", "engine", "expected"),
    [
        ("vllm", "vllm", Reading(12, 3, kv_usage=0.62, adapters=frozenset({"finance-lora"}))),
        ("vllm-old", "vllm", Reading(0, 0, kv_usage=0.0125)),
        ("sglang", "sglang", Reading(16, 2, kv_usage=0.28)),
        ("trtllm", "trtllm", Reading(4, 1, kv_usage=0.0625)),
        ("triton", "triton", Reading(4, 3, kv_usage=0.4875, gpu_usage=0.8, gpu_memory=0.75)),
        ("tgi", "tgi", Reading(6, 2)),
        ("llamacpp", "llamacpp", Reading(4, 46)),
    ],
)
async def test_each_family_tells_what_it_has(payload: str, engine: str, expected: Reading) -> None:
    assert await read_exposition((PAYLOADS / f"{payload}.txt").read_bytes(), family(engine)) == expected


async def test_the_labels_of_a_series_count_for_gpus_too() -> None:
    one_kind = replace(family("triton"), gpu_usage=Series("nv_gpu_utilization", {"kind": "h100"}))
    text = b'nv_gpu_utilization{gpu="0",kind="h100"} 0.75\nnv_gpu_utilization{gpu="1",kind="t4"} 0.25\n'
    assert (await read_exposition(text, one_kind)).gpu_usage == 0.75


def test_llama_cpp_tells_its_slots() -> None:
    assert read_document((PAYLOADS / "llamacpp-slots.json").read_bytes(), "slots") == Reading(running=3, slots=4)
    assert read_document(b'[{"id": 0, "state": 1}, {"id": 1, "state": 0}]', "slots") == Reading(running=1, slots=2)


def test_ollama_tells_the_memory_of_its_models() -> None:
    assert read_document((PAYLOADS / "ollama-ps.json").read_bytes(), "models") == Reading(gpu_bytes=5_333_539_264)
    assert read_document(b'{"models": []}', "models") == Reading(gpu_bytes=0)
    endless = b'{"models": [{"size_vram": 1' + b"0" * 400 + b"}]}"
    assert read_document(endless, "models") == NOTHING


@pytest.mark.parametrize("engine", ["openai", "ollama"])
async def test_a_family_without_gauges_tells_nothing_by_them(engine: str) -> None:
    assert await read_exposition((PAYLOADS / "vllm.txt").read_bytes(), family(engine)) == NOTHING


async def test_of_several_lists_of_adapters_the_newest_counts() -> None:
    told = [("old", "", "1.0"), ("a, b", "c", "3.0"), ("older", "", "0.5"), ("x", "", "NaN")]
    lines = [
        f'vllm:lora_requests_info{{running_lora_adapters="{running}",waiting_lora_adapters="{waiting}"}} {at}'
        for running, waiting, at in told
    ]
    reading = await read_exposition("\n".join(lines).encode(), family("vllm"))
    assert reading.adapters == frozenset({"a", "b", "c"})


@pytest.mark.parametrize("value", ["NaN", "-0.5", "+Inf", "", "x"])
async def test_a_share_that_is_none_is_unknown(value: str) -> None:
    text = (PAYLOADS / "triton.txt").read_text().replace('GPU-1b"} 0.9', f'GPU-1b"}} {value}')
    reading = await read_exposition(text.encode(), family("triton"))
    assert reading.gpu_usage is None
    assert reading.running == 4


async def test_an_engine_that_lost_a_gauge_is_unknown_and_not_idle() -> None:
    text = (PAYLOADS / "vllm.txt").read_text().replace("vllm:num_requests_waiting", "vllm:other")
    assert (await read_exposition(text.encode(), family("vllm"))).running is None


async def turns_of_others(reading: Coroutine[object, object, Reading]) -> tuple[int, Reading]:
    """Return how often another task had its turn while this was read."""
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    task = asyncio.create_task(other())
    told = await reading
    task.cancel()
    return turns, told


async def test_others_get_their_turn_while_a_long_page_is_read() -> None:
    page = (PAYLOADS / "vllm.txt").read_bytes()
    lines = b"# nothing\nvllm:other 3\n" * (10 * PIECE_BYTES // 22)
    turns, told = await turns_of_others(read_exposition(lines + page + lines, family("vllm")))
    assert told == await read_exposition(page, family("vllm"))
    assert turns >= 20


async def test_no_line_is_lost_between_the_parts_of_a_long_page() -> None:
    lines = b"".join(b'vllm:num_requests_running{engine="%d"} 1\n' % number for number in range(5000))
    assert len(lines) > 2 * PIECE_BYTES
    told = await read_exposition(lines + b"vllm:num_requests_waiting 0", family("vllm"))
    assert told.running == 5000


@pytest.mark.parametrize(
    "page",
    [
        b"vllm:num_requests_running 1\n" * (MOST_SAMPLES + 1),
        b'vllm:num_requests_running{name="' + b"x" * PIECE_BYTES + b'"} 1\n',
    ],
)
async def test_a_page_that_tells_too_much_is_an_error(page: bytes) -> None:
    with pytest.raises(ValueError, match=r"it holds (a line of )?more than"):
        await read_exposition(page, family("vllm"))


@pytest.mark.parametrize("kind", DOCUMENTS)
@pytest.mark.parametrize("text", [b"[" + b"{}," * 200_000 + b"1]", b"[" + b"1," * 500_000 + b"1]"])
def test_a_document_that_holds_too_much_is_an_error(kind: str, text: bytes) -> None:
    with pytest.raises(ValueError, match="it holds more than"):
        read_document(text, kind)


def test_pages_together_tell_what_any_of_them_tells_and_the_first_one_wins() -> None:
    assert merged([Reading(running=2, waiting=1), Reading(running=3, slots=4)]) == Reading(2, 1, slots=4)
    assert merged([]) == NOTHING


@pytest.mark.parametrize("kind", DOCUMENTS)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["models", "size_vram", "state", "x"]), inner),
    )
)
def test_no_document_is_an_error(kind: str, document: object) -> None:
    assert isinstance(DOCUMENTS[kind](document), Reading)


@pytest.mark.parametrize("kind", DOCUMENTS)
@pytest.mark.parametrize("text", [b"", b"{", b"\xff", b"[" * 100_000, b"[]", b"{}", b"null", b'{"models": [1]}'])
def test_garbage_tells_nothing(kind: str, text: bytes) -> None:
    assert read_document(text, kind) == NOTHING
