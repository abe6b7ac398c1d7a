"""Alerts and dashboard ask for metrics, labels and codes that exist."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from tests.charts.helm import CHART
from tests.repo.tree import ROOT

from tailrace.core.model import EndpointState, Grade, PoolQuality, RefusalCode, RouterStatus, Spread
from tailrace.core.quality import BOUNDS
from tailrace.telemetry.metrics import Metrics

ALERTS: list[dict[str, str]] = yaml.safe_load((CHART / "monitoring" / "alerts.yaml").read_text())
DASHBOARD: dict[str, Any] = json.loads((CHART / "monitoring" / "dashboard.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
SELECTION = re.compile(r"\b((?:tailrace|process)_\w+)\{([^}]*)\}")
QUALITY = ("tailrace_pool_grade", "tailrace_pool_cv")
SUFFIXES = {"histogram": ("_bucket", "_sum", "_count")}


def existing() -> set[str]:
    """Return every series name that a replica of a cluster shows."""
    even = Spread(cv=0.1, imbalance=0.1)
    pool = PoolQuality("ns/m", (), "LeastTokens", Grade.GOOD, even, even)
    status = RouterStatus(servers=(), endpoints=(), in_flight=0, drains=0, outcomes={}, pools=(pool,))
    page = Metrics(lambda: status, leader=lambda: True, watch_age=lambda: 1.0).render().decode()
    types = re.findall(r"^# TYPE (\S+) (\S+)$", page, re.MULTILINE)
    return {name + suffix for name, kind in types for suffix in SUFFIXES.get(kind, ("",))}


def asked() -> Iterator[tuple[str, str]]:
    """Yield who asks, and the expression."""
    for alert in ALERTS:
        yield alert["alert"], alert["expr"]
    for panel in PANELS:
        for target in panel["targets"]:
            yield panel["title"], target["expr"]
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["name"], variable["query"]["query"]


@pytest.mark.parametrize(("who", "expression"), list(asked()))
def test_every_metric_asked_for_exists(who: str, expression: str) -> None:
    names = set(re.findall(r"\b(?:tailrace|process)_\w+", expression))
    assert names
    assert names - existing() == set(), who


@pytest.mark.parametrize(("who", "expression"), [(a["alert"], a["expr"]) for a in ALERTS])
def test_every_metric_of_an_alert_is_this_releases(who: str, expression: str) -> None:
    names = re.findall(r"\b(?:tailrace|process)_\w+", expression)
    assert len(names) == len(SELECTION.findall(expression))
    assert all("SELECT" in labels for _, labels in SELECTION.findall(expression)), who


def test_codes_and_states_of_alerts_are_known() -> None:
    text = " ".join(alert["expr"] for alert in ALERTS)
    assert set(re.findall(r'code="([^"]+)"', text)) <= {code.value for code in RefusalCode}
    assert set(re.findall(r'state="([^"]+)"', text)) <= {state.value for state in EndpointState}


def test_the_quality_of_pools_is_shown_in_the_colours_and_bounds_of_its_grades() -> None:
    grade, spread = (next(p for p in PANELS if f"{name}{{" in p["targets"][0]["expr"]) for name in QUALITY)
    coloured = [override["matcher"]["options"] for override in grade["fieldConfig"]["overrides"]]
    assert coloured == [f"/: {each.value}$/" for each in Grade]
    assert [step["value"] for step in spread["fieldConfig"]["defaults"]["thresholds"]["steps"]] == [None, *BOUNDS[1:]]


def test_every_alert_says_what_it_means_and_how_bad_it_is() -> None:
    keys = {"alert", "expr", "for", "severity", "summary", "description"}
    assert [alert["alert"] for alert in ALERTS if alert.keys() != keys] == []
    assert {alert["severity"] for alert in ALERTS} == {"critical", "warning"}


def test_panels_have_ids_descriptions_and_do_not_overlap() -> None:
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))
    assert [panel["title"] for panel in PANELS if not panel["description"]] == []
    places = [panel["gridPos"] for panel in DASHBOARD["panels"]]
    cells = [(p["x"] + x, p["y"] + y) for p in places for x in range(p["w"]) for y in range(p["h"])]
    assert len(cells) == len(set(cells))
    assert all(x < 24 for x, _ in cells)


def test_the_page_that_explains_the_codes_is_there() -> None:
    assert "rejected-saturated" in (ROOT / "docs" / "operations.md").read_text()
