"""Servers, endpoints and pools as last observed, and the names that lead to them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from random import Random

from tailrace.core.endpoint import ELSEWHERE, SAME_NODE, SAME_ZONE, Endpoint, Event
from tailrace.core.meter import Notes
from tailrace.core.model import (
    EndpointGone,
    EndpointSeen,
    EndpointSpec,
    EndpointState,
    EngineAddress,
    ModelSpec,
    Observation,
    Place,
    PoolSettings,
    Refusal,
    RefusalCode,
    ServerGone,
    ServerSeen,
    ServerSpec,
)
from tailrace.core.pool import Pool

REMEMBERED_GONE = 10_000
"""How many uids are remembered as gone, so that old news does not bring them back."""
LONGEST_NAME = 253
"""No name of a model or a namespace is longer: of one that a client gives, no more is repeated."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where a name leads: the pool of a model of a namespace, and the adapter that the name asks for."""

    pool: Pool
    pool_key: str
    adapter: str | None


class Registry:
    """What exists. Keyed by uid and server key; addresses are only data, because they are reused.

    ``specs`` holds the last observation of each endpoint; ``endpoints`` its mutable record. ``blind_before`` is when
    the last life of any replica ended, as far as known: an older pod may hold requests that only that life knew of.
    ``curious``: the strategy of some pool wants to know more of requests than their tokens. ``listens``: some pool
    wants engines to be read. ``place`` is where this replica is.
    """

    def __init__(self, rng: Random, booted_at: float) -> None:
        self.blind_before = booted_at
        self.servers: dict[str, ServerSpec] = {}
        self.specs: dict[str, EndpointSpec] = {}
        self.endpoints: dict[str, Endpoint] = {}
        self.members = 1
        self.place = Place()
        self.curious = False
        self.listens = False
        self._rng = rng
        self._pools: dict[str, Pool] = {}
        self._asked: dict[str, PoolSettings] = {}
        self._fallbacks: dict[str, str] = {}
        self._names: dict[str, dict[str, Target]] = {}
        self._gone: OrderedDict[str, tuple[EndpointSpec, Endpoint]] = OrderedDict()
        self._added = 0

    def apply(self, observation: Observation) -> list[str]:
        """Take in what was observed; return the uids of the endpoints it said something about."""
        match observation:
            case ServerSeen(spec):
                return self._see_servers([spec])
            case ServerGone(key):
                return self._lose_servers([key])
            case EndpointSeen(spec):
                return self._see_endpoint(spec)
            case EndpointGone(uid):
                return self._lose_endpoint(uid)
        return self._replace(observation.servers, observation.endpoints)

    def resolve(self, name: str, namespace: str | None) -> Target | Refusal:
        """Return where a model name leads, or why it leads nowhere."""
        found = self._names.get(name, {})
        if namespace is not None:
            found = {namespace: found[namespace]} if namespace in found else {}
        if len(found) == 1:
            (only,) = found.values()
            return only
        if not found:
            where = f" in namespace {_shown(namespace)}" if namespace is not None else ""
            return Refusal(RefusalCode.UNKNOWN_MODEL, f"no InferenceServer serves the model {_shown(name)}{where}")
        return Refusal(
            RefusalCode.AMBIGUOUS_MODEL,
            f"the model {name!r} is served in the namespaces {', '.join(sorted(found))}; "
            "name one in the header x-tailrace-namespace",
        )

    def is_gone(self, uid: str) -> bool:
        """Whether that uid existed and is gone for good."""
        return uid in self._gone and _is_final(self._gone[uid][0])

    def engines(self) -> dict[str, EngineAddress]:
        """Return uid -> engine of the endpoints whose engines are to be read: those that are given requests."""
        if not self.listens:
            return {}
        ready = [each for each in self.endpoints.values() if each.state is EndpointState.READY]
        return {each.uid: engine for each in ready if (engine := self.engine(each)) is not None}

    def engine(self, endpoint: Endpoint) -> EngineAddress | None:
        """Return the engine of an endpoint, None when no pool of it wants it to be read."""
        intervals = [pool.settings.engine_interval for pool in endpoint.pools if pool.reads_engines]
        server = self.servers.get(self.specs[endpoint.uid].server)
        return EngineAddress(endpoint.address, server.engine, min(intervals)) if intervals and server else None

    def names(self) -> dict[str, tuple[str, ...]]:
        """Return every name a request may use, with the namespaces that serve it."""
        return {name: tuple(sorted(targets)) for name, targets in self._names.items()}

    def set_members(self, members: int) -> None:
        """Share every endpoint's capacity among that many replicas."""
        if members == self.members:
            return
        self.members = members
        for endpoint in self.endpoints.values():
            endpoint.resize(endpoint.capacity, endpoint.gpu_memory_gb, members)
            endpoint.refresh()

    def set_place(self, place: Place) -> None:
        """Say where this replica is."""
        self.place = place
        for uid, endpoint in self.endpoints.items():
            endpoint.distance = self._distance(self.specs[uid])
            endpoint.refresh()

    def _replace(self, servers: Iterable[ServerSpec], endpoints: Iterable[EndpointSpec]) -> list[str]:
        servers, endpoints = list(servers), list(endpoints)
        listed = {spec.uid for spec in endpoints}
        keys = {spec.key for spec in servers}
        touched = [uid for gone in set(self.specs) - listed for uid in self._lose_endpoint(gone)]
        touched += self._lose_servers([key for key in self.servers if key not in keys])
        touched += self._see_servers(servers)
        for spec in endpoints:
            touched += self._see_endpoint(spec)
        return touched

    def _see_servers(self, specs: list[ServerSpec]) -> list[str]:
        changed = [spec for spec in specs if self.servers.get(spec.key) != spec]
        for spec in changed:
            self.servers[spec.key] = spec
        if changed:
            self._rebuild()
        return []

    def _lose_servers(self, keys: list[str]) -> list[str]:
        lost = [key for key in keys if self.servers.pop(key, None) is not None]
        if lost:
            self._rebuild()
        return []

    def _see_endpoint(self, spec: EndpointSpec) -> list[str]:
        known = self.specs.get(spec.uid)
        if self._is_old(spec, known):
            return []
        self.specs[spec.uid] = spec
        endpoint = self.endpoints.get(spec.uid)
        if endpoint is None or known is None:
            endpoint = self._return_endpoint(spec) or self._add_endpoint(spec)
        else:
            self._follow(endpoint, known, spec)
        endpoint.on(Event.SEEN_READY if spec.fit else Event.SEEN_UNREADY)
        return [spec.uid]

    def _follow(self, endpoint: Endpoint, known: EndpointSpec, spec: EndpointSpec) -> None:
        """Take over what is new of an endpoint. A container that was started anew remembers no prompt."""
        if _shape(known) != _shape(spec):
            self._reshape(endpoint, spec)
        if known.incarnation != spec.incarnation:
            _forget(endpoint)

    def _add_endpoint(self, spec: EndpointSpec) -> Endpoint:
        endpoint = Endpoint(
            spec.uid,
            address=spec.address,
            capacity=spec.capacity,
            gpu_memory_gb=spec.gpu_memory_gb or 0,
            added=self._added,
        )
        self._added += 1
        self.endpoints[spec.uid] = endpoint
        self._reshape(endpoint, spec)
        if 0 < spec.created_at < self.blind_before:
            endpoint.blind_since = self.blind_before
        return endpoint

    def _return_endpoint(self, spec: EndpointSpec) -> Endpoint | None:
        """Take up the record of an endpoint that was only taken out: requests may be in flight there all the time."""
        if spec.uid not in self._gone:
            return None
        _, endpoint = self._gone.pop(spec.uid)
        endpoint.on(Event.RETURNED)
        self.endpoints[spec.uid] = endpoint
        self._reshape(endpoint, spec)
        return endpoint

    def _reshape(self, endpoint: Endpoint, spec: EndpointSpec) -> None:
        """Give the endpoint what was observed of it, and its place in the pools of its server."""
        noted_in = _taken_out(endpoint)
        endpoint.address = spec.address
        endpoint.weight = spec.weight
        endpoint.gpu_tflops = spec.gpu_tflops or 0
        endpoint.distance = self._distance(spec)
        endpoint.backup = spec.backup
        endpoint.resize(spec.capacity, spec.gpu_memory_gb or 0, self.members)
        server = self.servers.get(spec.server)
        if server is not None:
            self._join(endpoint, server)
        _forget_in_those_left(endpoint, noted_in)

    def _distance(self, spec: EndpointSpec) -> int:
        if spec.node and spec.node == self.place.node:
            return SAME_NODE
        return SAME_ZONE if spec.zone and spec.zone == self.place.zone else ELSEWHERE

    def _join(self, endpoint: Endpoint, server: ServerSpec) -> None:
        endpoint.adapters = frozenset(adapter for model in server.models for adapter in model.adapters)
        endpoint.served = {_pool_key(server, model): model.served_name or model.name for model in server.models}
        endpoint.timeouts = server.timeouts
        for model in server.models:
            self._pools[_pool_key(server, model)].add(endpoint)

    def _is_old(self, spec: EndpointSpec, known: EndpointSpec | None) -> bool:
        """Whether this is old news: older than what is known, or of an endpoint that is gone.

        One that was not deleted, only taken out (a document, a label), returns with newer news; a deleted one never.
        """
        if known is not None:
            return spec.version < known.version
        if spec.uid not in self._gone:
            return False
        last, _ = self._gone[spec.uid]
        return _is_final(last) or spec.version <= last.version > 0

    def _lose_endpoint(self, uid: str) -> list[str]:
        endpoint = self.endpoints.pop(uid, None)
        if endpoint is None:
            return []
        self._gone[uid] = (self.specs.pop(uid), endpoint)
        if len(self._gone) > REMEMBERED_GONE:
            self._gone.popitem(last=False)
        endpoint.on(Event.VANISHED)
        _forget(endpoint)
        for pool in list(endpoint.pools):
            pool.remove(endpoint)
        return [uid]

    def _rebuild(self) -> None:
        """Make pools and names anew: servers change rarely, and a rebuild has no cases to forget."""
        noted_in = {uid: _taken_out(endpoint) for uid, endpoint in self.endpoints.items()}
        old, self._pools = self._pools, {}
        self._asked = {}
        self._names = {}
        for server in sorted(self.servers.values(), key=lambda s: (s.created_at, s.key)):
            for model in server.models:
                self._name(server, model, old)
        kept = {pool.notes for pool in self._pools.values()}
        for pool in self._pools.values():
            pool.notes.share(len(self._pools))
        self.curious = any(pool.policy.needs is not None for pool in self._pools.values())
        self.listens = any(pool.reads_engines for pool in self._pools.values())
        for uid, endpoint in self.endpoints.items():
            server_of = self.servers.get(self.specs[uid].server)
            if server_of is not None:
                self._join(endpoint, server_of)
            _forget_in_those_left(endpoint, kept.intersection(noted_in[uid]))

    def _name(self, server: ServerSpec, model: ModelSpec, old: dict[str, Pool]) -> None:
        """Enter a model's names. The oldest server makes the pool and its settings, and keeps a name two want.

        What the ``old`` pool of that key remembers is kept, unless its settings have changed.
        """
        key = _pool_key(server, model)
        pool = self._pools.get(key)
        if pool is None:
            before, settings = old.get(key), self._settings(key, server.pool)
            policy = before.policy if before is not None and before.settings == settings else None
            pool = self._pools[key] = Pool(settings, self._rng, policy)
            self._asked[key] = server.pool
        pool.has_adapters |= bool(model.adapters)
        for name in (model.name, *model.aliases):
            self._names.setdefault(name, {}).setdefault(server.namespace, Target(pool, key, None))
        for adapter in model.adapters:
            self._names.setdefault(adapter, {}).setdefault(server.namespace, Target(pool, key, adapter))

    def _settings(self, key: str, asked: PoolSettings) -> PoolSettings:
        """Return the settings of a pool: as asked for, but with its fallback at work if it has fallen back."""
        fallback = self._fallbacks.get(key)
        return asked if fallback is None else replace(asked, strategy=fallback)

    def pools(self) -> Iterator[tuple[str, PoolSettings, Pool]]:
        """Yield the pools: key, settings as asked for, pool."""
        return ((key, self._asked[key], pool) for key, pool in self._pools.items())

    def servers_of(self) -> dict[str, tuple[str, ...]]:
        """Return the keys of the servers whose endpoints are in each pool."""
        found: dict[str, list[str]] = {key: [] for key in self._pools}
        for server in self.servers.values():
            for model in server.models:
                found[_pool_key(server, model)].append(server.key)
        return {key: tuple(servers) for key, servers in found.items()}

    def fall_back(self, fallbacks: dict[str, str]) -> bool:
        """Have the pools of these keys use another strategy than asked for; return whether that changes anything."""
        if fallbacks == self._fallbacks:
            return False
        self._fallbacks = fallbacks
        self._rebuild()
        return True


