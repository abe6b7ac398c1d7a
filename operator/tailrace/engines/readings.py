"""What an engine says of itself beyond its gauges, as a value of the core: slots, memory, adapters."""

import asyncio
import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from tailrace.core.model import Reading
from tailrace.engines.families import Family, Series
from tailrace.engines.gauges import belonging, gauge_names, gauges_of
from tailrace.engines.prometheus import MOST_SAMPLES, Sample, pieces, samples

NOTHING = Reading()

MOST_BRACKETS, MOST_COMMAS = 100_000, 400_000
"""In text or not: old llama.cpp shows the prompts in its slots. A document is read in one go, of about 50 ms then."""

MOST_BYTES = 1 << 60
"""No machine has more memory: a longer number is a mistake, and too long to be divided."""


async def read_exposition(body: bytes, family: Family) -> Reading:
    """Read what `family` tells in the Prometheus text format; what cannot be read is left out, for it is unknown.

    Others get their turn between the parts of a long page. ValueError when it tells more than any engine would.
    """
    if not family.has_gauges:
        return NOTHING
    found = await _samples(body, _names(family))
    gauges = gauges_of(found, family)
    return Reading(
        running=gauges.running if gauges else None,
        waiting=gauges.waiting if gauges else None,
        kv_usage=_share(gauges.kv_usage) if gauges else None,
        gpu_usage=_mean(_of(found, family.gpu_usage)),
        gpu_memory=_part(_of(found, family.memory_used), _of(found, family.memory_total)),
        adapters=_adapters(_of(found, family.adapters), family.adapter_labels),
    )


async def _samples(body: bytes, names: frozenset[str]) -> list[Sample]:
    found: list[Sample] = []
    for piece in pieces(body):
        found += samples(piece, names)
        if len(found) > MOST_SAMPLES:
            raise ValueError(f"it holds more than {MOST_SAMPLES} samples of the metrics that are read")
        await asyncio.sleep(0)
    return found


def read_slots(document: Any) -> Reading:  # noqa: ANN401 - whatever JSON holds
    """Read llama.cpp's `/slots`: how many requests it runs at once, and how many of those places are taken."""
    if not isinstance(document, list) or not document or not all(isinstance(slot, dict) for slot in document):
        return NOTHING
    taken = [_taken(slot) for slot in document]
    if None in taken:
        return NOTHING
    return Reading(running=float(sum(map(bool, taken))), slots=len(document))


def _taken(slot: Mapping[str, object]) -> bool | None:
    """Whether a slot works on a request; `state` 0 is idle in versions before `is_processing`. None: not told."""
    told = slot.get("is_processing", slot.get("state"))
    return None if not isinstance(told, bool | int) else bool(told)


def read_models(document: Any) -> Reading:  # noqa: ANN401
    """Read Ollama's `/api/ps`: the bytes of GPU memory that the loaded models take, of which it has no total."""
    models = document.get("models") if isinstance(document, dict) else None
    if not isinstance(models, list) or not all(isinstance(model, dict) for model in models):
        return NOTHING
    sizes = [model.get("size_vram", 0) for model in models]
    if not all(isinstance(size, int) and 0 <= size <= MOST_BYTES for size in sizes):
        return NOTHING
    return Reading(gpu_bytes=sum(sizes))


DOCUMENTS: Mapping[str, Callable[[Any], Reading]] = {"slots": read_slots, "models": read_models}
"""How each kind of JSON document is read."""


def read_document(text: bytes, kind: str) -> Reading:
    """Read a JSON document of that kind; nothing is told by what is no JSON. ValueError when it holds too much."""
    if text.count(b"{") + text.count(b"[") > MOST_BRACKETS or text.count(b",") > MOST_COMMAS:
        raise ValueError(f"it holds more than {MOST_BRACKETS} objects and lists, or {MOST_COMMAS} values")
    try:
        return DOCUMENTS[kind](json.loads(text))
    except (ValueError, RecursionError):
        return NOTHING


def merged(readings: Iterable[Reading]) -> Reading:
    """Return what several readings of one engine tell together; an earlier one wins."""
    whole = NOTHING
    for reading in readings:
        missing = {name: getattr(reading, name) for name in Reading.__slots__ if getattr(whole, name) is None}
        whole = replace(whole, **missing)
    return whole


def _names(family: Family) -> frozenset[str]:
    series = (family.gpu_usage, family.memory_used, family.memory_total, family.adapters)
    return gauge_names(family) | {one.name for one in series if one is not None}


def _of(found: Iterable[Sample], series: Series | None) -> list[Sample]:
    return belonging(found, series) if series is not None else []


def _mean(found: list[Sample]) -> float | None:
    """Return the mean of shares, None as soon as one of them is none."""
    shares = [_share(one.value) for one in found]
    known = [share for share in shares if share is not None]
    return sum(known) / len(known) if known and len(known) == len(shares) else None


def _part(used: list[Sample], total: list[Sample]) -> float | None:
    """Return the used part of all GPUs together."""
    whole = sum(one.value for one in total)
    return _share(sum(one.value for one in used) / whole) if used and whole > 0 else None


def _share(value: float | None) -> float | None:
    """Return a share of 0..1; None for what is none: a value that is no number tells nothing."""
    return None if value is None or not math.isfinite(value) or value < 0 else min(value, 1.0)


def _adapters(found: list[Sample], labels: Iterable[str]) -> frozenset[str] | None:
    """Return the adapters of the newest sample: each set of adapters leaves a series behind."""
    if not found:
        return None
    newest = max(found, key=lambda one: -math.inf if math.isnan(one.value) else one.value)
    listed = (newest.labels.get(label, "").split(",") for label in labels)
    return frozenset(name.strip() for names in listed for name in names if name.strip())
