"""`tailrace run` where something that it needs is missing says what."""

import urllib.error
import urllib.request
from pathlib import Path

from tests.app.programs import Program
from tests.app.waiting import eventually


async def test_without_credentials_the_readiness_probe_says_so(tmp_path: Path) -> None:
    ports = {f"TAILRACE_{door}_PORT": "0" for door in ("PROXY", "ROUTING", "ADMIN")}
    env = {"KUBECONFIG": str(tmp_path / "none"), "HOME": str(tmp_path), "TAILRACE_HOST": "127.0.0.1"}
    program = Program(tmp_path / "log", "run", env=ports | env)
    try:
        *_, admin = program.addresses()
        await eventually(lambda: "no credentials" in answer(f"http://{admin}/readyz"))
        assert answer(f"http://{admin}/livez") == "ok\n", "a restart would not bring any"
    finally:
        program.terminate()
        program.code()
        program.end()


def answer(url: str) -> str:
    try:
        with urllib.request.urlopen(url, timeout=10) as answered:
            return str(answered.read().decode())
    except urllib.error.HTTPError as refused:
        with refused:
            return str(refused.read().decode())
