"""InferenceServers from a file: what is served, what is refused in which words, and how changes are followed."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random

import pytest
from tests.app.waiting import eventually

from tailrace.core.model import Pick, Request, Snapshot
from tailrace.core.router import Router
from tailrace.documents import BadDocumentsError, DocumentWatch, read_snapshot

HEAD = "apiVersion: inference.tailrace.dev/v1alpha1\nkind: InferenceServer\n"
GOOD = f"""\
# comments come first
{HEAD}metadata: {{name: llama, namespace: shop}}
spec:
  models: [{{name: meta-llama/Llama-3-70B, aliases: [gpt-4o-mini], servedName: llama-3-70b}}]
  engine: sglang
  capacity: 8
  gpuMemoryGB: 80
  drain: {{timeoutSeconds: 60, settleSeconds: 1, shutdownSeconds: 5}}
  endpoints:
  - {{address: "10.0.0.7:8000"}}
  - {{address: "10.0.0.8:8000", capacity: 2, gpuMemoryGB: 24}}
"""
POLL = 0.01


def server(name: str, *addresses: str, model: str = "m") -> str:
    """Return a document that serves one model at these addresses."""
    endpoints = ", ".join(f'{{address: "{address}"}}' for address in addresses)
    return f"---\n{HEAD}metadata: {{name: {name}}}\nspec: {{models: [{{name: {model}}}], endpoints: [{endpoints}]}}\n"


ONE, TWO = server("one", "10.0.0.1:1"), server("two", "10.0.0.2:1")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "servers.yaml"


# One reading


def test_a_good_file_says_what_to_serve_where(path: Path) -> None:
    path.write_text(GOOD + server("two", "[::1]:9", model="other"))
    snapshot = read_snapshot(path)
    first, second = snapshot.servers
    assert (first.key, first.namespace, first.engine) == ("shop/llama", "shop", "sglang")
    assert (first.models[0].name, first.models[0].served_name) == ("meta-llama/Llama-3-70B", "llama-3-70b")
    assert second.key == "default/two"
    assert [(e.server, e.address, e.capacity, e.gpu_memory_gb, e.ready) for e in snapshot.endpoints] == [
        ("shop/llama", "10.0.0.7:8000", 8, 80, True),
        ("shop/llama", "10.0.0.8:8000", 2, 24, True),
        ("default/two", "[::1]:9", 32, None, True),
    ]
    drain = snapshot.endpoints[0].drain
    assert (drain.timeout, drain.settle, drain.shutdown) == (60, 1, 5)


def test_a_byte_order_mark_is_no_problem(path: Path) -> None:
    path.write_bytes(b"\xef\xbb\xbf" + ONE.encode())
    assert len(read_snapshot(path).endpoints) == 1


BAD: dict[str, tuple[str, str]] = {
    "empty": ("", ": holds no InferenceServer document; add one"),
    "only comments": ("# nothing\n---\n", ": holds no InferenceServer document; add one"),
    "no YAML": ("a: 1\nb: [\n", ":3: document without a name: line 3: not YAML"),
    "a list": ("- 1\n- 2\n", ":1: document without a name: an InferenceServer is a mapping"),
    "another kind": (
        "kind: Service\nmetadata: {name: web}\n",
        ":1: web: kind: must be 'InferenceServer', not the text",
    ),
    "a name missing": (
        ONE.replace("metadata: {name: one}\n", "metadata: {}\n"),
        "document without a name: metadata.name: is required",
    ),
    "a misspelt field": (
        GOOD.replace("capacity: 8", "capcity: 8"),
        ":2: llama: spec.capcity: unknown field; did you mean capacity?",
    ),
    "a number too large": (
        GOOD.replace("capacity: 8", "capacity: 5000"),
        ":2: llama: spec.capacity: must be at most 1000",
    ),
    "a text for a number": (
        GOOD.replace("capacity: 8", "capacity: '8'"),
        "spec.capacity: must be a whole number, not the text '8'; take the quotes away",
    ),
    "an address without a port": (
        GOOD.replace("10.0.0.8:8000", "10.0.0.8"),
        ":2: llama: spec.endpoints[1].address: the text '10.0.0.8' has not the right form",
    ),
    "pods wanted": (
        ONE.replace('endpoints: [{address: "10.0.0.1:1"}]', "selector: {matchLabels: {app: x}}"),
        ":2: one: spec.endpoints: is missing; list fixed addresses there",
    ),
    "a name twice": (ONE + ONE, ":7: one: metadata.name: one is described at line 2 already; give it another name"),
}


@pytest.mark.parametrize(("text", "said"), BAD.values(), ids=BAD)
def test_a_bad_file_is_refused_with_file_line_document_field_and_fix(path: Path, text: str, said: str) -> None:
    path.write_text(text)
    with pytest.raises(BadDocumentsError) as refused:
        read_snapshot(path)
    assert str(refused.value).startswith(f"{path}:")
    assert said in str(refused.value)


def test_every_problem_of_every_document_is_told_at_once(path: Path) -> None:
    path.write_text(GOOD.replace("capacity: 8", "capacity: 0") + ONE + TWO.replace("models: [{name: m}]", "models: []"))
    with pytest.raises(BadDocumentsError) as refused:
        read_snapshot(path)
    assert [line.split(": ")[1:3] for line in str(refused.value).splitlines()] == [
        ["llama", "spec.capacity"],
        ["two", "spec.models"],
    ]


def test_what_is_no_text_is_refused_with_the_line(path: Path) -> None:
    path.write_bytes(b"# fine\n# caf\xe9\n")
    with pytest.raises(BadDocumentsError, match=rf"{path}:2: is not UTF-8 text; save it as UTF-8"):
        read_snapshot(path)


@pytest.mark.parametrize(("make", "said"), [(lambda _: None, "No such file"), (Path.mkdir, "Is a directory")])
def test_what_cannot_be_read_is_refused_with_the_reason(path: Path, make: Callable[[Path], None], said: str) -> None:
    make(path)
    with pytest.raises(BadDocumentsError, match=rf"{path}: cannot be read: {said}"):
        read_snapshot(path)


# Following


class Followed:
    """A watch and what it applied, as addresses."""

    def __init__(self, path: Path) -> None:
        self.snapshots: list[Snapshot] = []
        self.watch = DocumentWatch(path, self.apply, POLL)

    def apply(self, snapshot: Snapshot) -> None:
        self.snapshots.append(snapshot)

    @property
    def now(self) -> set[str]:
        return {endpoint.address for endpoint in self.snapshots[-1].endpoints}

    async def becomes(self, *addresses: str) -> None:
        await eventually(lambda: self.now == set(addresses))


@asynccontextmanager
async def following(path: Path, text: str = ONE) -> AsyncIterator[Followed]:
    """Follow a file that holds `text` at first."""
    path.write_text(text)
    followed = Followed(path)
    followed.watch.load()
    task = asyncio.create_task(followed.watch.run())
    try:
        yield followed
        assert not task.done()
    finally:
        task.cancel()
        await asyncio.wait([task])


async def some_polls() -> None:
    await asyncio.sleep(8 * POLL)


async def test_a_change_of_the_file_is_applied_once(path: Path) -> None:
    async with following(path) as followed:
        assert followed.now == {"10.0.0.1:1"}
        path.write_text(ONE + TWO)
        await followed.becomes("10.0.0.1:1", "10.0.0.2:1")
        await some_polls()
        assert len(followed.snapshots) == 2


async def test_an_unchanged_file_is_not_applied_again(path: Path) -> None:
    async with following(path) as followed:
        path.write_text(ONE)
        await some_polls()
        assert len(followed.snapshots) == 1


async def test_a_bad_reload_is_said_once_and_keeps_the_last_good_version(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with following(path) as followed:
        path.write_text(TWO.replace("models", "modles"))
        await eventually(lambda: "the last good version serves on" in caplog.text)
        await some_polls()
        assert "spec.modles: unknown field; did you mean models?" in caplog.text
        assert len(caplog.records) == 1
        assert len(followed.snapshots) == 1
        path.write_text(TWO)
        await followed.becomes("10.0.0.2:1")


async def test_a_file_that_is_deleted_serves_on_and_is_read_again_when_it_is_back(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with following(path) as followed:
        path.unlink()
        await eventually(lambda: "cannot be read: No such file" in caplog.text)
        assert len(followed.snapshots) == 1
        path.write_text(ONE + TWO)
        await followed.becomes("10.0.0.1:1", "10.0.0.2:1")


async def test_the_symlink_swap_of_a_mounted_config_map_is_seen(tmp_path: Path) -> None:
    for version, text in (("..1", ONE), ("..2", TWO)):
        (tmp_path / version).mkdir()
        (tmp_path / version / "servers.yaml").write_text(text)
    (tmp_path / "..data").symlink_to("..1")
    mounted = tmp_path / "servers.yaml"
    mounted.symlink_to("..data/servers.yaml")
    followed = Followed(mounted)
    followed.watch.load()
    task = asyncio.create_task(followed.watch.run())
    (tmp_path / "..data_tmp").symlink_to("..2")
    (tmp_path / "..data_tmp").rename(tmp_path / "..data")
    await followed.becomes("10.0.0.2:1")
    task.cancel()
    await asyncio.wait([task])


async def test_a_file_replaced_by_rename_is_seen(path: Path) -> None:
    async with following(path) as followed:
        new = path.with_suffix(".new")
        new.write_text(TWO)
        new.rename(path)
        await followed.becomes("10.0.0.2:1")


async def test_a_file_that_is_still_being_written_is_not_served(path: Path) -> None:
    text = ONE + TWO
    async with following(path, text) as followed:
        followed.watch._poll_seconds = 0.05
        await asyncio.sleep(0.1)
        for end in range(0, len(text), 7):
            path.write_text(text[:end])
            await asyncio.sleep(0.02)
        path.write_text(text + server("three", "10.0.0.3:1"))
        await followed.becomes("10.0.0.1:1", "10.0.0.2:1", "10.0.0.3:1")
        assert len(followed.snapshots) == 2


async def test_a_change_that_the_core_chokes_on_does_not_end_the_watch(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with following(path) as followed:

        def choke(_: Snapshot) -> None:
            raise LookupError("a mistake of the program")

        followed.watch._apply = choke
        path.write_text(TWO)
        await eventually(lambda: "a mistake of the program" in caplog.text)
        followed.watch._apply = followed.apply
        path.write_text(ONE + TWO)
        await followed.becomes("10.0.0.1:1", "10.0.0.2:1")


async def test_a_bad_file_at_the_start_is_refused(path: Path) -> None:
    path.write_text("kind: Service")
    followed = Followed(path)
    with pytest.raises(BadDocumentsError):
        followed.watch.load()
    assert followed.snapshots == []


async def test_an_endpoint_that_was_taken_out_and_put_back_serves_again(path: Path) -> None:
    router = Router("replica", booted_at=0.0, rng=Random(1))

    def picked() -> str | None:
        pick = router.acquire(Request("m"), 1.0)
        return pick.address if isinstance(pick, Pick) else None

    path.write_text(ONE)
    watch = DocumentWatch(path, lambda snapshot: router.apply(snapshot, 1.0), POLL)
    for text, address in ((ONE, "10.0.0.1:1"), (TWO, "10.0.0.2:1"), (ONE, "10.0.0.1:1"), (TWO, "10.0.0.2:1")):
        path.write_text(text)
        watch.load()
        assert picked() == address


async def test_a_reload_keeps_the_uids_of_the_endpoints_that_stay(path: Path) -> None:
    async with following(path) as followed:
        path.write_text(ONE + TWO)
        await followed.becomes("10.0.0.1:1", "10.0.0.2:1")
        before, after = ({e.address: e.uid for e in snapshot.endpoints} for snapshot in followed.snapshots)
        assert before.items() <= after.items()
