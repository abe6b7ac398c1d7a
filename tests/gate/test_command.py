import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest
import typer
from tests.gate.bench import free_port
from typer.testing import CliRunner

from tailrace.cli.drain_gate import drain_gate

COMMAND = "import typer; from tailrace.cli.drain_gate import drain_gate; typer.run(drain_gate)"
GOOD = ("--routers", "127.0.0.1:1", "--listen-host", "127.0.0.1", "--pod-uid", "u")


def invoke(*arguments: str) -> tuple[int, str]:
    app = typer.Typer()
    app.command()(drain_gate)
    result = CliRunner(env={"POD_IP": "", "POD_UID": "", "COLUMNS": "200"}).invoke(app, list(arguments))
    return result.exit_code, result.output


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Start a gate process whose routers are away, listening on the port given beside it."""
    port = free_port()
    environment = os.environ | {"POD_IP": "127.0.0.1", "POD_UID": "u"}
    arguments = ["--routers", "127.0.0.1:1", "--port", str(port), "--token-file", str(tmp_path / "token")]
    with subprocess.Popen(
        [sys.executable, "-c", COMMAND, *arguments], env=environment, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stderr is not None
            assert "listening" in process.stderr.readline()
            yield process, port
        finally:
            process.kill()


def test_the_process_listens_where_its_environment_says(gate: tuple[subprocess.Popen[str], int]) -> None:
    _, port = gate
    with urlopen(f"http://127.0.0.1:{port}/healthz") as response:
        assert response.read() == b"ok\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_process_at_once_even_with_a_hook_waiting(
    gate: tuple[subprocess.Popen[str], int], number: signal.Signals
) -> None:
    process, port = gate
    caller = f"import urllib.request as r; r.urlopen('http://127.0.0.1:{port}/wait')"
    hook = subprocess.Popen([sys.executable, "-c", caller], stderr=subprocess.DEVNULL)
    assert process.stderr is not None
    while "drain-started" not in process.stderr.readline():
        pass
    time.sleep(0.1)
    process.send_signal(number)
    assert process.wait(5) == 0
    assert hook.wait(5) != 0


def test_the_gate_loads_none_of_the_heavy_libraries() -> None:
    heavy = ("kubernetes", "kopf", "pydantic", "prometheus_client", "yaml", "orjson", "rich.console")
    script = (
        "import sys, tailrace.cli.drain_gate, tailrace.gate.server;"
        f"print([name for name in {heavy!r} if name in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", script], text=True).strip() == "[]"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--routers", "nowhere", *GOOD[2:]), "'nowhere' is not host:port"),
        ((*GOOD, "--engine", "vlm"), "engine: 'vlm' is not known"),
        ((*GOOD[:4],), "POD_UID"),
        ((*GOOD[:2], *GOOD[4:]), "POD_IP"),
        ((*GOOD, "--timeout-seconds", "-1"), "timeout-seconds"),
        ((*GOOD, "--port", "70000"), "--port"),
    ],
)
def test_a_wrong_option_is_named(arguments: tuple[str, ...], message: str) -> None:
    code, output = invoke(*arguments)
    assert code == 2
    assert message in output


def test_an_address_that_cannot_be_listened_on_is_told() -> None:
    code, output = invoke(*GOOD[:2], "--listen-host", "192.0.2.1", "--pod-uid", "u")
    assert code == 1
    assert "cannot listen on 192.0.2.1:9397" in output


def test_help_explains_every_option() -> None:
    code, output = invoke("--help")
    assert code == 0
    assert "It never answers early" in output
    for option in ("--routers", "--listen-host", "--pod-uid", "--token-file", "--engine-port", "--hello-seconds"):
        assert option in output
