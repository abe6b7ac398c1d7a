"""The comparison of real routers: what is asked, how answers are judged, what is kept and shown."""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest
from bench import routing
from bench.cells import CELLS, Ask, Cell, requests
from bench.contest import Record, Run, measured, tables
from bench.fleet import Fleet
from bench.peers import routers
from bench.replay import Answer, Ended, Replay, unchunked

CELL = Cell("system-prompt", "equal", 1.0)


def prompts(asks: list[Ask]) -> list[str]:
    return [json.loads(ask.raw.partition(b"\r\n\r\n")[2])["messages"][0]["content"] for ask in asks]


# What is asked


def test_every_router_is_asked_the_same_in_words_of_its_own() -> None:
    one, other = (requests(CELL, 0, seconds=2.0, salt=salt) for salt in ("one", "other"))
    assert [(ask.at, ask.tokens, len(ask.raw)) for ask in one] == [(ask.at, ask.tokens, len(ask.raw)) for ask in other]
    assert {text[:64] for text in prompts(one)}.isdisjoint(text[:64] for text in prompts(other))


def test_prompts_share_what_their_requests_share() -> None:
    texts = prompts(requests(CELL, 0, seconds=2.0, salt="s"))
    assert len({text[: 2048 * 4] for text in texts}) == 1
    assert len({text[: 2048 * 4 + 512] for text in texts}) == len(texts)


def test_repetitions_ask_for_other_things() -> None:
    first, second = (requests(CELL, number, seconds=2.0, salt="s") for number in (0, 1))
    assert [ask.at for ask in first] != [ask.at for ask in second]


def test_a_faster_or_fuller_cell_sends_more_in_the_same_time() -> None:
    usual, fuller = (requests(replace(CELL, load=load), 0, seconds=5.0, salt="s") for load in (1.0, 2.0))
    assert 1.7 < len(fuller) / len(usual) < 2.3
    assert len(usual) == pytest.approx(28 * 3 * 5, rel=0.2)
    assert all(0 <= ask.at < 5.0 for ask in fuller)


def test_a_recorded_cell_is_called_by_its_file() -> None:
    recorded = next(cell for cell in CELLS if cell.workload == "recorded")
    assert replace(recorded, trace=Path("a/mine.csv")).name == f"mine-equal-{recorded.load:g}"


# How answers are judged

HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nx-request-id: abc0\r\n\r\n"
USAGE = b'data: {"usage":{"prompt_tokens":90,"prompt_tokens_details":{"cached_tokens":64}}}\n\n'


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def event(number: int) -> bytes:
    return b'data: {"choices":[{"delta":{"content":"t%d "}}]}\n\n' % number


WHOLE = HEAD + b"".join(chunk(event(n)) for n in range(3)) + chunk(USAGE + b"data: [DONE]\n\n") + b"0\r\n\r\n"
SPLIT = HEAD + chunk((event(0) + event(1))[:70]) + chunk((event(0) + event(1))[70:] + event(2) + USAGE)
SPLIT += chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"
SHORT = HEAD + chunk(event(0)) + chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"
BUSY = b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 2\r\n\r\n{}"
WRONG = b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n"


@asynccontextmanager
async def engine(*answers: list[bytes]) -> AsyncIterator[int]:
    """Serve the answers in turn, each in its pieces; an answer that ends in nothing closes the connection."""
    turns = iter(answers)
    writers: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        while await reader.readline():
            await reader.readuntil(b"\r\n\r\n")
            for piece in next(turns):
                if not piece:
                    writer.close()
                    return
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0.005)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]
        for writer in writers:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()


ASK = Ask(0.0, b"POST / HTTP/1.1\r\nHost: x\r\n\r\n", 3)


async def answers(*asks: Ask, port: int) -> list[Answer]:
    return await Replay(port).run(asks, patience=0.3)


@pytest.mark.parametrize(
    ("pieces", "ended"),
    [
        ([WHOLE], Ended.WHOLE),
        ([HEAD, WHOLE[len(HEAD) :]], Ended.WHOLE),
        ([SPLIT], Ended.WHOLE),
        ([SHORT], Ended.LOST),
        ([HEAD + chunk(event(0)), b""], Ended.LOST),
        ([BUSY], Ended.SHED),
        ([WRONG], Ended.LOST),
        ([HEAD + chunk(event(0))], Ended.LOST),
        ([b""], Ended.LOST),
    ],
    ids=["whole", "head-first", "split", "short", "broken", "busy", "error", "stuck", "nothing"],
)
async def test_only_a_whole_answer_counts(pieces: list[bytes], ended: Ended) -> None:
    async with engine(pieces, pieces) as port:
        assert [answer.ended for answer in await answers(ASK, port=port)] == [ended]


async def test_an_answer_is_measured_from_the_moment_it_was_due() -> None:
    first, rest = HEAD + chunk(event(0)), WHOLE[len(HEAD + chunk(event(0))) :]
    async with engine([first, rest]) as port:
        (answer,) = await answers(ASK, port=port)
    assert (answer.tokens, answer.prompt, answer.cached) == (3, 90, 64)
    assert 0 < answer.first < answer.last < 0.3
    assert answer.gap == pytest.approx((answer.last - answer.first) / 2)


async def test_requests_go_at_their_times_over_kept_connections() -> None:
    async with engine([WHOLE], [WHOLE], [b""], [WHOLE]) as port:
        asks = [replace(ASK, at=at) for at in (0.0, 0.05, 0.1)]
        found = await answers(*asks, port=port)
    # The third meets a connection that was closed before it was read, and is sent again.
    assert [answer.ended for answer in found] == [Ended.WHOLE] * 3


