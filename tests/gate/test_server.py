import asyncio
import socket
import time
from dataclasses import replace

import aiohttp
import pytest
from tests.gate.bench import QUICK, UID, Bench, holds, until

from tailrace.gate.routers import Routers
from tailrace.gate.settings import RouterName


async def test_the_hook_is_answered_when_a_router_says_safe_and_not_before(bench: Bench) -> None:
    router = await bench.router()
    await bench.gate(router)
    hook = bench.hook()
    await router.asked("wait", 3)
    assert not hook.done()
    router.safe = True
    assert await hook == "drained"


async def test_zero_in_flight_alone_does_not_answer_the_hook(bench: Bench) -> None:
    router = await bench.router()
    router.in_flight = 0
    await bench.gate(router)
    assert await holds(bench.hook())


async def test_the_drain_is_started_once_at_every_router(bench: Bench) -> None:
    one, other = await bench.router(), await bench.router()
    await bench.gate(one, other)
    hook = bench.hook()
    await asyncio.gather(one.asked("wait", 3), other.asked("wait", 3))
    assert one.count("drain") == other.count("drain") == 1
    assert {"reason": "gate"} in one.bodies
    other.safe = True
    assert await hook == "drained"


async def test_one_router_that_answers_is_enough(bench: Bench) -> None:
    down, router = await bench.router(up=False), await bench.router()
    engine = await bench.engine()
    await bench.gate(down, router, engine_port=engine.port)
    hook = bench.hook()
    assert await holds(hook, QUICK.floor + 0.3)
    router.safe = True
    assert await hook == "drained"


