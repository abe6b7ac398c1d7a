"""`tailrace simulate`: which strategy, and how many pods, for the requests at hand."""

from pathlib import Path
from typing import Annotated, Any

import typer

from tailrace.words import counted

DEFAULT_STRATEGIES = (
    "WeightedLeastConnections, PowerOfTwoChoices, LeastTokens, LeastEstimatedTTFT, "
    "kubeai-prefix-hash, sglang-cache-aware, llm-d-scorers"
)


def _requests(help_text: str, *names: str, **settings: Any) -> Any:  # noqa: ANN401 - typer's own types
    return typer.Option(*names, help=help_text, rich_help_panel="Requests", **settings)


def _fleet(help_text: str, **settings: Any) -> Any:  # noqa: ANN401
    return typer.Option(help=help_text, rich_help_panel="Fleet", **settings)


TraceFile = Annotated[
    Path | None,
    _requests(
        "Recorded requests: Mooncake's JSON lines, Azure's CSV, or a CSV with the columns seconds, prompt, output and, "
        "if there are sessions, session."
    ),
]
Workload = Annotated[
    str, _requests("Made requests: no-sharing, system-prompt, hot-prefix, bursts or sessions; ignored with --trace.")
]
Rate = Annotated[float, _requests("Made requests a second.", min=0.001)]
Seconds = Annotated[float, _requests("For how long, made or recorded; 0 takes a whole trace.", min=0)]
Loads = Annotated[list[float] | None, _requests("Times that rate; repeatable.", "--load", show_default="1")]
Seeds = Annotated[
    int, _requests("Runs of each strategy: each with other made requests, or its part of the trace.", min=1, max=100)
]
Names = Annotated[str, typer.Option(help="Names, with commas between; `all` are all there are.")]
Pods = Annotated[int, _fleet("How many pods.", min=1, max=10_000)]
SlowPods = Annotated[int, _fleet("How many of them are slower.", min=0)]
SlowSpeed = Annotated[float, _fleet("How fast those are, 1 being as the others.", min=0.01)]
Capacity = Annotated[
    int, _fleet("Requests that a pod takes at once, for the router and in the engine.", min=1, max=1000)
]
Routers = Annotated[
    int, _fleet("Replicas of the router, which know of their own requests only; peers' rules see all.", min=1, max=1000)
]
Prefill = Annotated[float, _fleet("Uncached prompt tokens a pod computes in a second.", min=1)]
KvTokens = Annotated[int, _fleet("Tokens in a pod's KV cache, and in its prefix cache.", min=1000)]

Plots = Annotated[Path | None, typer.Option(help="HTML page to write: TTFT and the load of each pod over time.")]


def simulate(
    *,
    trace: TraceFile = None,
    workload: Workload = "sessions",
    rate: Rate = 10.0,
    seconds: Seconds = 120.0,
    load: Loads = None,
    seeds: Seeds = 5,
    strategies: Names = DEFAULT_STRATEGIES,
    pods: Pods = 8,
    slow_pods: SlowPods = 0,
    slow_speed: SlowSpeed = 0.5,
    capacity: Capacity = 64,
    routers: Routers = 1,
    prefill_tokens_per_second: Prefill = 8000.0,
    kv_tokens: KvTokens = 1_000_000,
    plots: Plots = None,
) -> None:
    """Simulate strategies on the same requests and compare them in a table.

    Tailrace's strategies are the very code that `tailrace run` picks with; other routers' are written anew from their
    published rules. Engines are simulated: one prefill at a time, a batch that decodes, KV and prefix caches. Figures
    are means over the seeds, with the half-width of their 95 % interval.

    Exit codes: 0, or 2 for a wrong option or a trace that cannot be read.
    """
    from tailrace.simulate.balancers import names  # noqa: PLC0415 - `tailrace --help` must not load a simulator
    from tailrace.simulate.engine import Hardware  # noqa: PLC0415
    from tailrace.simulate.plots import page  # noqa: PLC0415
    from tailrace.simulate.report import table  # noqa: PLC0415
    from tailrace.simulate.requests import source  # noqa: PLC0415
    from tailrace.simulate.study import study  # noqa: PLC0415
    from tailrace.simulate.trace import BadTraceError  # noqa: PLC0415

    wanted = names() if strategies == "all" else [name.strip() for name in strategies.split(",")]
    unknown = [name for name in wanted if name not in names()]
    if unknown:
        raise typer.BadParameter(f"no strategy {', '.join(unknown)}; there are {', '.join(names())}")
    if slow_pods > pods:
        raise typer.BadParameter(f"{slow_pods} slow pods of {pods}; ask for fewer, or for more pods")
    try:
        requests = source(trace, workload, rate=rate, seconds=seconds, parts=seeds)
    except BadTraceError as error:
        raise typer.BadParameter(str(error)) from error
    quick = Hardware(slots=capacity, prefill=prefill_tokens_per_second, kv_tokens=kv_tokens, cache_tokens=kv_tokens)
    slow = Hardware(slow_speed, capacity, prefill_tokens_per_second, kv_tokens=kv_tokens, cache_tokens=kv_tokens)
    fleet = [slow] * slow_pods + [quick] * (pods - slow_pods)
    sections = []
    for times in load or [1.0]:
        rows = study(
            lambda seed, times=times: requests(seed).faster(times),  # type: ignore[misc]
            fleet,
            wanted,
            seeds=seeds,
            capacity=capacity,
            routers=routers,
        )
        title = _title(times, pods, slow_pods, slow_speed)
        typer.echo(table(title, rows))
        sections.append((title, rows))
    if plots is not None:
        _write(plots, page(f"tailrace simulate: {trace.name if trace else workload}", sections))


def _title(times: float, pods: int, slow_pods: int, slow_speed: float) -> str:
    slow = f", {slow_pods} of them at {slow_speed:g} times the speed" if slow_pods else ""
    return f"{times:g} times the rate, {counted(pods, 'pod')}{slow}"


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise typer.BadParameter(f"{path} cannot be written: {error.strerror or error}") from error
