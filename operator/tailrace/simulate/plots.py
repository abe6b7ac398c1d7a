"""A study as pictures: one HTML page that needs nothing else, drawn in SVG.

For each load: how TTFT is distributed under each strategy, and how many requests each pod had in flight over time,
both of the first seed's run. Where there are more than a few pods, their spread is drawn instead of each.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from html import escape
from math import ceil, floor, log10

from tailrace.simulate.run import Run
from tailrace.simulate.study import Row

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#8a4fa3", "#a67c00", "#c2185b", "#222222", "#4ba3d9")
DASHES = (("solid", "none"), ("dashed", "7 3"), ("dotted", "2 2"))
"""How a line is drawn once all colours are taken: as a border of the legend, and as strokes of the chart."""
WIDTH, HEIGHT, MARGIN = 480, 220, 40
"""Of a chart, in its own units: about pixels, so that its words can be read where the page is narrow."""
STEPS = 120
MOST_LINES = 16
QUARTILES = {0.0: "least loaded", 0.25: "first quarter", 0.5: "median", 0.75: "third quarter", 1.0: "most loaded"}
LEAST_SECONDS = 0.01
MARKS = (1, 2, 5)
"""Round numbers of each power of ten."""
MOST_MARKED_DECADES = 3
TICKS = 5

_STYLE = (
    "body{font:14px/1.5 system-ui,sans-serif;max-width:1240px;margin:1.5em auto;padding:0 1em;color:#222}"
    "h1{font-size:1.5em}h2{font-size:1.2em;margin-top:2em;border-top:1px solid #ddd;padding-top:1em}"
    ".charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,460px),1fr));gap:1em 2em}"
    "figure{margin:0}figcaption{font-weight:600}figcaption small{font-weight:400;color:#555}"
    "svg{width:100%;display:block}text{font-size:11px;fill:#555}polyline{fill:none;stroke-width:1.6}.grid{stroke:#ddd}"
    "h2:first-of-type{border:0;margin-top:0;padding:0}"
    "ul{list-style:none;margin:1em 0;padding:0;align-self:center;columns:13em}li{white-space:nowrap}"
    ".key{display:inline-block;width:2em;margin-right:.6em;vertical-align:middle;border-top-width:3px}"
)

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Axis:
    """Where a value is drawn, and which ones are named: ``ticks`` are values and their words."""

    low: float
    high: float
    ticks: tuple[tuple[float, str], ...]

    def share(self, value: float) -> float:
        """Return how far along the axis the value is, 0 to 1."""
        return min(1.0, max(0.0, (value - self.low) / (self.high - self.low)))


def page(title: str, sections: Sequence[tuple[str, Sequence[Row]]]) -> str:
    """Return the page: a section for each title with its rows."""
    body = "".join(_section(name, rows) for name, rows in sections)
    head = (
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style>"
    )
    runs = len(sections[0][1][0].figures) if sections else 0
    note = f"Drawn is the first of {runs} runs; the table that the command prints has the means of all."
    return f"{head}<h1>{escape(title)}</h1>{f'<p>{note}</p>' if runs > 1 else ''}{body}</html>\n"


def _section(title: str, rows: Sequence[Row]) -> str:
    end = max(_end(row.first) for row in rows)
    most = max(max(max(line) for line in in_flight(row.first, end)) for row in rows)
    ttft = _figure("Time to first token", "part of the requests that have theirs, by seconds", distribution(rows))
    what = "requests in flight at each pod, by seconds"
    charts = "".join(_figure(row.strategy, what, loads(row.first, most, end)) for row in rows)
    names = _legend([row.strategy for row in rows])
    pods = _legend(_line_names(rows[0].first.engines))
    return f'<h2>{escape(title)}</h2><div class="charts">{ttft}{names}</div>{pods}<div class="charts">{charts}</div>'


def _figure(caption: str, what: str, picture: str) -> str:
    return f"<figure><figcaption>{escape(caption)} <small>{escape(what)}</small></figcaption>{picture}</figure>"


def _legend(names: Sequence[str]) -> str:
    keys = (
        f'<li><span class="key" style="border-top-style:{_dash(number)[0]};border-top-color:{_colour(number)}"></span>'
        f"{escape(name)}</li>"
        for number, name in enumerate(names)
    )
    return f"<ul>{''.join(keys)}</ul>"


def distribution(rows: Sequence[Row]) -> str:
    """Return a chart of the part of requests whose first token had come by then; its seconds are on a log scale."""
    curves = [sorted(max(LEAST_SECONDS, ttft) for ttft in _ttfts(row.first)) for row in rows]
    across = _log(min(curve[0] for curve in curves), max(curve[-1] for curve in curves))
    upward = Axis(0.0, 1.0, tuple((tenth / 10, f"{tenth * 10} %") for tenth in range(0, 11, 2)))
    lines = [[(log10(value), share) for value, share in _steps(curve)] for curve in curves]
    return _chart(across, upward, lines, [row.strategy for row in rows])


def _ttfts(run: Run) -> list[float]:
    return [job.first_at - job.arrival.at for job in run.jobs if job.first_at is not None]


def _steps(ordered: Sequence[float]) -> list[Point]:
    """Return up to so many points of a distribution, its ends among them."""
    count = len(ordered)
    marks = sorted({round(step * (count - 1) / STEPS) for step in range(STEPS + 1)} | {ceil(0.99 * count) - 1})
    return [(ordered[mark], (mark + 1) / count) for mark in marks]


def loads(run: Run, most: float, end: float) -> str:
    """Return a chart of what each pod had in flight; ``most`` and ``end`` are what its scales must reach."""
    lines = in_flight(run, end)
    if len(lines) > MOST_LINES:
        columns = [sorted(column) for column in zip(*lines, strict=True)]
        lines = [[column[round(share * (len(column) - 1))] for column in columns] for share in QUARTILES]
    points = [[(at, float(value)) for at, value in zip(_times(end), line, strict=True)] for line in lines]
    return _chart(_even(end), _rounded(_even(max(most, TICKS))), points, _line_names(run.engines))


def _line_names(pods: int) -> list[str]:
    return list(QUARTILES.values()) if pods > MOST_LINES else [f"pod {number}" for number in range(pods)]


def in_flight(run: Run, end: float) -> list[list[int]]:
    """Return how many requests each pod had in flight, at evenly spaced times from the first request to ``end``."""
    times = _times(end)
    found = []
    for pod in range(run.engines):
        here = [job for job, place in zip(run.jobs, run.places, strict=True) if place == pod]
        begun = sorted(job.sent_at for job in here)
        ended = sorted(job.ended_at for job in here if job.ended_at is not None)
        found.append([bisect_right(begun, at) - bisect_right(ended, at) for at in times])
    return found


def _end(run: Run) -> float:
    return max(job.ended_at or 0.0 for job in run.jobs)


def _times(end: float) -> list[float]:
    return [end * step / STEPS for step in range(STEPS + 1)]


def _even(high: float) -> Axis:
    """Return an axis from 0 to ``high`` with a few round numbers on it, of which the last may be above it."""
    power = 10.0 ** floor(log10(high / TICKS))
    step = next(power * mark for mark in (*MARKS, 10) if power * mark * TICKS >= high)
    return Axis(0.0, high, tuple((step * n, f"{step * n:.4g}") for n in range(ceil(high / step - 1e-9) + 1)))


def _rounded(axis: Axis) -> Axis:
    """Return the axis up to its last number."""
    return replace(axis, high=axis.ticks[-1][0])


def _log(low: float, high: float) -> Axis:
    """Return an axis of logarithms that ends on round numbers, and has those on it that there is room for."""
    powers = range(floor(log10(low)), ceil(log10(high)) + 1)
    numbers = [mark * 10.0**power for power in powers for mark in MARKS]
    first = max(number for number in numbers if number <= low * (1 + 1e-9))
    last = min(number for number in numbers if number >= high and number > first)
    wide = log10(last / first) > MOST_MARKED_DECADES
    kept = [number for number in numbers if first <= number <= last and (not wide or _is_power(number))]
    return Axis(log10(first), log10(last), tuple((log10(number), f"{number:g}") for number in kept))


def _is_power(number: float) -> bool:
    return abs(log10(number) - round(log10(number))) < 1e-6


def _chart(across: Axis, upward: Axis, lines: Sequence[Sequence[Point]], names: Sequence[str]) -> str:
    def x(value: float) -> float:
        return MARGIN + (WIDTH - 2 * MARGIN) * across.share(value)

    def y(value: float) -> float:
        return HEIGHT - MARGIN / 2 - (HEIGHT - MARGIN) * upward.share(value)

    drawn = "".join(
        _line(points, name, number, x, y) for number, (points, name) in enumerate(zip(lines, names, strict=True))
    )
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img">{_grid(across, upward, x, y)}{drawn}</svg>'


def _grid(across: Axis, upward: Axis, x: Callable[[float], float], y: Callable[[float], float]) -> str:
    left, right, bottom, top = MARGIN, WIDTH - MARGIN, y(upward.low), y(upward.high)
    upright = (
        f'<line class="grid" x1="{x(at):.1f}" x2="{x(at):.1f}" y1="{bottom:.1f}" y2="{top:.1f}"/>'
        f'<text x="{x(at):.1f}" y="{HEIGHT - 4}" text-anchor="middle">{words}</text>'
        for at, words in across.ticks
        if at <= across.high
    )
    level = (
        f'<line class="grid" x1="{left}" x2="{right}" y1="{y(at):.1f}" y2="{y(at):.1f}"/>'
        f'<text x="{left - 4}" y="{y(at) + 4:.1f}" text-anchor="end">{words}</text>'
        for at, words in upward.ticks
    )
    return "".join((*upright, *level))


def _line(
    points: Sequence[Point], name: str, number: int, x: Callable[[float], float], y: Callable[[float], float]
) -> str:
    path = " ".join(f"{x(across):.1f},{y(upward):.1f}" for across, upward in points)
    strokes = f'stroke="{_colour(number)}" stroke-dasharray="{_dash(number)[1]}"'
    return f'<polyline points="{path}" {strokes}><title>{escape(name)}</title></polyline>'


def _colour(number: int) -> str:
    return COLOURS[number % len(COLOURS)]


def _dash(number: int) -> tuple[str, str]:
    return DASHES[number // len(COLOURS) % len(DASHES)]
