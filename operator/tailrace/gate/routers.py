"""The gate's side of the routers' admin port: addresses, calls, the pod's token."""

import asyncio
import socket
from collections.abc import Iterable
from pathlib import Path

import aiohttp

from tailrace.engines.reader import join_host_port
from tailrace.gate.protocol import Answer, Call, Fault, read_answer, read_hello
from tailrace.gate.settings import RouterName

_RESOLVE_SECONDS = 5.0
_FAILURES = (aiohttp.ClientError, OSError, TimeoutError, ValueError)


class Routers:
    """All the router replicas behind the configured names, asked on behalf of one pod."""

    def __init__(self, session: aiohttp.ClientSession, names: Iterable[RouterName], uid: str, token_file: Path) -> None:
        self._session = session
        self._known: dict[RouterName, frozenset[str]] = dict.fromkeys(names, frozenset())
        self._uid = uid
        self._token_file = token_file

    @property
    def addresses(self) -> frozenset[str]:
        """The `ip:port`s the names last resolved to."""
        return frozenset().union(*self._known.values())

    @property
    def unresolved(self) -> frozenset[RouterName]:
        """The names that have never resolved to anything."""
        return frozenset(name for name, addresses in self._known.items() if not addresses)

    async def resolve(self) -> frozenset[str]:
        """Resolve every name anew and return `addresses`; a name that cannot be resolved now keeps what it had."""
        for name in self._known:
            self._known[name] = await _resolve(name) or self._known[name]
        return self.addresses

    async def hello(self, address: str) -> bool | Fault:
        """Say that this pod has a gate; return whether the router knows the pod."""
        reply = await self._call(Call.HELLO, address)
        return reply if isinstance(reply, Fault) else read_hello(*reply)

    async def ask(self, call: Call, address: str) -> Answer | Fault:
        """Start the drain at one router, or wait for its end."""
        reply = await self._call(call, address)
        return reply if isinstance(reply, Fault) else read_answer(*reply, self._uid)

    async def _call(self, call: Call, address: str) -> tuple[int, bytes] | Fault:
        try:
            async with self._session.request(
                call.method,
                f"http://{address}{call.path(self._uid)}",
                json=call.body,
                headers=self._headers(),
                timeout=aiohttp.ClientTimeout(total=call.patience),
                allow_redirects=False,
            ) as response:
                return response.status, await response.read()
        except _FAILURES as error:
            return Fault(_describe(error))

    def _headers(self) -> dict[str, str]:
        """Return the pod's token as a header: read anew for each call, because the kubelet rotates the file.

        Without a file the call goes out bare: a router cut off from the API server may know the pod by its address.
        """
        try:
            return {"Authorization": f"Bearer {self._token_file.read_text().strip()}"}
        except OSError:
            return {}


async def _resolve(name: RouterName) -> frozenset[str]:
    try:
        async with asyncio.timeout(_RESOLVE_SECONDS):
            found = await asyncio.get_running_loop().getaddrinfo(name.host, name.port, type=socket.SOCK_STREAM)
    except (OSError, TimeoutError, UnicodeError):
        return frozenset()
    return frozenset(join_host_port(str(address[0]), name.port) for *_, address in found)


def _describe(error: BaseException) -> str:
    return "no answer in time" if isinstance(error, TimeoutError) else str(error) or type(error).__name__
