"""`GET /metrics`: Prometheus text with vLLM's names."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from tailrace.sim.histogram import Histogram
from tailrace.sim.sequence import Stage
from tailrace.sim.service import Service
from tailrace.sim.tokens import BLOCK_TOKENS

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

KV_USAGE = "kv_cache_usage_perc"
OLD_KV_USAGE = "gpu_cache_usage_perc"


@dataclass(frozen=True, slots=True)
class Exposition:
    """What a scrape shows beside the service's own figures."""

    model_name: str
    adapters: Sequence[str] = ()
    old_names: bool = False
    """Show the KV usage by its name of before vLLM 0.10."""

    def render(self, service: Service) -> str:
        """Return the metrics of `service` as text."""
        lines: list[str] = []
        for name, kind, value in self._scalars(service):
            lines += _family(name, kind, [(self._labels(), value)])
        lines += self._ends(service)
        lines += self._cache_config(service)
        lines += self._histogram("time_to_first_token_seconds", service.ttft)
        lines += self._histogram("e2e_request_latency_seconds", service.duration)
        if self.adapters:
            lines += self._adapters(service)
        return "\n".join(lines) + "\n"

    def _labels(self, **more: str) -> dict[str, str]:
        return {"engine": "0", "model_name": self.model_name, **more}

    def _scalars(self, service: Service) -> Iterator[tuple[str, str, float]]:
        engine, counters = service.engine, service.engine.counters
        yield "num_requests_running", "gauge", engine.running
        yield "num_requests_waiting", "gauge", engine.waiting
        yield OLD_KV_USAGE if self.old_names else KV_USAGE, "gauge", engine.kv_usage
        yield "prompt_tokens_total", "counter", counters.prompt_tokens
        yield "generation_tokens_total", "counter", counters.generated_tokens
        yield "prefix_cache_queries_total", "counter", counters.prefix_queries
        yield "prefix_cache_hits_total", "counter", counters.prefix_hits

    def _ends(self, service: Service) -> list[str]:
        reasons = ("stop", "length", "abort")
        samples = [(self._labels(finished_reason=reason), float(service.ends[reason])) for reason in reasons]
        return _family("request_success_total", "counter", samples)

    def _cache_config(self, service: Service) -> list[str]:
        blocks = service.engine.profile.kv_tokens // BLOCK_TOKENS
        labels = {"block_size": str(BLOCK_TOKENS), "engine": "0", "num_gpu_blocks": str(blocks)}
        return _family("cache_config_info", "gauge", [(labels, 1.0)])

    def _histogram(self, name: str, histogram: Histogram) -> list[str]:
        lines = [f"# TYPE vllm:{name} histogram"]
        lines += [_sample(f"{name}_bucket", self._labels(le=bound), below) for bound, below in histogram.buckets()]
        lines.append(_sample(f"{name}_count", self._labels(), histogram.count))
        lines.append(_sample(f"{name}_sum", self._labels(), histogram.total))
        return lines

    def _adapters(self, service: Service) -> list[str]:
        waiting = {sequence.salt for sequence in service.engine.sequences() if sequence.stage is Stage.WAITING}
        running = {sequence.salt for sequence in service.engine.sequences() if sequence.stage is not Stage.WAITING}
        labels = {
            "max_lora": str(len(self.adapters)),
            "running_lora_adapters": ",".join(name for name in self.adapters if name in running),
            "waiting_lora_adapters": ",".join(name for name in self.adapters if name in waiting),
        }
        return _family("lora_requests_info", "gauge", [(labels, time.time())])


def _family(name: str, kind: str, samples: Sequence[tuple[Mapping[str, str], float]]) -> list[str]:
    return [f"# TYPE vllm:{name} {kind}", *(_sample(name, labels, value) for labels, value in samples)]


def _sample(name: str, labels: Mapping[str, str], value: float) -> str:
    pairs = ",".join(f'{key}="{_escape(text)}"' for key, text in labels.items())
    return f"vllm:{name}{{{pairs}}} {float(value)}"


def _escape(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
