"""Reads an engine's gauges over HTTP."""

import aiohttp

from tailrace.engines.families import Family
from tailrace.engines.gauges import Gauges, read_gauges
from tailrace.engines.wire import MAX_BYTES

_TIMEOUT = aiohttp.ClientTimeout(total=5)


class Engine:
    """A model server, as far as its gauges go. `host` may be an IPv6 address."""

    def __init__(self, session: aiohttp.ClientSession, family: Family, host: str, port: int) -> None:
        self._session = session
        self._family = family
        ports = (port, *(other for other in family.metrics_ports if other != port)) if family.has_gauges else ()
        self._urls = [f"http://{join_host_port(host, one)}{family.metrics_path}" for one in ports]

    async def gauges(self) -> Gauges | None:
        """Return one reading, None if the engine has no gauges or does not answer with them."""
        for url in self._urls:
            gauges = await self._read(url)
            if gauges is not None:
                return gauges
        return None

    async def _read(self, url: str) -> Gauges | None:
        try:
            async with self._session.get(url, timeout=_TIMEOUT) as response:
                return read_gauges(await _text(response), self._family) if response.ok else None
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError):
            return None


async def _text(response: aiohttp.ClientResponse) -> str:
    """Return the page; ValueError when it is longer than an engine's is."""
    body = bytearray()
    async for part in response.content.iter_any():
        body += part
        if len(body) > MAX_BYTES:
            raise ValueError(f"it is longer than {MAX_BYTES} bytes")
    return body.decode(errors="replace")


def join_host_port(host: str, port: int) -> str:
    """Return `host:port`, an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def split_host_port(address: str) -> tuple[str, int]:
    """Return the two parts of `host:port`; brackets of an IPv6 address are taken off. ValueError without a port."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)
