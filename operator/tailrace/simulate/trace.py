"""Requests to simulate: recorded ones from files, as their publishers wrote them."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import count, filterfalse, groupby, islice
from math import isfinite, nan
from operator import attrgetter
from pathlib import Path

MOONCAKE_BLOCK_TOKENS = 512
TABLE_BLOCK_TOKENS = 128
"""Tables tell of no blocks. Theirs are small, so that few prompts are shorter than one."""
MOST_TOKENS = 10_000_000
"""A longer prompt or answer is a mistake, and would fill the memory with its blocks."""


class BadTraceError(ValueError):
    """A trace cannot be read; the message names file and line, and what is expected."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request: when it comes, in seconds from the start; its tokens; and one id for each block of its prompt.

    Equal ids at the beginning of two ``chain``s are an equal beginning of two prompts. ``session`` is empty for none.
    """

    at: float
    prompt: int
    output: int
    chain: tuple[int, ...] = ()
    session: str = ""


@dataclass(frozen=True, slots=True)
class Trace:
    """Requests in order of time; a block of a chain stands for ``block_tokens`` tokens."""

    arrivals: tuple[Arrival, ...]
    block_tokens: int = MOONCAKE_BLOCK_TOKENS

    def faster(self, factor: float) -> Trace:
        """Return the same requests at that many times the rate."""
        return Trace(
            tuple(Arrival(a.at / factor, a.prompt, a.output, a.chain, a.session) for a in self.arrivals),
            self.block_tokens,
        )

    def between(self, start: float, end: float) -> Trace:
        """Return the requests of that part of the time, from 0 on."""
        kept = (a for a in self.arrivals if start <= a.at < end)
        return Trace(
            tuple(Arrival(a.at - start, a.prompt, a.output, a.chain, a.session) for a in kept), self.block_tokens
        )


def read_trace(path: Path) -> Trace:
    """Read Mooncake's JSON lines, Azure's CSV, or a CSV with the columns seconds, prompt, output[, session].

    A prompt of which no beginning is told is like no other. ``BadTraceError`` when the file is none of them.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as lines:
            first = lines.readline()
            lines.seek(0)
            tells = first.startswith("{")
            block_tokens = MOONCAKE_BLOCK_TOKENS if tells else TABLE_BLOCK_TOKENS
            arrivals = _with_blocks(tuple(_spread(_mooncake(lines)) if tells else _table(lines)), block_tokens)
    except OSError as error:
        raise BadTraceError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (ValueError, csv.Error) as error:
        raise BadTraceError(f"{path}: {error}; see `tailrace simulate --help` for what can be read") from error
    if not arrivals:
        raise BadTraceError(f"{path}: holds no requests")
    return Trace(tuple(sorted(arrivals, key=lambda arrival: arrival.at)), block_tokens)


def _with_blocks(arrivals: tuple[Arrival, ...], block_tokens: int) -> tuple[Arrival, ...]:
    """Give prompts without blocks as many whole ones as they have, at least one, that no other prompt has."""
    known = {block for arrival in arrivals for block in arrival.chain}
    fresh = filterfalse(known.__contains__, count(1))

    def own(prompt: int) -> tuple[int, ...]:
        return tuple(islice(fresh, max(1, prompt // block_tokens)))

    return tuple(arrival if arrival.chain else replace(arrival, chain=own(arrival.prompt)) for arrival in arrivals)


def _mooncake(lines: Iterable[str]) -> Iterator[Arrival]:
    """Read the traces of Mooncake (FAST 2025): milliseconds, lengths, and ids of blocks of 512 tokens."""
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            yield Arrival(
                _moment("timestamp", row["timestamp"], 1e-3),
                _tokens("input_length", row["input_length"]),
                _tokens("output_length", row["output_length"]),
                _ids("hash_ids", row.get("hash_ids", [])),
            )
        except KeyError as error:
            raise ValueError(f"line {number}: no {error}; expected timestamp, input_length, output_length") from error
        except RecursionError as error:
            raise ValueError(
                f"line {number}: nested too deeply; expected timestamp, input_length, output_length"
            ) from error
        except (ValueError, TypeError) as error:
            raise ValueError(f"line {number}: {error}; expected timestamp, input_length, output_length") from error


def _spread(arrivals: Iterable[Arrival]) -> Iterator[Arrival]:
    """Yield requests of one moment as they may have come until the next one: evenly.

    Mooncake's times stand in steps of three seconds. Taken as they are, a dozen requests come at once again and again,
    which no router could have seen, and every one that reads engines' gauges would see the same ones for all of them.
    """
    moments = [(at, list(group)) for at, group in groupby(arrivals, key=attrgetter("at"))]
    ends = [at for at, _ in moments[1:]] + [2 * moments[-1][0] - moments[-2][0] if len(moments) > 1 else 0.0]
    for (at, group), end in zip(moments, ends, strict=True):
        step = max(0.0, end - at) / len(group)
        yield from (replace(arrival, at=at + step * number) for number, arrival in enumerate(group))


def _table(lines: Iterable[str]) -> Iterator[Arrival]:
    start: float | None = None
    rows = csv.DictReader(lines)
    for row in rows:
        try:
            arrival = _azure(row) if "TIMESTAMP" in row else _own(row)
        except KeyError as error:
            raise ValueError(f"line 1: no column {error}; expected seconds, prompt, output[, session]") from error
        except (ValueError, TypeError) as error:
            raise ValueError(f"line {rows.line_num}: {error}") from error
        start = arrival.at if start is None else start
        yield replace(arrival, at=max(0.0, arrival.at - start))


def _azure(row: Mapping[str, str]) -> Arrival:
    """Read a row of Azure's LLM inference traces (2023): a time of day to 100 ns, and lengths."""
    at = datetime.fromisoformat(row["TIMESTAMP"][:26]).timestamp()  # only differences count
    return Arrival(
        at, _tokens("ContextTokens", row["ContextTokens"]), _tokens("GeneratedTokens", row["GeneratedTokens"])
    )


def _own(row: Mapping[str, str]) -> Arrival:
    at = _moment("seconds", row["seconds"])
    prompt, output = _tokens("prompt", row["prompt"]), _tokens("output", row["output"])
    return Arrival(at, prompt, output, session=row.get("session") or "")


def _moment(field: str, value: object, unit: float = 1.0) -> float:
    """Return the field's seconds."""
    try:
        moment = float(str(value)) * unit
    except ValueError:
        moment = nan
    if not isfinite(moment):
        raise ValueError(f"{field} is {value!r}, which is no time")
    return moment


def _ids(field: str, value: object) -> tuple[int, ...]:
    """Return the field's ids of blocks."""
    if not isinstance(value, list) or not all(type(each) is int for each in value):
        raise ValueError(f"{field} is no list of whole numbers")
    return tuple(value)


def _tokens(field: str, value: object) -> int:
    """Return the field's number, at least 1: an engine computes one token even where a trace tells of none."""
    try:
        tokens = float(str(value))
    except ValueError:
        tokens = nan
    if not tokens.is_integer():
        raise ValueError(f"{field} is {value!r}, which is no number of tokens")
    if tokens > MOST_TOKENS:
        raise ValueError(f"{field} is {value}, more than {MOST_TOKENS} tokens")
    return max(1, int(tokens))
