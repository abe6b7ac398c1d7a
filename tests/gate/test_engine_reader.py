from dataclasses import replace

import aiohttp
import pytest
from tests.gate.bench import Bench, free_port

from tailrace.engines import reader
from tailrace.engines.families import family
from tailrace.engines.gauges import Gauges
from tailrace.engines.reader import Engine

VLLM = family("vllm")


async def test_an_engine_is_read_at_its_own_port(bench: Bench) -> None:
    fake = await bench.engine(running=2, waiting=1)
    async with aiohttp.ClientSession() as session:
        assert await Engine(session, VLLM, "127.0.0.1", fake.port).gauges() == Gauges(2, 1)


async def test_the_familys_metrics_port_is_read_when_the_own_port_has_no_gauges(bench: Bench) -> None:
    fake = await bench.engine(running=2)
    apart = replace(VLLM, metrics_ports=(fake.port,))
    async with aiohttp.ClientSession() as session:
        assert await Engine(session, apart, "127.0.0.1", free_port()).gauges() == Gauges(2, 0)


async def test_an_error_page_is_no_reading_whatever_it_says(bench: Bench) -> None:
    fake = await bench.engine()
    fake.status = 503
    async with aiohttp.ClientSession() as session:
        assert await Engine(session, VLLM, "127.0.0.1", fake.port).gauges() is None


async def test_a_page_without_an_end_is_no_reading(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = await bench.engine(running=2)
    monkeypatch.setattr(reader, "MAX_BYTES", 10)
    async with aiohttp.ClientSession() as session:
        assert await Engine(session, VLLM, "127.0.0.1", fake.port).gauges() is None


async def test_a_family_without_gauges_is_not_asked(bench: Bench) -> None:
    fake = await bench.engine()
    async with aiohttp.ClientSession() as session:
        assert await Engine(session, family("openai"), "127.0.0.1", fake.port).gauges() is None
    assert fake.reads == 0
