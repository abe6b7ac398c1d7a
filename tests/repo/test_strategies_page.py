"""docs/strategies.md has an entry for every strategy, with what the benchmark says that it costs."""

import re

import pytest
from tests.repo.tree import ROOT

from tailrace.core.strategies import STRATEGIES

PAGE = (ROOT / "docs" / "strategies.md").read_text()
SECTIONS = {text.partition("\n")[0]: text for text in PAGE.split("\n## ")}
RESULT = (ROOT / "bench" / "results" / "pick.txt").read_text()
NOISE = 1.5
"""How many times as much the same pick may cost in another run: the page need not follow every one."""


def test_every_strategy_is_in_the_table_of_when_to_use_it() -> None:
    rows = re.findall(r"^\| (\w+)[^|]* \| ", PAGE.partition("\n## ")[0], re.MULTILINE)
    assert sorted(row for row in rows if row != "strategy") == sorted(STRATEGIES)


@pytest.mark.parametrize("name", STRATEGIES)
def test_the_cost_of_a_strategy_is_the_measured_one(name: str) -> None:
    said = re.search(r"O\([^µ]*?(\d+) / (\d+) µs", SECTIONS[name])
    measured = re.search(rf"^{name} +([\d.]+) +([\d.]+)$", RESULT, re.MULTILINE)
    assert said is not None
    assert measured is not None
    for on_page, in_result in zip(said.groups(), measured.groups(), strict=True):
        assert 1 / NOISE < float(on_page) / float(in_result) < NOISE
