"""The words that replicas exchange about drains and about what is in flight, as JSON. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tailrace.core.model import Word
from tailrace.http.errors import DoorError, bad_request


def words_view(member: str, words: Mapping[str, Word]) -> dict[str, Any]:
    """Return what this member says."""
    drains = {uid: {"inFlight": word.in_flight, "marks": sorted(word.marks)} for uid, word in words.items()}
    return {"member": member, "drains": drains}


def read_words(document: Mapping[str, Any]) -> tuple[str, dict[str, Word]]:
    """Return who says what; DoorError 400 when these are no words of a replica."""
    member, drains = document.get("member"), document.get("drains")
    if not isinstance(member, str) or not isinstance(drains, dict):
        raise _invalid("drains")
    return member, {str(uid): _word(uid, said) for uid, said in drains.items()}


def read_counts(document: Mapping[str, Any]) -> dict[str, int]:
    """Return what a replica has in flight, by endpoint; DoorError 400 when these are no counts."""
    counts = document.get("inFlight")
    if not isinstance(counts, dict) or not all(type(count) is int and count >= 0 for count in counts.values()):
        raise bad_request("counts_invalid", "send {'member': id, 'inFlight': {uid: a number from 0 on}}", "inFlight")
    return counts


def _word(uid: str, said: object) -> Word:
    in_flight = said.get("inFlight") if isinstance(said, dict) else None
    marks = said.get("marks") if isinstance(said, dict) else None
    if type(in_flight) is not int or in_flight < 0 or not isinstance(marks, list):
        raise _invalid(f"drains.{uid}")
    return Word(in_flight, frozenset(str(mark) for mark in marks))


def _invalid(param: str) -> DoorError:
    return bad_request(
        "words_invalid",
        "send {'member': id, 'drains': {uid: {'inFlight': a number from 0 on, 'marks': [key, ...]}}}",
        param,
    )
