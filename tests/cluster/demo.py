"""`make demo`: the main job on an embedded cluster, from `kubectl apply` to a rollout without a lost stream."""

from __future__ import annotations

import argparse
import asyncio
import shutil
import signal
import sys
import time
import urllib.request
from collections import Counter
from functools import partial
from pathlib import Path

from openai import AsyncOpenAI
from tests.cluster import tools
from tests.cluster.controlplane import ClusterError
from tests.cluster.embedded import ROOT, EmbeddedCluster
from tests.cluster.load import Load
from tests.cluster.replica import Replica, install

from tailrace.words import counted

WORKDIR = ROOT / ".tailrace" / "demo"
DOCUMENTS = ROOT / "examples" / "02-cluster" / "inferenceservers.yaml"
SERVERS = ("demo-h100", "demo-t4")
MODEL = "demo"
LONG_REQUESTS, LONG_TOKENS = 4, 6000
CLIENTS = 16
STEADY_SECONDS = 2.0
ROLLOUT_SECONDS = 180.0
GOODBYE = """
The cluster is gone again. To try things on it yourself, run `make demo` on a terminal: it stays up until Ctrl-C.
Without a cluster: `.venv/bin/tailrace serve -f examples/01-serve/servers.yaml`; on your own: see README.md."""


class Story:
    """Prints what happens, with the seconds since the start."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    def say(self, text: str) -> None:
        """Print one step."""
        print(f"\n[{time.monotonic() - self._began:5.1f} s] {text}", flush=True)

    def show(self, text: str) -> None:
        """Print what a command answered, indented."""
        print("\n".join(f"          {line}" for line in text.rstrip().splitlines()), flush=True)


def main() -> None:
    """Run the demo; on a terminal the cluster stays up for you to try things until Ctrl-C."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--exit", action="store_true", help="end when the story is told, also on a terminal")
    stay = sys.stdout.isatty() and not parser.parse_args().exit
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    tools.ensure()
    shutil.rmtree(WORKDIR, ignore_errors=True)
    WORKDIR.mkdir(parents=True)
    story = Story()
    story.say("starting etcd, kube-apiserver, controller-manager, scheduler and a stand-in kubelet")
    with EmbeddedCluster(WORKDIR) as cluster:
        install(cluster)
        story.say("starting Tailrace (`tailrace run`) with the shipped RBAC and its own service account")
        with Replica(cluster, ["default"]) as replica:
            lost = asyncio.run(_tell(story, cluster, replica))
            if stay:
                _invite(cluster, replica)
    if not stay:
        print(GOODBYE, flush=True)
    sys.exit(1 if lost else 0)


async def _tell(story: Story, cluster: EmbeddedCluster, replica: Replica) -> int:
    """Tell the story; return how many streams were lost."""
    story.say(f"kubectl apply -f {DOCUMENTS.relative_to(ROOT)}")
    story.show(cluster.kubectl("apply", "-f", str(DOCUMENTS)).stdout)
    await asyncio.to_thread(_wait_until_ready, cluster)
    story.show(cluster.kubectl("get", "isvr").stdout)
    story.say("a streamed answer, by the official openai client through the proxy:")
    await _stream(replica)
    story.say(f"{LONG_REQUESTS} prompts of about {LONG_TOKENS} tokens, which need 80 GB of GPU memory or more:")
    story.show(await _send_long_prompts(replica))
    story.say("an ingress asks /route where a request should go:")
    story.show(_ask_route(replica))
    return await _roll_out(story, cluster, replica)


def _wait_until_ready(cluster: EmbeddedCluster) -> None:
    for name in SERVERS:
        cluster.kubectl("wait", "--for=condition=Ready", f"isvr/{name}", "--timeout=60s")


async def _stream(replica: Replica) -> None:
    async with AsyncOpenAI(base_url=f"{replica.proxy}/v1", api_key="none", max_retries=0) as client:
        stream = await client.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": "Count for me."}], max_tokens=24, stream=True
        )
        print("          ", end="")
        async for chunk in stream:
            for choice in chunk.choices:
                print(choice.delta.content or "", end="", flush=True)
        print(flush=True)


