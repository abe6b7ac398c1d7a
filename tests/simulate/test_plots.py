"""The page of pictures: whole in itself, well-formed, and drawn to scale."""

import re
from dataclasses import replace
from xml.etree import ElementTree

import pytest

from tailrace.simulate.engine import Hardware
from tailrace.simulate.plots import (
    COLOURS,
    DASHES,
    HEIGHT,
    MARGIN,
    MOST_LINES,
    STEPS,
    WIDTH,
    _even,
    _log,
    in_flight,
    page,
)
from tailrace.simulate.run import simulate
from tailrace.simulate.study import Row, study
from tailrace.simulate.trace import Arrival, Trace
from tailrace.simulate.workloads import generate


def rows(pods: int = 3) -> list[Row]:
    return study(
        lambda seed: generate("sessions", seed, seconds=20, rate=2 * pods),
        [Hardware()] * pods,
        ["LeastRequests", "random"],
        seeds=1,
    )


def charts(text: str) -> list[ElementTree.Element]:
    return [ElementTree.fromstring(found) for found in re.findall(r"<svg.*?</svg>", text)]


def lines(chart: ElementTree.Element) -> dict[str, list[tuple[float, float]]]:
    """Return what is drawn, by its name."""
    return {
        line.findtext("title", ""): [
            (float(x), float(y)) for x, y in (point.split(",") for point in line.attrib["points"].split())
        ]
        for line in chart.iter("polyline")
    }


def test_each_load_has_a_distribution_and_a_chart_of_each_strategy() -> None:
    text = page("A <study>", [("at 1", rows()), ("at 2", rows())])
    assert "<h1>A &lt;study&gt;</h1>" in text
    assert text.count("<h2>") == 2
    drawn = [list(lines(chart)) for chart in charts(text)]
    assert drawn == [["LeastRequests", "random"], *[["pod 0", "pod 1", "pod 2"]] * 2] * 2


def test_the_page_needs_nothing_else() -> None:
    text = page("t", [("at 1", rows())])
    assert not re.search(r"<script|<link|<img|src=|href=|url\(|@import", text)


def test_everything_is_drawn_inside_the_frame() -> None:
    text = page("t", [("at 1", rows()), ("many", rows(MOST_LINES + 1))])
    for chart in charts(text):
        for points in lines(chart).values():
            assert all(MARGIN <= x <= WIDTH - MARGIN and 0 < y < HEIGHT - MARGIN / 3 for x, y in points)


def test_a_distribution_rises_from_the_least_to_all() -> None:
    chart = charts(page("t", [("at 1", rows())]))[0]
    for points in lines(chart).values():
        assert points == sorted(points, key=lambda point: (point[0], -point[1]))
        assert points[-1][1] == MARGIN / 2


def test_of_many_pods_the_spread_is_drawn() -> None:
    chart = charts(page("t", [("many", rows(MOST_LINES + 1))]))[1]
    drawn = lines(chart)
    assert list(drawn) == ["least loaded", "first quarter", "median", "third quarter", "most loaded"]
    kept = (drawn[name] for name in ("least loaded", "median", "most loaded"))
    for (_, least), (_, median), (_, most) in zip(*kept, strict=True):
        assert least >= median >= most, "down is less"


def test_in_flight_is_counted_from_sending_to_the_end() -> None:
    trace = Trace((Arrival(0.0, 8000, 1), Arrival(0.0, 8000, 1), Arrival(6.0, 32_000, 1)))
    run = simulate(trace, [Hardware(base=0.0)], "LeastRequests", seed=0)
    (line,) = in_flight(run, 10.0)
    at = {second: line[round(second / 10 * STEPS)] for second in (0, 1.5, 3, 7)}
    assert at == {0: 2, 1.5: 1, 3: 0, 7: 1}


def words(chart: ElementTree.Element) -> list[str]:
    return [text.text or "" for text in chart.iter("text")]


def test_axes_name_round_numbers_and_charts_of_one_section_share_them() -> None:
    ttft, *others = charts(page("t", [("at 1", rows())]))
    assert len({tuple(words(chart)) for chart in others}) == 1
    numbers = [word for chart in (ttft, *others) for word in words(chart) if not word.endswith("%")]
    assert [number for number in numbers if number.strip("0.")[:1] not in ("1", "2", "3", "4", "5", "6", "8", "")] == []
    assert max(len(number) for number in numbers) <= 4


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (0.13, 1.7, "0.1 0.2 0.5 1 2"),
        (0.01, 0.01, "0.01 0.02"),
        (0.2, 0.5, "0.2 0.5"),
        (0.02, 300.0, "0.1 1 10 100"),
    ],
)
def test_an_axis_of_logarithms_ends_on_round_numbers_around_what_is_drawn(low: float, high: float, said: str) -> None:
    axis = _log(low, high)
    assert " ".join(text for _, text in axis.ticks) == said
    assert 10**axis.low <= low * 1.001
    assert 10**axis.high >= high * 0.999


@pytest.mark.parametrize(("high", "said"), [(76.1, "0 20 40 60 80"), (5.0, "0 1 2 3 4 5"), (0.7, "0 0.2 0.4 0.6 0.8")])
def test_an_even_axis_has_a_few_round_numbers(high: float, said: str) -> None:
    assert " ".join(text for _, text in _even(high).ticks) == said


def test_lines_of_many_strategies_differ_in_colour_or_dashes_and_the_legend_says_which() -> None:
    names = [f"strategy-{number}" for number in range(len(COLOURS) * len(DASHES))]
    one = rows()[0]
    text = page("t", [("many", [replace(one, strategy=name) for name in names])])
    drawn = [(line.attrib["stroke"], line.attrib["stroke-dasharray"]) for line in charts(text)[0].iter("polyline")]
    assert len(set(drawn)) == len(names)
    legend = {name: style for style, name in re.findall(r'style="([^"]*)"></span>([^<]*)<', text)}
    assert len({legend[name] for name in names}) == len(names)
    assert all(colour in legend[name] for name, (colour, _) in zip(names, drawn, strict=True))
    assert [name for name in ("pod 0", "pod 1", "pod 2") if name not in legend] == []
