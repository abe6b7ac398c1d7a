"""The model-server families: one row each, with their paths and the names of their gauges."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Series:
    """A metric name and the labels a sample must carry to belong to it."""

    name: str
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Family:
    """What Tailrace knows about one kind of model server.

    `metrics_path` is None for a family without gauges. `metrics_ports` are asked after the engine's own port.
    `running` and `waiting` must both be there for a reading to count; `held` are what some versions or roles report
    besides, read when present. `kv_usage` lists new and old names: the first that is there wins.

    Not all tell the rest: `gpu_usage` is 0..1; `memory_used` and `memory_total` are those of the GPUs, in bytes.
    `adapters` holds lists of LoRA adapters in the labels `adapter_labels`, the newest sample being the one with the
    highest value. `documents` are paths of JSON documents by what they are, a key of `engines.readings.DOCUMENTS`.
    """

    name: str
    health_path: str
    metrics_path: str | None = None
    metrics_ports: tuple[int, ...] = ()
    running: Series | None = None
    waiting: Series | None = None
    held: tuple[Series, ...] = ()
    kv_usage: tuple[Series, ...] = ()
    gpu_usage: Series | None = None
    memory_used: Series | None = None
    memory_total: Series | None = None
    adapters: Series | None = None
    adapter_labels: tuple[str, ...] = ()
    documents: Mapping[str, str] = field(default_factory=dict)

    @property
    def has_gauges(self) -> bool:
        """Whether this family says how many requests run and wait."""
        return self.metrics_path is not None


def _triton(request_type: str) -> Series:
    return Series("nv_trt_llm_request_metrics", {"request_type": request_type})


_ROWS = (
    Family(
        name="vllm",
        health_path="/health",
        metrics_path="/metrics",
        running=Series("vllm:num_requests_running"),
        waiting=Series("vllm:num_requests_waiting"),
        held=(Series("vllm:num_requests_swapped"),),  # before 0.8: preempted to CPU memory, still owed an answer
        kv_usage=(Series("vllm:kv_cache_usage_perc"), Series("vllm:gpu_cache_usage_perc")),
        adapters=Series("vllm:lora_requests_info"),
        adapter_labels=("running_lora_adapters", "waiting_lora_adapters"),
    ),
    Family(
        name="sglang",
        health_path="/health",
        metrics_path="/metrics",
        running=Series("sglang:num_running_reqs"),
        waiting=Series("sglang:num_queue_reqs"),
        held=tuple(  # grammars being compiled, and the hand-over between prefill and decode servers
            Series(f"sglang:num_{queue}_reqs")
            for queue in (
                "grammar_queue",
                "prefill_bootstrap_queue",
                "prefill_prealloc_queue",
                "prefill_inflight_queue",
                "decode_prealloc_queue",
                "decode_transfer_queue",
            )
        ),
        kv_usage=(Series("sglang:token_usage"),),
    ),
    Family(
        name="trtllm",
        health_path="/health",
        metrics_path="/prometheus/metrics",  # its /metrics answers JSON
        running=Series("trtllm_num_requests_running"),
        waiting=Series("trtllm_num_requests_waiting"),
        kv_usage=(Series("trtllm_kv_cache_utilization"),),
    ),
    Family(
        name="triton",
        health_path="/v2/health/ready",
        metrics_path="/metrics",
        metrics_ports=(8002,),  # the server's own metrics port; its OpenAI front end has them on the front end's
        running=_triton("scheduled"),
        waiting=_triton("waiting"),
        held=(_triton("active"),),  # scheduled ones again, and those paused between two steps
        kv_usage=(Series("nv_trt_llm_kv_cache_block_metrics", {"kv_cache_block_type": "fraction"}),),
        gpu_usage=Series("nv_gpu_utilization"),
        memory_used=Series("nv_gpu_memory_used_bytes"),
        memory_total=Series("nv_gpu_memory_total_bytes"),
    ),
    Family(
        name="tgi",
        health_path="/health",
        metrics_path="/metrics",
        running=Series("tgi_batch_current_size"),
        waiting=Series("tgi_queue_size"),
    ),
    Family(
        name="llamacpp",
        health_path="/health",
        metrics_path="/metrics",
        running=Series("llamacpp:requests_processing"),
        waiting=Series("llamacpp:requests_deferred"),
        kv_usage=(Series("llamacpp:kv_cache_usage_ratio"),),  # until 2025
        documents={"slots": "/slots"},
    ),
    Family(name="ollama", health_path="/", documents={"models": "/api/ps"}),
    Family(name="openai", health_path="/v1/models"),
)

FAMILIES: Mapping[str, Family] = {row.name: row for row in _ROWS}
"""Every family by its name, the value of an InferenceServer's `engine`."""


def family(engine: str) -> Family:
    """Return the family of an `engine` value; ValueError names the known ones."""
    try:
        return FAMILIES[engine]
    except KeyError:
        known = ", ".join(FAMILIES)
        raise ValueError(f"engine: {engine!r} is not known; use one of {known}") from None