def _pool_key(server: ServerSpec, model: ModelSpec) -> str:
    return f"{server.namespace}/{model.name}"


def _is_final(last: EndpointSpec) -> bool:
    """Whether an endpoint last seen like this is gone for good: its deletion is absorbing."""
    return last.deletion is not None or last.ended


def _taken_out(endpoint: Endpoint) -> list[Notes]:
    """Take the endpoint out of its pools; return what those remember of it."""
    notes = [pool.notes for pool in endpoint.pools]
    for pool in list(endpoint.pools):
        pool.remove(endpoint)
    return notes


def _forget_in_those_left(endpoint: Endpoint, noted_in: Iterable[Notes]) -> None:
    """Have pools that the endpoint was in, and is not in now, forget it: they would not hear that it is gone."""
    now_in = {pool.notes for pool in endpoint.pools}
    for notes in noted_in:
        if notes not in now_in:
            notes.forget(endpoint)


def _forget(endpoint: Endpoint) -> None:
    endpoint.hear(None)
    for pool in endpoint.pools:
        pool.notes.forget(endpoint)


def _shape(spec: EndpointSpec) -> tuple[object, ...]:
    """Return what the place in the pools depends on."""
    return (
        spec.server,
        spec.address,
        spec.capacity,
        spec.gpu_memory_gb,
        spec.weight,
        spec.gpu_tflops,
        spec.node,
        spec.zone,
        spec.backup,
    )


def _shown(name: str) -> str:
    return repr(name) if len(name) <= LONGEST_NAME else repr(name[:LONGEST_NAME] + "...")
