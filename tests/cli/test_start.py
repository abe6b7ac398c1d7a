"""How the long-running commands start."""

import gc
from collections.abc import Iterator

import pytest

from tailrace.cli import start


@pytest.fixture(autouse=True)
def this_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Leave the logs and the collector of the tests as they were."""
    monkeypatch.setattr(start, "set_up", lambda: None)
    yield
    gc.unfreeze()


def test_what_is_loaded_at_the_start_is_no_work_for_the_collector_while_requests_flow() -> None:
    loaded = len(gc.get_objects())
    seen: list[int] = []

    async def main() -> None:
        seen.append(len(gc.get_objects()))

    start.start(main())
    assert seen[0] < loaded / 10
