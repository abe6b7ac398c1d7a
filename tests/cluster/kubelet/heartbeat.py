"""Register one node and keep its Lease fresh."""

import asyncio
import datetime
import logging
import time

import aiohttp
from tests.cluster.kubelet.api import MERGE, Api, ApiError
from tests.cluster.kubelet.nodes import LEASE_SECONDS, NodeSpec, node_object

LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
NODES = "/api/v1/nodes"
log = logging.getLogger("kubelet.node")


class Heartbeat:
    """Keeps one Node registered, Ready and alive."""

    def __init__(self, api: Api, node: NodeSpec, interval: float) -> None:
        self._api = api
        self._node = node
        self._interval = interval

    async def run(self) -> None:
        """Register, then renew the Lease every interval until cancelled; failures are logged and survived."""
        registered = False
        while True:
            try:
                if not (registered and await self._is_ready()):
                    await self._register()
                registered = True
                await self._renew()
            except ApiError as error:
                log.warning("node %s: %s", self._node.name, error)
                registered = False
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                log.warning("node %s: %s", self._node.name, error)
            await asyncio.sleep(self._interval)

    async def _is_ready(self) -> bool:
        """Tell whether the node is stored as Ready; the node controller gives up nodes it has not heard of."""
        status = (await self._api.get(f"{NODES}/{self._node.name}")).get("status") or {}
        conditions = {one["type"]: one["status"] for one in status.get("conditions") or ()}
        return conditions.get("Ready") == "True"

    async def _register(self) -> None:
        desired = node_object(self._node, time.time())
        try:
            await self._api.post(NODES, desired)
        except ApiError as error:
            if error.code != 409:
                raise
            await self._api.patch(f"{NODES}/{self._node.name}", {"metadata": {"labels": desired["metadata"]["labels"]}})
            await self._api.patch(f"{NODES}/{self._node.name}/status", {"status": desired["status"]})

    async def _renew(self) -> None:
        stamp = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        spec = {"holderIdentity": self._node.name, "leaseDurationSeconds": LEASE_SECONDS, "renewTime": stamp}
        metadata = {"name": self._node.name, "namespace": "kube-node-lease"}
        try:
            await self._api.patch(f"{LEASES}/{self._node.name}", {"spec": spec}, MERGE)
        except ApiError as error:
            if error.code != 404:
                raise
            body = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec}
            await self._api.post(LEASES, body)
