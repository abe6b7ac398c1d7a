"""What probes and lifecycle hooks do: an HTTP request, a TCP connection, a command, a sleep."""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from tests.cluster.kubelet.child import Child
from tests.cluster.kubelet.expand import MountPaths

HTTP_FAILURE = 400
HOOK_LIMIT = aiohttp.ClientTimeout(total=None, sock_connect=10)
log = logging.getLogger("kubelet.actions")


@dataclass(frozen=True)
class Surroundings:
    """What an action needs to know of its container."""

    address: str
    """The pod's address: the host of a request that names none."""
    ports: Mapping[str, int]
    """The container's named ports."""
    env: Mapping[str, str]
    folder: Path
    log: Path
    paths: MountPaths = field(default_factory=lambda: MountPaths({}))


class Actions:
    """Carries out handlers of a container's spec (`httpGet`, `tcpSocket`, `exec`, `sleep`)."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def probe(self, handler: Mapping[str, Any], where: Surroundings, limit: float) -> bool:
        """Ask a probe once: False when it is refused, fails, or takes longer than `limit` seconds."""
        try:
            async with asyncio.timeout(limit):
                return await self._ask(handler, where)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            log.debug("probe of %s failed: %s", where.folder, error)
            return False

    async def hook(self, handler: Mapping[str, Any], where: Surroundings) -> None:
        """Run a lifecycle hook to its end; any HTTP answer is success, and a failure is only logged."""
        try:
            await self._run_hook(handler, where)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            log.warning("lifecycle hook of %s failed: %s", where.folder, error)

    async def _ask(self, handler: Mapping[str, Any], where: Surroundings) -> bool:
        if "httpGet" in handler:
            return await self._status(handler["httpGet"], where) < HTTP_FAILURE
        if "tcpSocket" in handler:
            return await _connects(handler["tcpSocket"], where)
        if "exec" in handler:
            return await _execute(handler["exec"]["command"], where) == 0
        raise ValueError("the stand-in kubelet knows the probes httpGet, tcpSocket and exec")

    async def _run_hook(self, handler: Mapping[str, Any], where: Surroundings) -> None:
        if "httpGet" in handler:
            await self._status(handler["httpGet"], where, HOOK_LIMIT)
        elif "exec" in handler:
            await _execute(handler["exec"]["command"], where)
        elif "sleep" in handler:
            await asyncio.sleep(handler["sleep"]["seconds"])
        else:
            raise ValueError("the stand-in kubelet knows the hooks httpGet, exec and sleep")

    async def _status(
        self, request: Mapping[str, Any], where: Surroundings, limit: aiohttp.ClientTimeout | None = None
    ) -> int:
        scheme = str(request.get("scheme", "HTTP")).lower()
        host = request.get("host") or where.address
        path = str(request.get("path") or "/")
        url = f"{scheme}://{host}:{port_number(request['port'], where.ports)}/{path.removeprefix('/')}"
        headers = {"User-Agent": "kube-probe/1.36"} | {
            header["name"]: header["value"] for header in request.get("httpHeaders") or ()
        }
        async with self._session.get(
            url, headers=headers, ssl=False, allow_redirects=False, timeout=limit or HOOK_LIMIT
        ) as response:
            return response.status


def port_number(port: int | str, named: Mapping[str, int]) -> int:
    """Resolve a port that is a number, a number in a string, or the name of a container's port."""
    if isinstance(port, int) or port.isdigit():
        return int(port)
    if port not in named:
        raise ValueError(f"the container has no port named {port!r}: add it to `ports` or use its number")
    return named[port]


async def _connects(handler: Mapping[str, Any], where: Surroundings) -> bool:
    host = handler.get("host") or where.address
    _, writer = await asyncio.open_connection(host, port_number(handler["port"], where.ports))
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()
    return True


async def _execute(command: Sequence[str], where: Surroundings) -> int:
    rewritten = [where.paths.rewrite(part) for part in command]
    child = Child(rewritten, env=where.env, folder=where.folder, log=where.log)
    try:
        return await asyncio.shield(child.ended)
    finally:
        child.kill()
