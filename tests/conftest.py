"""Rules for every test."""

import pytest
from tests.repo.skips import pytest_make_collect_report, pytest_runtest_makereport

__all__ = ["pytest_make_collect_report", "pytest_runtest_makereport"]

TOGETHER = frozenset({"charts", "faults", "node"})
"""Folders whose tests share a cluster of their own: one worker runs them, so that there is one such cluster."""

LONG = ("node", "faults", "charts", "cluster")
"""Folders whose tests take minutes, the longest first: begun last they would keep one worker busy and one idle."""


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Say for `--dist loadgroup` which tests one worker runs: those of a file, or of a folder that shares a cluster."""
    for item in items:
        path = item.path.relative_to(config.rootpath)
        folder = path.parts[1] if len(path.parts) > 2 else ""
        item.add_marker(pytest.mark.xdist_group(folder if folder in TOGETHER else str(path)))
    if hasattr(config, "workerinput"):
        items.sort(key=_place)


def _place(item: pytest.Item) -> int:
    """Return where a test's folder stands in `LONG`, behind them all when it does not."""
    folder = item.path.relative_to(item.config.rootpath).parts[1]
    return LONG.index(folder) if folder in LONG else len(LONG)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show the timelines that tests have recorded, also of those that passed."""
    reports = terminalreporter.getreports("passed") + terminalreporter.getreports("failed")
    for report in reports:
        for name, text in report.sections:
            if "timeline" in name:
                terminalreporter.section(f"timeline of {report.nodeid.rpartition('::')[2]}")
                terminalreporter.write_line(text)
