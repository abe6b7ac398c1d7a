"""The page of pictures: whole in itself, well-formed, and drawn to scale."""

import re
from xml.etree import ElementTree

from tailrace.simulate.engine import Hardware
from tailrace.simulate.plots import HEIGHT, MARGIN, MOST_LINES, STEPS, WIDTH, in_flight, page
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
    assert list(drawn) == ["least", "first quarter", "median", "third quarter", "most"]
    for (_, least), (_, median), (_, most) in zip(drawn["least"], drawn["median"], drawn["most"], strict=True):
        assert least >= median >= most, "down is less"


def test_in_flight_is_counted_from_sending_to_the_end() -> None:
    trace = Trace((Arrival(0.0, 8000, 1), Arrival(0.0, 8000, 1), Arrival(6.0, 32_000, 1)))
    run = simulate(trace, [Hardware(base=0.0)], "LeastRequests", seed=0)
    (line,) = in_flight(run)
    at = {second: line[round(second / 10 * STEPS)] for second in (0, 1.5, 3, 7)}
    assert at == {0: 2, 1.5: 1, 3: 0, 7: 1}