async def test_nobody_there_is_a_loss() -> None:
    assert [answer.ended for answer in await answers(ASK, port=1)] == [Ended.LOST]


def test_chunks_are_joined_as_far_as_they_came() -> None:
    assert unchunked(chunk(b"ab") + chunk(b"cd") + b"4\r\nef") == b"abcdef"


# What is kept and shown


def run(router: str, repetition: int, ttft99: float, shed: int = 0) -> Run:
    answer = Answer(Ended.WHOLE, first=ttft99, last=ttft99 + 0.2, tokens=3, prompt=100, cached=40)
    base = measured(
        CELL.name,
        router,
        repetition,
        [answer] * 9 + [Answer(Ended.LOST)],
        compression=2.0,
        seconds=1.0,
        cpu_seconds=0.5,
        idle=(0.5, 0.25),
    )
    return replace(base, shed=shed)


def test_a_run_is_told_in_the_time_of_the_engines() -> None:
    one = run("a", 0, 0.5)
    assert (one.ttft50, one.ttft99, one.tokens_per_second) == (1.0, 1.0, 13.5)
    assert one.itl50 == pytest.approx(0.2)
    assert (one.requests, one.lost, one.shed, one.hits) == (10, 1, 0, 0.4)


def test_runs_are_kept_until_the_settings_change(tmp_path: Path) -> None:
    path = tmp_path / "routing.json"
    Record(path, {"seconds": 1}).add(run("a", 0, 0.5))
    kept = Record(path, {"seconds": 1})
    assert kept.has(CELL.name, "a", 0)
    assert not kept.has(CELL.name, "a", 1)
    assert kept.runs == [run("a", 0, 0.5)]
    assert Record(path, {"seconds": 2}).runs == []


def test_the_table_compares_repetition_by_repetition() -> None:
    runs = [run("ours", 0, 1.0), run("ours", 1, 2.0), run("theirs", 0, 2.0), run("theirs", 1, 4.0, shed=3)]
    rows = [line for line in tables(runs, ["ours", "theirs", "absent"], "ours") if line.startswith(("| ours", "| th"))]
    assert len(rows) == 2
    assert rows[0].endswith("| 2 | 0 | 0.5 |  |")
    assert rows[1].endswith("| 2 | 3 | 0.5 | 0.50 |")
    assert "±" in rows[1]


def test_a_repetition_that_is_not_complete_is_left_out_of_the_table() -> None:
    runs = [run("ours", 0, 1.0), run("theirs", 0, 2.0), run("ours", 1, 9.0)]
    row = next(line for line in tables(runs, ["ours", "theirs"], "ours") if line.startswith("| ours"))
    assert "| 2.00 |" in row
    assert "±" not in row


# Who takes part


def test_a_peer_that_cannot_be_installed_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    done = subprocess.CompletedProcess([], 1, "", "one\nno network")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: done)
    with pytest.raises(routers.UnavailableError, match=r"^smg 1\.13\.0 could not be installed: no network$"):
        routers.PEERS["smg"].command("cache_aware", 1, 2, ["127.0.0.1:3"])


def test_a_peer_is_installed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    ran: list[list[str]] = []

    def pretend(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        ran.append(command)
        folder.mkdir(parents=True, exist_ok=True)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", pretend)
    peer = routers.PEERS["vllm-router"]
    folder = peer.folder
    for _ in range(2):
        command = peer.command("power_of_two", 8000, 9000, ["127.0.0.1:1", "127.0.0.1:2"])
    assert [words[-1] for words in ran] == [str(folder), "vllm-router==0.1.17"]
    assert command[0] == str(folder / "bin" / "vllm-router")
    assert command[command.index("--policy") + 1] == "power_of_two"
    assert command[-2:] == ["http://127.0.0.1:1", "http://127.0.0.1:2"]


def test_who_cannot_run_is_left_out_and_the_others_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object) -> list[str]:
        raise routers.UnavailableError("not here")

    monkeypatch.setattr(routing, "ROUTERS", {"gone": missing, "there": missing})
    record = Record(tmp_path / "routing.json", {})
    made: list[tuple[str, int]] = []
    tried: list[str] = []

    class Half(routing.Contest):
        def _measure(self, cell: Cell, router: str, repetition: int) -> Run:  # noqa: ARG002
            tried.append(router)
            if router == "gone":
                raise routers.UnavailableError("not here")
            made.append((router, repetition))
            return run(router, repetition, 1.0)

    options = argparse.Namespace(budget=60.0, repetitions=2, cells=[CELL], routers=["gone", "there"])
    contest = Half(Fleet((), ()), record, options, 0, 0)
    contest.run()
    assert record.unavailable == {"gone": "not here"}
    assert made == [("there", 0), ("there", 1)]
    contest.run()
    assert len(made) == 2  # nothing is made twice
    assert tried.count("gone") == 1  # to install it again and again would take longer than the runs


def test_a_spent_budget_begins_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = argparse.Namespace(budget=-1.0, repetitions=1, cells=[CELL], routers=["nginx least_conn"])
    routing.Contest(Fleet((), ()), Record(tmp_path / "routing.json", {}), options, 0, 0).run()
    assert "goes on from here" in capsys.readouterr().err


def test_options_name_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        routing.arguments(["--cells", "nothing"])
    assert "no cell 'nothing'; there are: recorded-equal-1.3" in capsys.readouterr().err
    assert all(cell.workload != "recorded" for cell in routing.arguments([]).cells)
    (cell,) = routing.arguments(["--cells", "recorded-mixed-1.3", "--trace", "t.csv"]).cells
    assert cell.trace == Path("t.csv")
