"""The least that a streaming proxy in Python can be: `python -m bench.peers.minimal PORT UPSTREAM...`.

No accounts, no retries, no limits, no metrics: what a Python proxy costs before it does anything for anybody.
"""

from __future__ import annotations

import asyncio
import sys
from itertools import cycle

import uvloop
from aiohttp import ClientSession, DummyCookieJar, TCPConnector, web

PASSED_ON = ("content-type", "x-chunks", "x-pace")


def handler(session: ClientSession, upstreams: list[str]) -> web.Server:
    """Return a server that passes every request to the next upstream and its answer back."""
    turns = cycle(upstreams)

    async def relay(request: web.BaseRequest) -> web.StreamResponse:
        headers = {name: request.headers[name] for name in PASSED_ON if name in request.headers}
        url = next(turns) + request.path_qs
        async with session.request(request.method, url, data=await request.read(), headers=headers) as upstream:
            passed = {k: v for k, v in upstream.headers.items() if k.lower() != "transfer-encoding"}
            answer = web.StreamResponse(status=upstream.status, headers=passed)
            await answer.prepare(request)
            async for chunk in upstream.content.iter_any():
                await answer.write(chunk)
            await answer.write_eof()
            return answer

    return web.Server(relay, access_log=None)


async def main(port: int, upstreams: list[str]) -> None:
    """Serve until ended."""
    connector = TCPConnector(limit=0)
    async with ClientSession(connector=connector, cookie_jar=DummyCookieJar(), auto_decompress=False) as session:
        runner = web.ServerRunner(handler(session, upstreams))
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port, backlog=1024).start()
        await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), sys.argv[2:]))
