import subprocess
import sys


def loaded_by(module: str) -> set[str]:
    code = f"import {module}, sys; print(*sys.modules)"
    return set(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split())


def test_the_command_line_does_not_load_a_web_server_for_its_help() -> None:
    assert {"aiohttp", "uvloop", "pydantic"}.isdisjoint(loaded_by("tailrace.cli.model_server"))


def test_the_server_starts_without_loading_anything_of_kubernetes() -> None:
    assert {"kubernetes", "kopf", "pydantic", "prometheus_client"}.isdisjoint(loaded_by("tailrace.sim.process"))


def test_the_engine_is_free_of_io() -> None:
    assert {"asyncio", "aiohttp", "socket", "logging"}.isdisjoint(loaded_by("tailrace.sim.engine"))