class Names:
    """A name server with one name; the test changes its `addresses`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
        self.addresses = addresses
        self.hangs = False
        self._real = asyncio.get_running_loop().getaddrinfo
        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", self._lookup)
        monkeypatch.setattr("tailrace.gate.run._RESOLVE_SECONDS", 0.05)

    async def _lookup(self, host: str, port: int, **rest: int) -> list[object]:
        if host != "routers.test":
            return list(await self._real(host, port, **rest))
        if self.hangs:
            await asyncio.sleep(60)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in self.addresses]


async def test_a_name_stands_for_all_its_addresses(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    router = await bench.router()
    twin = await bench.router("127.0.0.2", port=router.port)
    Names(monkeypatch, "127.0.0.1", "127.0.0.2")
    await bench.gate(routers=(RouterName("routers.test", router.port),))
    hook = bench.hook()
    await asyncio.gather(router.asked("drain"), twin.asked("drain"))
    router.safe = True
    assert await hook == "drained"


async def test_a_router_that_joins_during_the_drain_is_asked_too(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    router = await bench.router()
    joined = await bench.router("127.0.0.2", port=router.port)
    names = Names(monkeypatch, "127.0.0.1")
    await bench.gate(routers=(RouterName("routers.test", router.port),))
    hook = bench.hook()
    await router.asked("wait")
    assert joined.calls == []
    names.addresses = ("127.0.0.1", "127.0.0.2")
    await joined.asked("drain")
    await router.stop()
    joined.safe = True
    assert await hook == "drained"


async def test_a_router_that_has_gone_for_good_is_not_asked_any_more(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    router = await bench.router()
    gone = await bench.router("127.0.0.2", port=router.port)
    names = Names(monkeypatch, "127.0.0.1", "127.0.0.2")
    await bench.gate(routers=(RouterName("routers.test", router.port),))
    hook = bench.hook()
    await gone.asked("wait")
    names.addresses = ("127.0.0.1",)
    await router.asked("wait", router.count("wait") + 2)
    await gone.stop()
    await asyncio.sleep(0.2)
    await gone.start()
    before = len(gone.calls)
    await router.asked("wait", router.count("wait") + 3)
    assert len(gone.calls) == before
    router.safe = True
    assert await hook == "drained"


async def test_a_drain_does_not_wait_for_a_name_server_that_hangs(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    router = await bench.router()
    names = Names(monkeypatch, "127.0.0.1")
    await bench.gate(routers=(RouterName("routers.test", router.port),))
    await router.asked("hello")
    names.hangs = router.safe = True
    async with asyncio.timeout(3):
        assert await bench.hook() == "drained"


async def test_a_router_that_refuses_is_asked_again_without_haste(bench: Bench) -> None:
    router = await bench.router()
    router.status = 404
    await bench.gate(router)
    began = time.monotonic()
    hook = bench.hook()
    assert await holds(hook)
    assert router.count("drain") <= (time.monotonic() - began) / QUICK.spacing + 1


async def test_a_name_that_cannot_be_resolved_keeps_its_addresses(
    monkeypatch: pytest.MonkeyPatch, bench: Bench
) -> None:
    async with aiohttp.ClientSession() as session:
        routers = Routers(session, [RouterName("127.0.0.1", 9090)], UID, bench.token_file)
        assert await routers.resolve() == {"127.0.0.1:9090"}

        async def away(*_: object, **__: object) -> object:
            raise socket.gaierror

        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", away)
        assert await routers.resolve() == routers.addresses == {"127.0.0.1:9090"}


async def test_with_the_routers_down_an_idle_engine_lets_go_after_the_floor(bench: Bench) -> None:
    router, engine = await bench.router(up=False), await bench.engine()
    await bench.gate(router, engine_port=engine.port)
    hook = bench.hook()
    assert await holds(hook, QUICK.floor * 0.9)
    assert await hook == "engine-idle"
    assert engine.reads >= 2


@pytest.mark.parametrize("load", [(1, 0), (0, 1)])
async def test_with_the_routers_down_a_busy_engine_holds(bench: Bench, load: tuple[int, int]) -> None:
    router, engine = await bench.router(up=False), await bench.engine(*load)
    await bench.gate(router, engine_port=engine.port)
    hook = bench.hook()
    assert await holds(hook, QUICK.floor + 0.4)
    engine.running = engine.waiting = 0
    assert await hook == "engine-idle"


async def test_with_the_routers_down_an_engine_that_does_not_answer_holds_to_the_deadline(bench: Bench) -> None:
    router = await bench.router(up=False)
    await bench.gate(router, limits=replace(QUICK, timeout=1.0))
    hook = bench.hook()
    assert await holds(hook, 0.9)
    assert await hook == "deadline"


@pytest.mark.parametrize("status", [302, 401, 403, 404, 500, 503])
async def test_a_router_that_refuses_counts_as_unreachable(bench: Bench, status: int) -> None:
    router, engine = await bench.router(), await bench.engine()
    router.status, router.safe = status, True
    await bench.gate(router, engine_port=engine.port)
    hook = bench.hook()
    assert await holds(hook, QUICK.floor * 0.9)
    assert await hook == "engine-idle"
    assert router.count("drain") > 1


async def test_a_router_that_comes_back_takes_over_from_the_engine(bench: Bench) -> None:
    router, engine = await bench.router(up=False), await bench.engine(running=1)
    await bench.gate(router, engine_port=engine.port)
    hook = bench.hook()
    await until(lambda: engine.reads >= 3)
    await router.start()
    await router.asked("wait")
    engine.running = 0
    assert await holds(hook, QUICK.floor + 0.3)
    router.safe = True
    assert await hook == "drained"


async def test_a_router_that_restarts_is_asked_to_drain_again(bench: Bench) -> None:
    router = await bench.router()
    await bench.gate(router)
    hook = bench.hook()
    await router.asked("wait")
    await router.stop()
    await router.start()
    await router.asked("drain", 2)
    router.safe = True
    assert await hook == "drained"


async def test_a_router_that_dropped_the_drain_is_asked_again(bench: Bench) -> None:
    router = await bench.router()
    router.state = "ready"
    await bench.gate(router)
    hook = bench.hook()
    await router.asked("drain", 2)
    assert not hook.done()


async def test_the_deadline_answers_the_hook_even_if_a_router_still_counts_requests(bench: Bench) -> None:
    router = await bench.router()
    await bench.gate(router, limits=replace(QUICK, timeout=0.8))
    hook = bench.hook()
    assert await holds(hook, 0.7)
    assert await hook == "deadline"


async def test_hooks_at_one_time_share_one_drain(bench: Bench) -> None:
    router = await bench.router()
    await bench.gate(router)
    hooks = [bench.hook() for _ in range(3)]
    await router.asked("wait", 3)
    assert router.count("drain") == 1
    router.safe = True
    assert await asyncio.gather(*hooks) == ["drained"] * 3
    assert bench.events().count("drain-started") == 1


async def test_a_hook_after_a_finished_drain_starts_a_new_one(bench: Bench) -> None:
    router = await bench.router()
    router.safe = True
    await bench.gate(router)
    assert await bench.hook() == "drained"
    router.safe = False
    again = bench.hook()
    await router.asked("drain", 2)
    assert await holds(again, 0.2)
    router.safe = True
    assert await again == "drained"


async def test_a_drain_ends_when_its_only_caller_has_left_and_the_next_caller_starts_anew(bench: Bench) -> None:
    router = await bench.router()
    await bench.gate(router)
    hook = bench.hook()
    await router.asked("wait")
    hook.cancel()
    await until(lambda: "drain-abandoned" in bench.events())
    asked = router.count("drain"), router.count("wait")
    await asyncio.sleep(0.3)
    assert (router.count("drain"), router.count("wait")) == asked, "the container that starts anew must not be drained"
    router.safe = True
    assert await bench.hook() == "drained"
    assert router.count("drain") == asked[0] + 1


async def test_a_caller_that_is_cancelled_does_not_stop_the_drain_for_the_others(bench: Bench) -> None:
    router = await bench.router()
    gate = await bench.gate(router)
    gone, stays = asyncio.create_task(gate.wait()), asyncio.create_task(gate.wait())
    await router.asked("wait")
    gone.cancel()
    assert await holds(stays, 0.1)
    router.safe = True
    assert await stays == "drained"


async def test_a_fault_of_the_gate_itself_does_not_answer_the_hook(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> object:
        raise RuntimeError("broken")

    router, engine = await bench.router(), await bench.engine(running=1)
    await bench.gate(router, engine_port=engine.port)
    with monkeypatch.context() as patch:
        patch.setattr("tailrace.gate.routers.read_answer", broken)
        patch.setattr("tailrace.engines.reader.read_gauges", broken)
        hook = bench.hook()
        await until(lambda: bench.events().count("step-failed") >= 2)
        assert not hook.done()
    router.safe = True
    assert await hook == "drained"


async def test_the_token_is_read_anew_for_each_call(bench: Bench) -> None:
    router = await bench.router()
    await bench.gate(router)
    hook = bench.hook()
    await router.asked("wait")
    bench.token_file.write_text("second")
    await router.asked("wait", router.count("wait") + 2)
    assert router.tokens[0] == "Bearer first"
    assert router.tokens[-1] == "Bearer second"
    bench.token_file.unlink()
    await router.asked("wait", router.count("wait") + 2)
    assert router.tokens[-1] is None
    router.safe = True
    assert await hook == "drained"


async def test_hello_is_said_at_start_and_again_in_time(bench: Bench) -> None:
    router = await bench.router()
    await bench.gate(router, hello_seconds=0.1)
    await router.asked("hello", 3)
    assert router.bodies[0] == {"version": 1}
    assert router.count("drain") == 0


async def test_hello_waits_out_its_period_once_a_router_knows_the_pod(bench: Bench) -> None:
    router = await bench.router()
    await bench.gate(router)
    await router.asked("hello")
    await asyncio.sleep(1.3)
    assert router.count("hello") == 1


async def test_hello_is_tried_again_soon_when_no_router_knows_the_pod(bench: Bench) -> None:
    router = await bench.router()
    router.known = False
    await bench.gate(router)
    await router.asked("hello", 2)


async def test_hello_survives_a_fault_of_its_own(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    router = await bench.router()
    with monkeypatch.context() as patch:
        patch.setattr("tailrace.gate.routers.read_hello", lambda *_: 1 / 0)
        await bench.gate(router)
        await until(lambda: "hello-failed" in bench.events())
    await router.asked("hello", 2)


async def test_a_router_name_that_does_not_resolve_is_logged_once_and_again_when_it_does(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    router = await bench.router()
    names, name = Names(monkeypatch), f"routers.test:{router.port}"
    monkeypatch.setattr("tailrace.gate.server.HelloPlan.delay", lambda *_, **__: 0.01)
    await bench.gate(routers=(RouterName("routers.test", router.port),))
    failed = ("hello-failed", {f"router.{name}": "the name cannot be resolved"})
    await until(lambda: failed in bench.steps)
    await asyncio.sleep(0.1)
    names.addresses = ("127.0.0.1",)
    await router.asked("hello", 3)
    hellos = [step for step in bench.steps if step[0].startswith("hello")]
    assert hellos == [failed, ("hello", {f"router.127.0.0.1:{router.port}": "known"})]


async def test_a_router_that_does_not_answer_is_logged_once_with_its_error(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    router = await bench.router(up=False)
    monkeypatch.setattr("tailrace.gate.server.HelloPlan.delay", lambda *_, **__: 0.01)
    await bench.gate(router)
    await until(lambda: "hello-failed" in bench.events())
    await asyncio.sleep(0.1)
    await router.start()
    await router.asked("hello", 2)
    failed, well = (step for step in bench.steps if step[0].startswith("hello"))
    assert "Cannot connect" in str(failed[1][f"router.{router.name}"])
    assert well == ("hello", {f"router.{router.name}": "known"})


async def test_health_depends_on_no_router(bench: Bench) -> None:
    router = await bench.router(up=False)
    await bench.gate(router)
    assert await bench.get("/healthz") == "ok"


async def test_status_tells_people_what_goes_on(bench: Bench) -> None:
    router, down = await bench.router(), await bench.router(up=False)
    await bench.gate(router, down)
    await router.asked("hello")
    assert (await bench.status())["drain"] is None
    hook = bench.hook()
    await router.asked("wait", 2)
    status = await bench.status()
    assert status["uid"] == UID
    hello, drain = status["hello"], status["drain"]
    assert isinstance(hello, dict)
    assert isinstance(drain, dict)
    assert hello["routers"][f"127.0.0.1:{router.port}"] == "known"
    assert drain["inProgress"] is True
    assert drain["routers"][f"127.0.0.1:{router.port}"] == {"state": "draining", "inFlight": 1, "safeToDelete": False}
    assert "fault" in drain["routers"][f"127.0.0.1:{down.port}"]
    router.safe = True
    assert await hook == "drained"
    ended = (await bench.status())["drain"]
    assert isinstance(ended, dict)
    assert (ended["inProgress"], ended["ended"]) == (False, "drained")


async def test_each_step_of_a_drain_is_logged(bench: Bench) -> None:
    router = await bench.router()
    await bench.gate(router)
    hook = bench.hook()
    await router.asked("wait")
    router.state, router.in_flight, router.safe = "drained", 0, True
    await hook
    assert [event for event in bench.events() if event not in ("listening", "hello")] == [
        "drain-started",
        "router-answered",
        "in-flight",
        "router-answered",
        "drain-ended",
    ]
    assert bench.steps[-1][1]["reason"] == "drained"


async def test_an_address_in_use_is_an_error_at_start(bench: Bench) -> None:
    router = await bench.router()
    with pytest.raises(OSError, match="address already in use"):
        await bench.gate(router, port=router.port)
