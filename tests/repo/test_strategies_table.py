"""The table of strategies that people read is the one that was measured."""

from dataclasses import replace

from bench import strategies
from bench.cells import RATES
from tests.repo.tree import ROOT

PAGE = (ROOT / "docs" / "simulator.md").read_text()


def test_the_page_shows_every_cell_of_the_results() -> None:
    cells = strategies.kept()
    assert len(cells) == len(strategies.FLEETS) * len(strategies.LOADS) * (len(RATES) + len(strategies.RECORDED))
    missing = [row for row in strategies.summary(cells) if row not in PAGE]
    assert missing == []


def test_what_is_only_level_or_worse_is_said() -> None:
    cells = strategies.kept()
    short = [cell for cell in cells if cell.has_to_be_better() and cell.verdict() != "tenth"]
    assert f"{len(short)} of the {sum(cell.has_to_be_better() for cell in cells)}" in PAGE
    worse = [cell for cell in cells if cell.verdict() == "worse"]
    assert PAGE.count("(worse)") == len(worse)


def test_least_requests_is_beaten_everywhere() -> None:
    ratios = [cell.ratio("LeastRequests") for cell in strategies.kept()]
    assert max(ratio.mean for ratio in ratios) < 1.0


def test_no_knowledge_of_the_engines_would_reach_what_is_missed() -> None:
    """So the page says of the settings in which a tenth is asked for and not reached."""
    short = [cell for cell in strategies.kept() if cell.has_to_be_better() and cell.verdict() != "tenth"]
    assert [cell.oracle() for cell in short if cell.oracle() <= strategies.BETTER] == []


def test_whoever_does_not_run_again_keeps_the_last_figures() -> None:
    last = strategies.kept()
    of = last[3]
    again = replace(of, figures={strategies.ORACLE: of.figures[strategies.OURS]}, floors=[1.0])
    found = strategies.completed(again, last)
    assert found.figures == of.figures | again.figures
    assert found.floors == [1.0]
