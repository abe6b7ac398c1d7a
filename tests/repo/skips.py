"""With CI=true nothing is skipped silently: a skip whose reason is not in the table below is a failure."""

import os
from collections.abc import Generator
from typing import TypeVar

import pytest

ALLOWED = ("CLUSTER=current",)
"""Words of the reasons that stand: what needs somebody's own cluster cannot run where there is none."""

Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    return judged((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    return judged((yield))


def judged(report: Report) -> Report:
    """Return the report, as a failure when it is a skip that CI does not allow. Expected failures are no skips."""
    if os.environ.get("CI") != "true" or not report.skipped or hasattr(report, "wasxfail"):
        return report
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    if not any(words in reason for words in ALLOWED):
        report.outcome = "failed"
        report.longrepr = f"{reason}\nWith CI=true a skip is a failure: make what it needs available."
    return report
