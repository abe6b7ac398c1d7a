"""The small public class: a load balancer for LLM inference servers, usable alone as a library."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from random import Random
from threading import Lock
from typing import Any

from tailrace.core.endpoint import Endpoint, Event
from tailrace.core.model import EndpointState, PoolSettings
from tailrace.core.pool import Pool

MAX_CAPACITY = 1000
NAMES_IN_ERRORS = 10


class LoadBalancer:
    """Weighted least connections over servers of unequal size, with GPU memory for long prompts.

    A request goes to the lowest ``current_load / capacity`` among the servers with a free slot; a tie goes to the most
    available GPU memory, then the larger capacity, then the server added first. Requests of more than 4096 tokens go
    only to servers with at least 80 GB. Routing and completing cost O(log servers).

    Single-threaded by contract: use it from one thread or one event loop. From several threads use
    ``ThreadSafeLoadBalancer``. A call that raises has changed nothing.
    """

    def __init__(self) -> None:
        self._pool = Pool(PoolSettings("WeightedLeastConnections"), Random(0))  # noqa: S311 - this strategy draws no random numbers
        self._requests: dict[str, Endpoint] = {}
        self._added = 0

    def add_server(self, server_id: str, capacity: int, gpu_memory_gb: int) -> None:
        """Register a server. ``ValueError``: the id exists (draining included), or a number is out of bounds."""
        if server_id in self._pool.endpoints:
            raise ValueError(_exists(self._pool.endpoints[server_id]))
        _check("capacity", capacity, MAX_CAPACITY)
        _check("gpu_memory_gb", gpu_memory_gb)
        endpoint = Endpoint(
            server_id, address=server_id, capacity=capacity, gpu_memory_gb=gpu_memory_gb, added=self._added
        )
        self._added += 1
        endpoint.on(Event.SEEN_READY)
        self._pool.add(endpoint)

    def remove_server(self, server_id: str) -> None:
        """Send no new request to the server; it is gone when its last one completes. ``KeyError``: unknown."""
        endpoint = self._pool.endpoints.get(server_id)
        if endpoint is None:
            raise KeyError(f"no server {server_id!r}; there are: {_names(self._pool.endpoints) or 'none'}")
        endpoint.on(Event.DRAIN)
        self._forget_if_drained(endpoint)

    def route_request(self, request_id: str, estimated_tokens: int) -> str:
        """Return the id of the server chosen, and occupy a slot there until the request completes.

        ``ValueError``: the id is in use, or the tokens are not a positive int. ``RuntimeError``: no server that
        qualifies has a free slot.
        """
        if request_id in self._requests:
            raise ValueError(f"request {request_id!r} is already routed; complete it first or use another id")
        if type(estimated_tokens) is not int or estimated_tokens < 1:
            _check("estimated_tokens", estimated_tokens)
        endpoint = self._pool.pick(estimated_tokens)
        if endpoint is None:
            raise RuntimeError(self._why_none(request_id, estimated_tokens))
        self._requests[request_id] = endpoint
        endpoint.take()
        return endpoint.uid

    def complete_request(self, request_id: str) -> None:
        """Free the request's slot. ``KeyError``: unknown, or already completed."""
        endpoint = self._requests.pop(request_id, None)
        if endpoint is None:
            raise KeyError(f"no request {request_id!r} in flight: never routed, or already completed")
        endpoint.free()
        if not endpoint.in_flight:
            self._forget_if_drained(endpoint)

    def get_server_stats(self) -> dict[str, dict[str, Any]]:
        """Return capacity, current_load, gpu_memory_gb, load_ratio, is_draining and active_requests by server id."""
        active: dict[str, list[str]] = {uid: [] for uid in self._pool.endpoints}
        for request_id, endpoint in self._requests.items():
            active[endpoint.uid].append(request_id)
        return {
            uid: {
                "capacity": endpoint.capacity,
                "current_load": endpoint.in_flight,
                "gpu_memory_gb": endpoint.gpu_memory_gb,
                "load_ratio": endpoint.in_flight / endpoint.capacity,
                "is_draining": endpoint.state is EndpointState.DRAINING,
                "active_requests": active[uid],
            }
            for uid, endpoint in self._pool.endpoints.items()
        }

    def _forget_if_drained(self, endpoint: Endpoint) -> None:
        if endpoint.in_flight == 0 and endpoint.state is EndpointState.DRAINING:
            self._pool.remove(endpoint)

    def _why_none(self, request_id: str, tokens: int) -> str:
        settings = self._pool.settings
        needs = f" with at least {settings.long_prompt_min_gpu_memory_gb} GB" if self._pool.is_long(tokens) else ""
        full = _names(f"{e.uid} {e.in_flight}/{e.capacity}" for e in self._pool.qualified(tokens))
        state = f"all of them are full: {full}" if full else f"none of the {len(self._pool.endpoints)} servers is one"
        return (
            f"request {request_id!r} of {tokens} tokens needs a server{needs} that is not draining "
            f"and has a free slot; {state}"
        )


class ThreadSafeLoadBalancer:
    """The same contract from any number of threads: one lock around each call of a ``LoadBalancer``.

    The calls are microseconds of work without I/O, so one lock is enough; it is not for sharing between processes.
    """

    def __init__(self) -> None:
        self._balancer = LoadBalancer()
        self._lock = Lock()

    def add_server(self, server_id: str, capacity: int, gpu_memory_gb: int) -> None:
        """See ``LoadBalancer.add_server``."""
        with self._lock:
            self._balancer.add_server(server_id, capacity, gpu_memory_gb)

    def remove_server(self, server_id: str) -> None:
        """See ``LoadBalancer.remove_server``."""
        with self._lock:
            self._balancer.remove_server(server_id)

    def route_request(self, request_id: str, estimated_tokens: int) -> str:
        """See ``LoadBalancer.route_request``."""
        with self._lock:
            return self._balancer.route_request(request_id, estimated_tokens)

    def complete_request(self, request_id: str) -> None:
        """See ``LoadBalancer.complete_request``."""
        with self._lock:
            self._balancer.complete_request(request_id)

    def get_server_stats(self) -> dict[str, dict[str, Any]]:
        """See ``LoadBalancer.get_server_stats``; the answer is one consistent moment."""
        with self._lock:
            return self._balancer.get_server_stats()


def _check(name: str, value: object, most: int | None = None) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1 or (most is not None and value > most):
        wanted = "a positive int" if most is None else f"an int in 1..{most}"
        raise ValueError(f"{name} must be {wanted}, not {value!r}")


def _exists(endpoint: Endpoint) -> str:
    if endpoint.state is EndpointState.DRAINING:
        return f"server {endpoint.uid!r} is still draining, with {endpoint.in_flight} in flight; wait for them"
    return f"server {endpoint.uid!r} exists; remove it first, or use another id"


def _names(names: Iterable[str]) -> str:
    """Join the first names; one look at many thousands would cost more than the pick."""
    shown = list(islice(names, NAMES_IN_ERRORS + 1))
    more = [" and more"] if len(shown) > NAMES_IN_ERRORS else []
    return ", ".join(shown[:NAMES_IN_ERRORS]) + "".join(more)
