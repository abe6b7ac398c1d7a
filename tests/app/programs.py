"""Programs of the product as processes: `tailrace ...` and its far sides, with their own free ports."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
TAILRACE = (sys.executable, "-m", "tailrace")
START_SECONDS = 30.0
UNSET = ("TAILRACE_", "KUBECONFIG")


def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return an environment without settings of whoever runs the tests, and wide enough for whole sentences."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(UNSET)}
    return kept | {"COLUMNS": "200", "NO_COLOR": "1"} | dict(more or {})


def tailrace(*arguments: str, env: Mapping[str, str] | None = None, seconds: float = 60.0) -> tuple[int, str, str]:
    """Run a command to its end; return exit code, standard output, standard error."""
    done = subprocess.run(
        [*TAILRACE, *arguments], env=environment(env), capture_output=True, text=True, timeout=seconds, check=False
    )
    return done.returncode, done.stdout, done.stderr


class Program:
    """A running `tailrace` command; its standard error goes to a file."""

    def __init__(self, log: Path, *arguments: str, env: Mapping[str, str] | None = None) -> None:
        self._log = log
        with log.open("wb") as errors:
            self.process = subprocess.Popen(
                [*TAILRACE, *arguments], env=environment(env), stdout=subprocess.PIPE, stderr=errors, text=True
            )

    def log(self) -> str:
        """Return what it has logged."""
        return self._log.read_text(errors="replace")

    def addresses(self) -> list[str]:
        """Return where it serves, host:port: proxy, routing, admin."""
        deadline = time.monotonic() + START_SECONDS
        while not (said := [json.loads(line) for line in self.log().splitlines() if '"serving: ' in line]):
            assert self.process.poll() is None, self.log()
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.02)
        return [part.rpartition(" ")[2] for part in said[0]["message"].split(", ")]

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.process.send_signal(signal.SIGTERM)

    def code(self, seconds: float = 10.0) -> int:
        """Wait for its end and return the exit code."""
        return self.process.wait(seconds)

    def end(self) -> None:
        """Kill it if it still runs."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()


class Serve(Program):
    """`tailrace serve` on free ports; `proxy`, `routing` and `admin` are its addresses, host:port."""

    def __init__(self, file: Path, log: Path, env: Mapping[str, str] | None = None) -> None:
        ports = ("--proxy-port", "0", "--routing-port", "0", "--admin-port", "0")
        super().__init__(log, "serve", "-f", str(file), *ports, env=env)
        self.proxy, self.routing, self.admin = self.addresses()

    def endpoints(self) -> dict[str, dict[str, Any]]:
        """Return the endpoints that it knows, by address."""
        with urllib.request.urlopen(f"http://{self.admin}/endpoints", timeout=10) as answer:
            return {endpoint["address"]: endpoint for endpoint in json.load(answer)["endpoints"]}

    def in_flight(self) -> int:
        """Return how many requests are in flight."""
        with urllib.request.urlopen(f"http://{self.admin}/endpoints", timeout=10) as answer:
            return int(json.load(answer)["inFlight"])

    def ready(self) -> bool:
        """Tell whether its readiness probe is answered with yes."""
        try:
            with urllib.request.urlopen(f"http://{self.admin}/readyz", timeout=10):
                return True
        except urllib.error.HTTPError as refused:
            refused.close()
            return False


@contextmanager
def model_server(log: Path, *options: str) -> Iterator[str]:
    """Run a simulated model server; yield its address, host:port."""
    server = Program(log, "model-server", "--port", "0", *options)
    try:
        assert server.process.stdout is not None
        yield server.process.stdout.readline().rpartition("//")[2].strip()
    finally:
        server.end()


@contextmanager
def serving(file: Path, log: Path, env: Mapping[str, str] | None = None) -> Iterator[Serve]:
    """Run `tailrace serve` on the file; kill it at the end of the block if it still runs."""
    serve = Serve(file, log, env)
    try:
        yield serve
    finally:
        serve.end()


def documents(*addresses: str, **more: object) -> str:
    """Return a document that serves the model `demo` at these addresses; keywords are fields of `spec`."""
    spec = {"models": [{"name": "demo"}], "endpoints": [{"address": address} for address in addresses]} | more
    return json.dumps(
        {
            "apiVersion": "inference.tailrace.dev/v1alpha1",
            "kind": "InferenceServer",
            "metadata": {"name": "demo"},
            "spec": spec,
        }
    )
