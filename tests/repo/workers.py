"""Which worker runs what, and when: a plugin of pytest.

xdist has groups for it, but 3.8 marks them in a name that pytest 9.2 no longer reads, and runs everything anywhere.
"""

from __future__ import annotations

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

TOGETHER = frozenset({"charts", "faults", "node"})
"""Folders whose tests share a cluster of their own: one worker runs them, so that there is one such cluster."""

LONG = ("node", "faults", "charts", "cluster")
"""Folders whose tests take minutes, the longest first: begun last they would keep one worker busy and one idle."""


class Together(LoadScopeScheduling):  # type: ignore[misc]
    """Gives the tests of a file to one worker, or those of a folder that shares a cluster."""

    def _split_scope(self, nodeid: str) -> str:
        return unit(nodeid)


def unit(nodeid: str) -> str:
    """Return what a test runs together with: its folder or its file."""
    path = nodeid.partition("::")[0]
    return folder(nodeid) if folder(nodeid) in TOGETHER else path


def folder(nodeid: str) -> str:
    """Return the folder below `tests` that a test is in, or nothing."""
    parts = nodeid.partition("::")[0].split("/")
    return parts[1] if len(parts) > 2 else ""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Together:
    """Take the place of xdist's own ways to deal out tests."""
    return Together(config, log)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Let workers begin with what takes long."""
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: LONG.index(folder(item.nodeid)) if folder(item.nodeid) in LONG else len(LONG))
