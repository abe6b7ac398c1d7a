"""A real engine: llama.cpp's server behind the proxy, as the sample of manifests/ runs it, on a tiny model."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
import yaml
from tests.cluster.embedded import ROOT
from tests.cluster.load import Load, Record
from tests.cluster.servers import Document, Servers, eventually
from tests.node import llama_image
from tests.node.documents import RESTRICTED
from tests.node.nodes import NodeCluster
from tests.node.release import Release
from tests.node.witness import Witness

SAMPLE = ROOT / "manifests/samples/llamacpp.yaml"
PREFIX = "You answer in the words of a river. " * 20
"""What the prompts begin with; the tiny model has a token for each of these letters."""


def document() -> Document:
    """Return the sample with the tiny model for its own, no GPU, and probes that ask every second."""
    found: Document = yaml.safe_load(SAMPLE.read_text())
    found["spec"]["replicas"] = 1
    container = found["spec"]["template"]["spec"]["containers"][0]
    flags = [flag for flag in container["args"] if not flag.startswith("--hf-repo=")]
    container |= {"image": llama_image.IMAGE, "imagePullPolicy": "Never", "securityContext": RESTRICTED}
    container |= {"args": [f"--model={llama_image.MODEL_FILE}", "--threads=1", *flags]}
    container["resources"] = {"limits": {"cpu": "500m"}}
    container["startupProbe"]["periodSeconds"] = container["readinessProbe"]["periodSeconds"] = 1
    container["readinessProbe"]["timeoutSeconds"] = 10  # it has half of a core that others may need
    return found


SERVER = document()
NAME = SERVER["metadata"]["name"]
MODEL = SERVER["spec"]["models"][0]["name"]
PORT = SERVER["spec"]["port"]


@dataclass
class Answers(Load):
    """Streams from a real engine, whose own count of tokens is what was received; its words are noise."""

    cached: dict[str, int] = field(default_factory=dict)
    """Tokens of each prompt that the engine had already, by request id."""

    async def _read(self, record: Record, prompt: str) -> None:
        stream = await self._openai.chat.completions.create(
            model=self.model,
            messages=[{"role": "system", "content": PREFIX}, {"role": "user", "content": prompt}],
            max_tokens=record.wanted,
            stream=True,
            stream_options={"include_usage": True},
            extra_headers={"x-request-id": record.id},
            extra_body={"ignore_eos": True},
        )
        async for chunk in stream:
            for choice in chunk.choices:
                record.first_at = record.first_at or time.time()
                record.finish_reason = choice.finish_reason or record.finish_reason
            if chunk.usage is not None and chunk.usage.prompt_tokens_details is not None:
                record.received = chunk.usage.completion_tokens
                self.cached[record.id] = chunk.usage.prompt_tokens_details.cached_tokens or 0


@pytest.fixture(scope="module")
def engine(own: NodeCluster, servers: Servers) -> Iterator[Servers]:
    """Yield the namespace of the models with one ready pod of the real engine."""
    own.ctr("images", "import", "--local", str(llama_image.ensure()))
    servers.apply(SERVER)
    servers.wait_ready(NAME, 1)
    yield servers
    servers.kubectl("delete", "isvr", NAME, "--wait=false", check=False)


async def test_a_real_engine_streams_and_tells_what_it_had_of_a_prompt(engine: Servers, release: Release) -> None:
    async with Answers(release.proxy, MODEL, clients=0) as answers:
        first = await answers.one(20, "Where do you come from?")
        second = await answers.one(20, "Where do you go?")
    assert first.complete, first
    assert second.complete, second
    assert answers.cached[first.id] == 0
    assert answers.cached[second.id] > len(PREFIX)
    assert engine.condition(NAME, "DrainProtected")["status"] == "True"


async def test_a_restart_of_a_real_engine_loses_no_stream(engine: Servers, release: Release) -> None:
    load = Answers(release.proxy, MODEL, clients=4, tokens=(300, 900), seed=7)
    async with load, Witness(engine, load, PORT) as witness:
        await asyncio.to_thread(eventually, lambda: len([one for one in load.running if one.first_at]) > 1)
        await asyncio.to_thread(engine.kubectl, "rollout", "restart", f"deployment/{NAME}")
        await witness.gone(1)
    assert not load.losses, str(load.losses[:3])
    (went,) = witness.going.values()
    assert went.streaming, "the run is invalid: the pod had no stream when it was deleted"
    served_by = {one.endpoint for one in load.records.values()}
    assert len(served_by) == 2, f"the old pod and the new one, not {served_by}"
