"""Rules for every test."""

import pytest
from hypothesis import HealthCheck, settings
from tests.repo.skips import pytest_make_collect_report, pytest_runtest_makereport
from tests.repo.workers import pytest_collection_modifyitems, pytest_xdist_make_scheduler

__all__ = [
    "pytest_collection_modifyitems",
    "pytest_make_collect_report",
    "pytest_runtest_makereport",
    "pytest_xdist_make_scheduler",
]

# A busy machine is slow, not wrong.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show the timelines that tests have recorded, also of those that passed."""
    reports = terminalreporter.getreports("passed") + terminalreporter.getreports("failed")
    for report in reports:
        for name, text in report.sections:
            if "timeline" in name:
                terminalreporter.section(f"timeline of {report.nodeid.rpartition('::')[2]}")
                terminalreporter.write_line(text)
