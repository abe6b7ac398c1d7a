"""The scraper's pages against the real llama.cpp server: what it says while it works, and with pages switched off."""

import asyncio
import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.repo.tree import ROOT

from tailrace.core.model import EngineAddress, Reading
from tailrace.engines.scraper import Pages

pytest.importorskip("xllamacpp", reason="xllamacpp is not installed; `make setup` installs it")

SLOTS = 2
ASKED = 4
TOKENS = 700


@contextmanager
def serving(folder: Path, *switches: str) -> Iterator[str]:
    """Yield the address of a running server."""
    command = [sys.executable, "-m", "tests.engines.llama_server", str(folder), str(SLOTS), *switches]
    with (
        (folder / "log").open("w") as log,
        subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
        ) as process,
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            address = process.stdout.readline().strip().removeprefix("http://")
            assert address, (folder / "log").read_text()
            yield address
        finally:
            process.stdin.close()
            process.wait(20)


def generate(address: str) -> None:
    asked = {"prompt": "once upon a time", "max_tokens": TOKENS, "ignore_eos": True}
    request = urllib.request.Request(
        f"http://{address}/v1/completions", json.dumps(asked).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        json.load(answer)


async def test_a_busy_llama_cpp_tells_its_slots_and_its_queue(tmp_path: Path) -> None:
    with serving(tmp_path) as address:
        pages = Pages(EngineAddress(address, "llamacpp", 1.0))
        assert await pages.read() == Reading(running=0, waiting=0, slots=SLOTS)
        asked = [asyncio.create_task(asyncio.to_thread(generate, address)) for _ in range(ASKED)]
        seen: list[Reading] = []
        while not all(task.done() for task in asked):
            seen.append(await pages.read())
        await asyncio.gather(*asked)
        assert Reading(running=SLOTS, waiting=ASKED - SLOTS, slots=SLOTS) in seen
        assert await pages.read() == Reading(running=0, waiting=0, slots=SLOTS)
        pages.close()


@pytest.mark.parametrize(
    ("switch", "expected"),
    [("--no-metrics", Reading(running=0, slots=SLOTS)), ("--no-slots", Reading(running=0, waiting=0))],
)
async def test_a_llama_cpp_with_a_page_switched_off_tells_what_the_other_one_has(
    tmp_path: Path, switch: str, expected: Reading
) -> None:
    with serving(tmp_path, switch) as address:
        pages = Pages(EngineAddress(address, "llamacpp", 1.0))
        assert [await pages.read() for _ in range(2)] == [expected, expected]
        pages.close()
