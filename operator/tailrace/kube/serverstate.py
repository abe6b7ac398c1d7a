"""An InferenceServer -> what the core needs of it. Pure."""

from __future__ import annotations

from typing import TypedDict

from tailrace.api.inferenceserver import FixedEndpoint, InferenceServer
from tailrace.api.spec import SessionMode, WhenPoor
from tailrace.core.model import DrainSpec, EndpointSpec, ModelSpec, PoolSettings, ServerSpec, Timeouts


class _Fallback(TypedDict, total=False):
    fallback: str
    fallback_after: float
    fallback_for: float


def server_key(server: InferenceServer) -> str:
    """Return ``namespace/name``."""
    return f"{server.metadata.namespace}/{server.metadata.name}"


def server_spec(server: InferenceServer) -> ServerSpec:
    """Return the server as the core needs it."""
    spec, created = server.spec, server.metadata.creation_timestamp
    return ServerSpec(
        key=server_key(server),
        namespace=server.metadata.namespace,
        models=tuple(ModelSpec(model.name, model.aliases, model.adapters, model.served_name) for model in spec.models),
        engine=spec.engine.value,
        created_at=created.timestamp() if created else 0.0,
        pool=pool_settings(server),
        timeouts=Timeouts(
            connect=spec.timeouts.connect_seconds,
            first_byte=spec.timeouts.first_byte_seconds,
            idle=spec.timeouts.idle_seconds,
            total=spec.timeouts.total_seconds,
        ),
    )


def pool_settings(server: InferenceServer) -> PoolSettings:
    """Return what a pool would take from this server."""
    balancing = server.spec.load_balancing
    weights = balancing.score_weights
    return PoolSettings(
        strategy=balancing.strategy.value,
        long_prompt_tokens=balancing.long_prompt_tokens,
        long_prompt_min_gpu_memory_gb=balancing.long_prompt_min_gpu_memory_gb,
        weight_by=balancing.weight_by.value,
        latency=balancing.latency.value,
        session_header=balancing.session.header,
        session_ttl=balancing.session.ttl_seconds,
        hard_sessions=balancing.session.mode is SessionMode.HARD,
        max_load_percent=balancing.max_load_percent,
        read_engines=balancing.engine_metrics.read.value,
        engine_interval=balancing.engine_metrics.interval_seconds,
        max_kv_usage=balancing.max_kv_usage_percent / 100,
        spill_percent=balancing.spill_percent,
        queue_size=server.spec.queue.max_requests,
        queue_seconds=min(server.spec.queue.max_wait_seconds, server.spec.timeouts.total_seconds),
        **_fallback(balancing.when_poor),
        score_weights=(weights.gpu_percent, weights.memory_percent, weights.queue_percent, weights.latency_percent),
    )


def _fallback(poor: WhenPoor | None) -> _Fallback:
    if poor is None:
        return {}
    return {"fallback": poor.strategy.value, "fallback_after": poor.after_seconds, "fallback_for": poor.for_seconds}


def fixed_endpoints(server: InferenceServer) -> tuple[EndpointSpec, ...]:
    """Return the endpoints that the document itself names; they are always ready and belong to nobody's pod."""
    return tuple(_fixed(server, endpoint) for endpoint in server.spec.endpoints or ())


def _fixed(server: InferenceServer, endpoint: FixedEndpoint) -> EndpointSpec:
    spec, key = server.spec, server_key(server)
    drain = spec.drain
    return EndpointSpec(
        uid=f"{key}/{endpoint.address}",
        server=key,
        name=endpoint.address,
        address=endpoint.address,
        capacity=endpoint.capacity or spec.capacity,
        ready=True,
        gpu_memory_gb=endpoint.gpu_memory_gb or spec.gpu_memory_gb,
        weight=endpoint.weight or spec.weight,
        gpu_tflops=endpoint.gpu_tflops or spec.gpu_tflops,
        zone=endpoint.zone,
        backup=spec.backup if endpoint.backup is None else endpoint.backup,
        drain=DrainSpec(drain.timeout_seconds, drain.settle_seconds, drain.shutdown_seconds),
    )
