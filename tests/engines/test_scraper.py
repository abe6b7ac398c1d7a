"""The scraper against servers that answer, are late, switch pages off and go away."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random

import pytest
from aiohttp import web
from tests.app.waiting import eventually

from tailrace.core.model import EngineAddress, Reading
from tailrace.engines import scraper
from tailrace.engines.scraper import Scraper
from tailrace.engines.wire import MAX_BYTES

PAYLOADS = Path(__file__).parent / "payloads"
QUICK = 0.05
Answer = Callable[[web.BaseRequest], web.StreamResponse]


def text(payload: str, status: int = 200) -> Answer:
    return lambda _: web.Response(text=(PAYLOADS / payload).read_text(), status=status)


class Engine:
    """A server whose pages can be changed; notes what was asked, and over which connections."""

    def __init__(self, **pages: Answer) -> None:
        self.pages = {f"/{name}": answer for name, answer in pages.items()}
        self.asked: Counter[str] = Counter()
        self.connections: set[object] = set()
        self.delay = 0.0
        self.address = ""

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        self.asked[request.path] += 1
        self.connections.add(request.transport)
        await asyncio.sleep(self.delay)
        page = self.pages.get(request.path)
        return web.Response(status=404) if page is None else page(request)


@asynccontextmanager
async def serving(engine: Engine) -> AsyncIterator[Engine]:
    runner = web.ServerRunner(web.Server(engine.answer))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    engine.address = f"127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield engine
    finally:
        await runner.cleanup()


class World:
    """A scraper at work, and what it told."""

    def __init__(self) -> None:
        self.wanted: dict[str, EngineAddress] = {}
        self.told: dict[str, Reading] = {}
        self.times: Counter[str] = Counter()
        self.task: asyncio.Task[None] | None = None

    def want(self, uid: str, engine: Engine, name: str = "vllm") -> None:
        self.wanted[uid] = EngineAddress(engine.address, name, QUICK)

    def take(self, uid: str, reading: Reading) -> None:
        self.told[uid] = reading
        self.times[uid] += 1


@pytest.fixture
async def world(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    monkeypatch.setattr(scraper, "RECONCILE_SECONDS", 0.02)
    made = World()
    made.task = asyncio.create_task(Scraper(lambda: made.wanted, made.take, Random(1)).run())
    yield made
    made.task.cancel()
    await asyncio.gather(made.task, return_exceptions=True)


async def test_an_engine_is_read_again_and_again_over_one_connection(world: World) -> None:
    async with serving(Engine(metrics=text("vllm.txt"))) as engine:
        world.want("a", engine)
        await eventually(lambda: world.times["a"] >= 5)
        assert world.told["a"].running == 12
        assert len(engine.connections) == 1
        engine.pages["/metrics"] = text("vllm-old.txt")
        await eventually(lambda: world.told["a"].running == 0)


async def test_only_what_is_wanted_is_read(world: World) -> None:
    async with serving(Engine(metrics=text("vllm.txt"))) as left, serving(Engine(metrics=text("vllm.txt"))) as kept:
        world.want("left", left)
        world.want("kept", kept)
        await eventually(lambda: world.times["left"] > 0 < world.times["kept"])
        del world.wanted["left"]
        await asyncio.sleep(3 * QUICK)
        before, kept_before = left.asked["/metrics"], kept.asked["/metrics"]
        await eventually(lambda: kept.asked["/metrics"] > kept_before + 3)
        assert left.asked["/metrics"] == before


async def test_a_generic_server_is_left_in_peace(world: World) -> None:
    async with serving(Engine()) as generic, serving(Engine(metrics=text("vllm.txt"))) as other:
        world.want("generic", generic, "openai")
        world.want("other", other)
        await eventually(lambda: world.times["other"] >= 3)
        assert not generic.asked


async def test_an_endpoint_that_moved_is_read_where_it_is(world: World) -> None:
    async with serving(Engine(metrics=text("vllm.txt"))) as old, serving(Engine(metrics=text("vllm-old.txt"))) as new:
        world.want("a", old)
        await eventually(lambda: world.times["a"] > 0)
        world.want("a", new)
        await eventually(lambda: world.told["a"].running == 0)


async def test_llama_cpp_is_asked_for_its_slots_and_its_metrics(world: World) -> None:
    async with serving(Engine(metrics=text("llamacpp.txt"), slots=text("llamacpp-slots.json"))) as engine:
        world.want("a", engine, "llamacpp")
        await eventually(lambda: world.times["a"] > 0)
        assert world.told["a"] == Reading(4, 46, slots=4)


@pytest.mark.parametrize("status", [404, 501])
async def test_a_page_that_is_switched_off_is_not_asked_for_again_at_once(world: World, status: int) -> None:
    engine = Engine(metrics=text("llamacpp.txt", status=status), slots=text("llamacpp-slots.json"))
    async with serving(engine):
        world.want("a", engine, "llamacpp")
        await eventually(lambda: world.times["a"] >= 5)
        assert world.told["a"] == Reading(running=3, slots=4)
        assert engine.asked["/metrics"] == 1


def redirect(_: web.BaseRequest) -> web.Response:
    return web.Response(status=302, headers={"Location": "/elsewhere"})


def endless(_: web.BaseRequest) -> web.Response:
    return web.Response(body=b"vllm:num_requests_running 1\n" * (MAX_BYTES // 20))


BAD: dict[str, Answer] = {
    "an error": text("vllm.txt", status=500),
    "no exposition": lambda _: web.Response(text="<html>"),
    "a redirect": redirect,
    "too much": endless,
    "packed": lambda _: web.Response(body=b"\x1f\x8b\x08", headers={"Content-Encoding": "gzip"}),
}


@pytest.mark.parametrize("answer", BAD.values(), ids=BAD)
async def test_what_cannot_be_read_tells_nothing_and_is_tried_again(world: World, answer: Answer) -> None:
    async with serving(Engine(metrics=answer, elsewhere=text("vllm.txt"))) as engine:
        world.want("a", engine)
        await eventually(lambda: engine.asked["/metrics"] >= 2)
        assert not world.told
        assert not engine.asked["/elsewhere"]
        engine.pages["/metrics"] = text("vllm.txt")
        await eventually(lambda: world.times["a"] > 0)


async def test_a_page_that_cannot_be_read_is_told_once_and_again_after_it_could_be(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(Engine(metrics=endless)) as engine:
        world.want("a", engine)
        await eventually(lambda: engine.asked["/metrics"] >= 3)
        assert caplog.messages == [
            f"/metrics of the engine at {engine.address} cannot be read: it is longer than {MAX_BYTES} bytes"
        ]
        engine.pages["/metrics"] = text("vllm.txt")
        await eventually(lambda: world.times["a"] > 0)
        engine.pages["/metrics"] = endless
        await eventually(lambda: len(caplog.messages) == 2)


async def test_an_engine_that_is_late_keeps_no_other_one_waiting(world: World) -> None:
    async with serving(Engine(metrics=text("vllm.txt"))) as slow, serving(Engine(metrics=text("vllm.txt"))) as quick:
        slow.delay = 30 * QUICK
        world.want("slow", slow)
        world.want("quick", quick)
        await eventually(lambda: world.times["quick"] >= 10)
        assert "slow" not in world.told
        slow.delay = 0.0
        await eventually(lambda: world.times["slow"] > 0)


async def test_an_engine_that_nobody_hears_is_asked_less_often_and_found_again(world: World) -> None:
    engine = Engine(metrics=text("vllm.txt", status=500))
    async with serving(engine), serving(Engine(metrics=text("vllm.txt"))) as well:
        world.want("ill", engine)
        world.want("well", well)
        await eventually(lambda: world.times["well"] >= 15)
        assert 2 <= engine.asked["/metrics"] <= 7


async def test_a_core_that_chokes_on_a_reading_does_not_end_the_reading(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(Engine(metrics=text("vllm.txt"))) as engine:
        good = world.take
        calls = 0

        def bad_once(uid: str, reading: Reading) -> None:
            nonlocal calls
            calls += 1
            if calls == 1:
                raise RuntimeError("choked")
            good(uid, reading)

        world.take = bad_once  # type: ignore[method-assign]
        second = asyncio.create_task(Scraper(lambda: world.wanted, bad_once, Random(2)).run())
        world.want("a", engine)
        await eventually(lambda: world.times["a"] > 0 and calls > 1)
        second.cancel()
        await asyncio.gather(second, return_exceptions=True)
    assert "could not be taken in" in caplog.text


async def test_readings_are_spread_over_the_interval() -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        await asyncio.Event().wait()

    wanted = {f"e{n}": EngineAddress("127.0.0.1:1", "vllm", 10.0) for n in range(200)}
    task = asyncio.create_task(Scraper(lambda: wanted, lambda _, __: None, Random(3), sleep=sleep).run())
    await asyncio.sleep(0.05)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    first = [seconds for seconds in slept if seconds != scraper.RECONCILE_SECONDS]
    for part in range(5):
        assert 20 <= sum(2 * part <= seconds < 2 * part + 2 for seconds in first) <= 60


async def test_nothing_is_left_open_when_it_ends() -> None:
    before = asyncio.all_tasks()
    async with serving(Engine(metrics=text("vllm.txt"))) as engine:
        wanted = {"a": EngineAddress(engine.address, "vllm", QUICK)}
        told: list[str] = []
        task = asyncio.create_task(Scraper(lambda: wanted, lambda uid, _: told.append(uid), Random(4)).run())
        await eventually(lambda: told)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert asyncio.all_tasks() == before
