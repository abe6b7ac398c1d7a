"""The example of the first thirty seconds is valid, says what is true, and runs."""

import shlex
from pathlib import Path

from openai import OpenAI
from tests.app.programs import ROOT, model_server, serving

from tailrace.documents import read_snapshot

FILE = ROOT / "examples" / "01-serve" / "servers.yaml"
NAMES = ("demo", "gpt-4o-mini")


def test_the_file_is_valid_and_its_endpoints_are_unequal() -> None:
    snapshot = read_snapshot(FILE)
    assert [(e.address, e.capacity, e.gpu_memory_gb) for e in snapshot.endpoints] == [
        ("127.0.0.1:8001", 32, 80),
        ("127.0.0.1:8002", 8, 24),
    ]


def test_the_commands_in_its_head_start_what_it_serves() -> None:
    commands = [shlex.split(line[1:].strip(" &")) for line in FILE.read_text().splitlines() if "#   tailrace" in line]
    servers = [command for command in commands if command[1] == "model-server"]
    assert [f"127.0.0.1:{command[-1]}" for command in servers] == [e.address for e in read_snapshot(FILE).endpoints]
    assert (ROOT / commands[-1][-1]) == FILE


def test_it_runs_and_sends_long_prompts_to_the_large_endpoint(tmp_path: Path) -> None:
    with model_server(tmp_path / "a.log") as large, model_server(tmp_path / "b.log") as small:
        file = tmp_path / "servers.yaml"
        file.write_text(FILE.read_text().replace("127.0.0.1:8001", large).replace("127.0.0.1:8002", small))
        with (
            serving(file, tmp_path / "serve.log") as serve,
            OpenAI(base_url=f"http://{serve.proxy}/v1", api_key="none", max_retries=0) as client,
        ):
            assert [answer_of(client, name) for name in NAMES] == ["t0 t1 t2 "] * 2
            with client.completions.create(model="demo", prompt="Hello", max_tokens=5000, stream=True):
                assert {served_by(client, "Hello") for _ in range(3)} == {small}, "the other one is busier"
                assert {served_by(client, "word " * 20_000) for _ in range(3)} == {large}


def answer_of(client: OpenAI, model: str) -> str:
    return client.completions.create(model=model, prompt="Hello", max_tokens=3).choices[0].text


def served_by(client: OpenAI, prompt: str) -> str:
    raw = client.completions.with_raw_response.create(model="demo", prompt=prompt, max_tokens=1)
    return raw.headers["x-gateway-destination-endpoint"]
