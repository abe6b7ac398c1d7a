"""A study as pictures: one HTML page that needs nothing else, drawn in SVG.

For each load: how TTFT is distributed under each strategy, and how many requests each pod had in flight over time,
both of the first seed's run. Where there are more than a few pods, their spread is drawn instead of each.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from math import ceil, floor, log10

from tailrace.simulate.run import Run
from tailrace.simulate.study import Row

COLOURS = ("#0b6e99", "#c4541a", "#3c8a3f", "#8a4fa3", "#b8860b", "#c2185b", "#5d6d7e", "#00897b", "#6d4c41", "#3f51b5")
WIDTH, HEIGHT, MARGIN = 640, 260, 44
STEPS = 120
MOST_LINES = 16
QUARTILES = (0.0, 0.25, 0.5, 0.75, 1.0)
LEAST_SECONDS = 0.01

_STYLE = (
    "body{font:14px/1.5 system-ui,sans-serif;max-width:1360px;margin:2em auto;padding:0 1em;color:#222}"
    "figure{display:inline-block;margin:0 1em 1.5em 0}figcaption{font-weight:600}"
    "svg{width:640px;max-width:100%}text{font-size:11px;fill:#555}polyline{fill:none;stroke-width:1.5}"
    ".grid{stroke:#ddd}.key{display:inline-block;width:1em;height:.6em;margin:0 .4em 0 1em}"
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
    head = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title><style>{_STYLE}</style>'
    return f"{head}<h1>{escape(title)}</h1>{body}</html>\n"


def _section(title: str, rows: Sequence[Row]) -> str:
    most = max(max(max(line) for line in in_flight(row.first)) for row in rows)
    charts = "".join(_figure(f"{row.strategy}: requests in flight at each pod", loads(row.first, most)) for row in rows)
    return f"<h2>{escape(title)}</h2>{_figure('Time to first token', distribution(rows))}{_legend(rows)}<br>{charts}"


def _figure(caption: str, picture: str) -> str:
    return f"<figure><figcaption>{escape(caption)}</figcaption>{picture}</figure>"


def _legend(rows: Sequence[Row]) -> str:
    keys = (
        f'<span class="key" style="background:{_colour(number)}"></span>{escape(row.strategy)}'
        for number, row in enumerate(rows)
    )
    return f"<p>{''.join(keys)}</p>"


def distribution(rows: Sequence[Row]) -> str:
    """Return a chart of the part of requests whose first token had come by then."""
    curves = [sorted(max(LEAST_SECONDS, ttft) for ttft in _ttfts(row.first)) for row in rows]
    powers = range(floor(log10(min(c[0] for c in curves))), ceil(log10(max(c[-1] for c in curves)) + 1e-9) + 1)
    across = Axis(powers[0], powers[-1], tuple((power, f"{10.0**power:g} s") for power in powers))
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


def loads(run: Run, most: float) -> str:
    """Return a chart of what each pod had in flight; ``most`` is the top of its scale."""
    end = _end(run)
    lines = in_flight(run)
    names = [f"pod {number}" for number in range(len(lines))]
    if len(lines) > MOST_LINES:
        columns = [sorted(column) for column in zip(*lines, strict=True)]
        lines = [[column[round(share * (len(column) - 1))] for column in columns] for share in QUARTILES]
        names = ["least", "first quarter", "median", "third quarter", "most"]
    times = _times(end)
    points = [[(at, float(value)) for at, value in zip(times, line, strict=True)] for line in lines]
    return _chart(_even(0.0, end, " s"), _even(0.0, max(1.0, most), ""), points, names)


def in_flight(run: Run) -> list[list[int]]:
    """Return how many requests each pod had in flight, at evenly spaced times from the first to the last."""
    times = _times(_end(run))
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


def _even(low: float, high: float, unit: str) -> Axis:
    return Axis(low, high, tuple((high * step / 4, f"{high * step / 4:.3g}{unit}") for step in range(5)))


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
        f'<text x="{x(at):.1f}" y="{HEIGHT - 6}" text-anchor="middle">{words}</text>'
        for at, words in across.ticks
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
    return f'<polyline points="{path}" stroke="{_colour(number)}"><title>{escape(name)}</title></polyline>'


def _colour(number: int) -> str:
    return COLOURS[number % len(COLOURS)]
