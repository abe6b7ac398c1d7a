"""Other routers, each in a virtual environment of its own below the user's cache, at the version that was compared.

They are given what they ask for and no more: the engines' addresses, the policy, and ports. Thresholds are their own
defaults. One that cannot be installed or started here is left out, with the reason.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

INSTALL_SECONDS = 300.0
INSTALLED = "installed"


class UnavailableError(Exception):
    """A router cannot run on this machine; the message says why, in a line."""


@dataclass(frozen=True, slots=True)
class Peer:
    """A router that is published as a Python package: what to install, and how its program is called."""

    package: str
    version: str
    program: tuple[str, ...]
    options: tuple[str, ...] = ()

    def command(self, policy: str, port: int, metrics_port: int, engines: Sequence[str]) -> list[str]:
        """Return how to start it, installing it first; UnavailableError when that fails."""
        first, *rest = self.program
        where = ["--host", "127.0.0.1", "--port", str(port), "--prometheus-port", str(metrics_port)]
        urls = [f"http://{engine}" for engine in engines]
        return [
            str(self._environment() / "bin" / first),
            *rest,
            *where,
            "--policy",
            policy,
            *self.options,
            "--worker-urls",
            *urls,
        ]

    @property
    def folder(self) -> Path:
        """The virtual environment, installed or not."""
        return cache_root() / f"{self.package}-{self.version}-{sys.version_info[0]}.{sys.version_info[1]}"

    def _environment(self) -> Path:
        if not (self.folder / INSTALLED).exists():
            self._install(self.folder)
            (self.folder / INSTALLED).touch()
        return self.folder

    def _install(self, folder: Path) -> None:
        pip = [str(folder / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check"]
        for command in (
            [sys.executable, "-m", "venv", "--clear", str(folder)],
            [*pip, f"{self.package}=={self.version}"],
        ):
            _run(command, f"{self.package} {self.version} could not be installed")


PEERS = {
    "vllm-router": Peer("vllm-router", "0.1.17", ("vllm-router",)),
    "sglang-router": Peer("sglang-router", "0.3.2", ("sglang-router", "launch")),
    "smg": Peer("smg", "1.13.0", ("smg", "launch"), ("--disable-tokenizer-autoload", "--load-monitor-interval", "1")),
}
POLICIES = {"cache-aware": "cache_aware", "two choices": "power_of_two"}
"""How a table calls a policy, and how their command lines do."""


def cache_root() -> Path:
    """Return the folder that holds the installed routers."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "tailrace" / "peers"


def _run(command: list[str], otherwise: str) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UnavailableError(f"{otherwise}: {type(error).__name__}") from error
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines()
        raise UnavailableError(f"{otherwise}: {lines[-1][:200] if lines else f'exit code {done.returncode}'}")
