"""Starts the child: streams, credentials, then the agent."""

from __future__ import annotations

import asyncio
import logging
import os

from tailrace import collector
from tailrace.kube.agent import FIRST_RETRY_SECONDS, LAST_RETRY_SECONDS, Agent
from tailrace.kube.client import Api, load
from tailrace.kube.pipe import Pipe, end_with_parent, open_pipe, take_standard_streams
from tailrace.link import ChildHealth, Member
from tailrace.settings import Settings

log = logging.getLogger(__name__)


def main(member: str, address: str, pod_uid: str) -> None:
    """Run for this member until the parent goes or SIGTERM, then end the process with code 0; see ``link.Member``.

    Without a member it is the child of no replica. Logs are set up by the caller.
    """
    me = Member(member, address, pod_uid) if member else None
    source, target = take_standard_streams()
    end_with_parent()
    # Every retry of an outage is an error to kopf; the outage itself is told by the lists, once.
    logging.getLogger("kopf").setLevel(logging.CRITICAL)
    # The webhook's, which kopf serves: a line for every pod of the cluster.
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)
    collector.spare_what_is_here()
    asyncio.run(_run(Settings(), source, target, me))
    logging.shutdown()
    # At once: kopf's thread may sit in a request until it times out, and nothing of it is worth waiting for.
    os._exit(0)


async def _run(settings: Settings, source: int, target: int, me: Member | None) -> None:
    pipe = await open_pipe(source, target)
    api = await _connect(settings, pipe)
    try:
        await Agent(settings, pipe, api, me).run()
    finally:
        await api.close()


async def _connect(settings: Settings, pipe: Pipe) -> Api:
    """Read the credentials, which may come a moment after the container; the parent hears why there are none yet."""
    delay = FIRST_RETRY_SECONDS
    while True:
        try:
            return Api(await load(settings.kubeconfig))
        except Exception as error:
            log.warning("no credentials for the API server, trying again: %s", error)
            await pipe.send(ChildHealth(0.0, 0.0, leader=False, holder="", api_error=f"no credentials: {error}"))
        await asyncio.sleep(delay)
        delay = min(2 * delay, LAST_RETRY_SECONDS)
