"""`tailrace model-server`: a model server that behaves like vLLM, for machines without a GPU."""

from pathlib import Path
from typing import Annotated, Any

import typer

from tailrace.sim.options import OnSigterm, Options
from tailrace.sim.profile import Profile

DEFAULT_MODEL = "demo"
DEFAULT = Profile()


def _serving(help_text: str, **settings: Any) -> Any:  # noqa: ANN401 - typer's own types
    return typer.Option(help=help_text, rich_help_panel="Serving", **settings)


def _engine(help_text: str, **settings: Any) -> Any:  # noqa: ANN401
    return typer.Option(help=help_text, rich_help_panel="Engine", **settings)


def _testing(help_text: str, *names: str, **settings: Any) -> Any:  # noqa: ANN401
    return typer.Option(*names, help=help_text, rich_help_panel="Testing", **settings)


Models = Annotated[list[str] | None, _serving("Served name; repeatable.", show_default=DEFAULT_MODEL)]
Adapters = Annotated[list[str] | None, _serving("LoRA adapter served beside the model; repeatable.")]
Host = Annotated[str, _serving("Address to listen on.")]
Port = Annotated[int, _serving("Port to listen on; 0 takes a free one and prints it.", min=0, max=65535)]
Startup = Annotated[
    float, _serving("How long the model loads: the port answers, /health and inference say 503.", min=0)
]
Sigterm = Annotated[
    OnSigterm,
    _serving("`abort` cuts requests in flight at once, as vLLM does by default; `finish` lets them end."),
]
Slots = Annotated[int, _engine("Requests that run at once; more wait in order.", min=1)]
Prefill = Annotated[float, _engine("Uncached prompt tokens computed per second, shared by all requests.", min=0.001)]
TtftBase = Annotated[float, _engine("Added to every time to first token.", min=0)]
Itl = Annotated[float, _engine("Inter-token latency of a request that runs alone.", min=0.001)]
ItlGrowth = Annotated[float, _engine("Part by which each further running request lengthens it.", min=0)]
Jitter = Annotated[float, _engine("Largest relative deviation of the two latencies.", min=0, max=1)]
KvTokens = Annotated[int, _engine("Tokens that fit in the KV cache; requests wait when it is full.", min=1)]
PrefixTokens = Annotated[
    int | None, _engine("Tokens the prefix cache remembers; 0 turns it off.", min=0, show_default="as --kv-tokens")
]
Speed = Annotated[float, _engine("Run the whole engine this many times faster.", min=0.001)]
Seed = Annotated[int, _engine("Seed of the jitter.")]
Log = Annotated[
    Path | None,
    _testing("Append JSON lines: start and end of every request, SIGTERM, exit.", "--request-log", dir_okay=False),
]
WithFaults = Annotated[bool, _testing("Serve POST /faults: hang, slow, stall_request, die.", "--faults")]
OldNames = Annotated[
    bool, _testing("Show vllm:gpu_cache_usage_perc, the name of older vLLM versions.", "--old-metric-names")
]


def model_server(
    *,
    model: Models = None,
    adapter: Adapters = None,
    host: Host = "127.0.0.1",
    port: Port = 8000,
    startup_seconds: Startup = 0.0,
    on_sigterm: Sigterm = OnSigterm.ABORT,
    max_num_seqs: Slots = DEFAULT.max_num_seqs,
    prefill_tokens_per_second: Prefill = DEFAULT.prefill_tokens_per_second,
    ttft_base_ms: TtftBase = DEFAULT.ttft_base * 1000,
    itl_ms: Itl = DEFAULT.itl * 1000,
    itl_growth: ItlGrowth = DEFAULT.itl_growth,
    jitter: Jitter = DEFAULT.jitter,
    kv_tokens: KvTokens = DEFAULT.kv_tokens,
    prefix_cache_tokens: PrefixTokens = None,
    speed: Speed = 1.0,
    seed: Seed = 0,
    request_log: Log = None,
    faults: WithFaults = False,
    old_metric_names: OldNames = False,
) -> None:
    """Serve the OpenAI API like vLLM, without a GPU.

    Queue, prefill, decode, KV cache and prefix cache are simulated, with vLLM's metrics. An answer is numbered
    tokens (t0 t1 t2 ...), so a client can see whether it got them all; max_tokens says how many, 16 by default.

    Exit codes: 0 after SIGTERM or SIGINT, 1 if the port or the request log cannot be had, 2 for a wrong option.
    """
    from tailrace.sim.process import run  # noqa: PLC0415 - `tailrace --help` must not load a web server

    profile = Profile(
        max_num_seqs=max_num_seqs,
        prefill_tokens_per_second=prefill_tokens_per_second,
        ttft_base=ttft_base_ms / 1000,
        itl=itl_ms / 1000,
        itl_growth=itl_growth,
        jitter=jitter,
        kv_tokens=kv_tokens,
        prefix_cache_tokens=kv_tokens if prefix_cache_tokens is None else prefix_cache_tokens,
    )
    run(
        Options(
            models=tuple(model or [DEFAULT_MODEL]),
            adapters=tuple(adapter or []),
            host=host,
            port=port,
            profile=profile,
            speed=speed,
            seed=seed,
            startup_seconds=startup_seconds,
            on_sigterm=on_sigterm,
            request_log=request_log,
            faults=faults,
            old_metric_names=old_metric_names,
        )
    )
