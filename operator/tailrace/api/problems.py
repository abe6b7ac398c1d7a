"""What is wrong with a document, in sentences that name the field and what to do."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Final

from pydantic_core import ErrorDetails

Schema = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing to mend: the field's path (`spec.models[0].name`; empty: the whole document) and a sentence."""

    path: str
    message: str

    def __str__(self) -> str:
        """Say both, as a command prints it."""
        return f"{self.path}: {self.message}" if self.path else self.message


def path_of(steps: Iterable[str | int]) -> str:
    """Write a path as Kubernetes does: `spec.models[0].name`."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps).lstrip(".")


def child_schema(schema: Schema, step: str | int) -> Schema:
    """Find the schema of one field or item; empty when the schema says nothing about it."""
    if isinstance(step, int):
        return schema.get("items") or {}
    return schema.get("properties", {}).get(step) or schema.get("additionalProperties") or {}


def _schema_at(schema: Schema, steps: Iterable[str | int]) -> Schema:
    for step in steps:
        schema = child_schema(schema, step)
    return schema


KINDS: Final = {bool: "true or false", int: "a number", float: "a number", list: "a list", dict: "a mapping"}


def _shown(value: object) -> str:
    if isinstance(value, str):
        return f"the text {value[:80]!r}"
    if isinstance(value, bool | int | float):
        return str(value).lower() if isinstance(value, bool) else str(value)
    return KINDS.get(type(value), "null")


def _whole_number(error: ErrorDetails, _: Schema) -> str:
    value = error["input"]
    quoted = "; take the quotes away" if isinstance(value, str) and value.isdecimal() else ""
    return f"must be a whole number, not {_shown(value)}{quoted}"


def _unknown(error: ErrorDetails, schema: Schema) -> str:
    known = sorted(_schema_at(schema, error["loc"][:-1]).get("properties", {}))
    close = get_close_matches(str(error["loc"][-1]), known, n=1)
    return f"unknown field; did you mean {close[0]}?" if close else f"unknown field; there are {', '.join(known)}"


def _text(error: ErrorDetails, _: Schema) -> str:
    value = error["input"]
    unquoted = "; put it in quotes" if isinstance(value, bool | int | float) else ""
    return f"must be a text, not {_shown(value)}{unquoted}"


def _required(error: ErrorDetails, schema: Schema) -> str:
    return f"is required. {_schema_at(schema, error['loc']).get('description', 'Add it.')}"


def _pattern(error: ErrorDetails, schema: Schema) -> str:
    at = _schema_at(schema, error["loc"])
    described = at.get("description") or _schema_at(schema, error["loc"][:-1]).get("description", "")
    return f"{_shown(error['input'])} has not the right form. {described} It must match {error['ctx']['pattern']}"


def _limit(words: str) -> Callable[[ErrorDetails, Schema], str]:
    """Fill in a sentence: {ge}, {le} and the like are the limit, {shown} is what was given."""

    def sentence(error: ErrorDetails, _: Schema) -> str:
        return words.format(**error.get("ctx", {}), shown=_shown(error["input"]))

    return sentence


SENTENCES: Final[dict[str, Callable[[ErrorDetails, Schema], str]]] = {
    "missing": _required,
    "extra_forbidden": _unknown,
    "int_type": _whole_number,
    "int_from_float": _whole_number,
    "int_parsing": _whole_number,
    "int_or_percent": _limit("must be a whole number from 0 or a percentage such as 25%, not {shown}"),
    "string_pattern_mismatch": _pattern,
    "greater_than_equal": _limit("must be at least {ge}, not {shown}"),
    "less_than_equal": _limit("must be at most {le}, not {shown}"),
    "string_too_short": _limit("must not be empty"),
    "string_too_long": _limit("must have at most {max_length} characters; shorten {shown}"),
    "too_short": _limit("needs at least {min_length} item; it has {actual_length}"),
    "too_long": _limit("may have at most {max_length} items"),
    "string_type": _text,
    "tuple_type": _limit("must be a list, not {shown}"),
    "dict_type": _limit("must be a mapping, not {shown}"),
    "model_type": _limit("must be a mapping, not {shown}"),
    "enum": _limit("must be {expected}, not {shown}"),
    "literal_error": _limit("must be {expected}, not {shown}"),
}


def problems_of(errors: Sequence[ErrorDetails], schema: Schema) -> list[Problem]:
    """Put pydantic's findings into words, with the help of the structural schema."""
    return [_problem(error, schema) for error in errors if not _follows(error, errors)]


def _follows(error: ErrorDetails, errors: Sequence[ErrorDetails]) -> bool:
    """Tell a list that seems too short only because pydantic does not count its wrong items."""
    length = len(error["loc"])
    return error["type"] == "too_short" and any(
        len(other["loc"]) > length and other["loc"][:length] == error["loc"] for other in errors
    )


def _problem(error: ErrorDetails, schema: Schema) -> Problem:
    sentence = SENTENCES.get(error["type"])
    return Problem(path_of(error["loc"]), sentence(error, schema) if sentence else error["msg"])