async def _send_long_prompts(replica: Replica) -> str:
    """Return which pods answered, and what kept the others from being asked."""
    prompt = "word " * (LONG_TOKENS * 4 // len("word "))
    async with AsyncOpenAI(base_url=f"{replica.proxy}/v1", api_key="none", max_retries=0) as client:
        ask = partial(client.completions.with_raw_response.create, model=MODEL, prompt=prompt, max_tokens=5)
        answers = await asyncio.gather(*(ask() for _ in range(LONG_REQUESTS)))
    served = Counter(answer.headers["x-gateway-destination-endpoint"] for answer in answers)
    pods = {pod["address"]: pod for pod in replica.get("/endpoints")["endpoints"]}
    lines = [f"{n} answered by {pods[at]['name']} ({pods[at]['gpuMemoryGB']} GB)" for at, n in served.items()]
    candidates = replica.get(f"/debug/pick?model={MODEL}&tokens={LONG_TOKENS}")["candidates"]
    lines += [f"not {each['name']}: {'; '.join(each['against'])}" for each in candidates if each["against"]]
    return "\n".join(lines)


def _ask_route(replica: Replica) -> str:
    url = f"{replica.routing}/route?model={MODEL}&tokens=200"
    with urllib.request.urlopen(url, timeout=10) as answer:
        headers = ("x-gateway-destination-endpoint", "x-tailrace-request")
        lines = [f"curl -i '{url}'", f"HTTP {answer.status}", *(f"{name}: {answer.headers[name]}" for name in headers)]
        attempt = answer.headers["x-tailrace-request"]
    done = urllib.request.Request(f"{replica.routing}/complete/{attempt}", method="POST")
    with urllib.request.urlopen(done, timeout=10) as answer:
        return "\n".join([*lines, f"curl -X POST {replica.routing}/complete/{attempt}  ->  HTTP {answer.status}"])


async def _roll_out(story: Story, cluster: EmbeddedCluster, replica: Replica) -> int:
    story.say(f"kubectl rollout restart, while {CLIENTS} clients stream without retries:")
    async with Load(replica.proxy, MODEL, clients=CLIENTS, tokens=(60, 200)) as load:
        await asyncio.sleep(STEADY_SECONDS)
        old = {pod["metadata"]["uid"] for pod in cluster.get("pods")["items"]}
        for name in SERVERS:
            cluster.kubectl("rollout", "restart", f"deployment/{name}")
        deadline = time.monotonic() + ROLLOUT_SECONDS
        while await asyncio.to_thread(_is_rolling, cluster, old):
            if time.monotonic() > deadline:
                raise ClusterError(f"the rollout was not over in {ROLLOUT_SECONDS:g} s; see the logs of the cluster")
            pods = cluster.get("pods")["items"]
            draining = sum("deletionTimestamp" in pod["metadata"] for pod in pods)
            story.show(
                f"{len(load.records) - len(load.running):4d} streams complete, {len(load.losses)} lost, "
                f"{len(load.running)} running, {counted(draining, 'pod')} draining"
            )
            await asyncio.sleep(1)
    story.say(f"rolled out: {len(load.records)} streams, {len(load.losses)} lost. Every pod is a new one:")
    story.show(cluster.kubectl("get", "pods").stdout)
    story.show(cluster.kubectl("get", "isvr").stdout)
    return len(load.losses)


def _is_rolling(cluster: EmbeddedCluster, old: set[str]) -> bool:
    """Whether one of the old pods is left, or a new one is not yet said to be ready."""
    if old & {pod["metadata"]["uid"] for pod in cluster.get("pods")["items"]}:
        return True
    servers = cluster.get("isvr")["items"]
    return any(one["status"]["ready"] != "{0}/{0}".format(one["spec"]["replicas"]) for one in servers)


def _invite(cluster: EmbeddedCluster, replica: Replica) -> None:
    folder = Path(cluster.kubectl_path).parent
    print(
        f"""
The cluster stays up until Ctrl-C. In another shell:

  export KUBECONFIG={cluster.kubeconfig} PATH={folder}:$PATH
  kubectl get isvr                         # who serves what
  kubectl scale isvr/demo-h100 --replicas=3
  kubectl describe isvr/demo-t4            # conditions, drains, events
  curl {replica.proxy}/v1/models
  curl {replica.proxy}/v1/chat/completions -d '{{"model": "demo", "stream": true, "max_tokens": 50,
       "messages": [{{"role": "user", "content": "hello"}}]}}'
  .venv/bin/tailrace status --admin {replica.admin}
  .venv/bin/tailrace explain demo --tokens 6000 --admin {replica.admin}
  curl {replica.admin}/metrics
""",
        flush=True,
    )
    try:
        signal.pause()
    except KeyboardInterrupt:
        print("\nending the cluster", flush=True)


if __name__ == "__main__":
    main()
