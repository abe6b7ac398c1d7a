"""What every part of the resource shares: how fields are spelled, and the bounded types they are made of."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

INT32_MAX = 2**31 - 1
WEEK_SECONDS = 7 * 24 * 3600
ACRONYMS = {"gpu": "GPU", "gb": "GB", "kv": "KV", "tflops": "TFLOPS"}
SUBDOMAIN = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
LABEL_NAME = r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
LABEL_KEY = rf"^([a-z0-9]([-a-z0-9.]{{0,251}}[a-z0-9])?/)?{LABEL_NAME}$"
PORT = "([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"


def camel(name: str) -> str:
    """Spell a Python field as the API does: `gpu_memory_gb` is `gpuMemoryGB`."""
    first, *rest = name.split("_")
    return first + "".join(ACRONYMS.get(word, word.capitalize()) for word in rest)


class Part(BaseModel):
    """A part of the resource. Frozen; an unknown field is an error; code may use Python names, documents may not."""

    model_config = ConfigDict(alias_generator=camel, populate_by_name=True, frozen=True, extra="forbid")

    def document(self) -> dict[str, Any]:
        """Give the part as JSON values, spelled as the API spells it, with the fields that were set and no others."""
        return self.model_dump(mode="json", by_alias=True, exclude_unset=True)


class OpenPart(Part):
    """A part of Kubernetes' own types: what no rule reads is kept as it was written."""

    model_config = ConfigDict(extra="allow")


def keyed_by(*keys: str) -> dict[str, Any]:
    """Tell a list's items apart by `keys`: a second item with the same keys is refused."""
    return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": list(keys)}


def as_set() -> dict[str, Any]:
    """Let a list hold each value once."""
    return {"x-kubernetes-list-type": "set"}


def defaulted() -> dict[str, Any]:
    """Let the API server fill in an object, field by field, when it was left out."""
    return {"default": {}}


Seconds = Annotated[int, Field(ge=1, le=WEEK_SECONDS)]
SecondsOrZero = Annotated[int, Field(ge=0, le=WEEK_SECONDS)]
Count = Annotated[int, Field(ge=0, le=INT32_MAX)]
Port = Annotated[int, Field(ge=1, le=65535)]
Capacity = Annotated[int, Field(ge=1, le=1000)]
GpuMemory = Annotated[int, Field(ge=1, le=100_000)]
ModelName = Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[!-~]+$")]
LabelKey = Annotated[str, Field(max_length=317, pattern=LABEL_KEY)]
LabelValue = Annotated[str, Field(max_length=63, pattern=rf"^({LABEL_NAME})?$")]
Text = Annotated[str, Field(max_length=1024)]
Word = Annotated[str, Field(max_length=253)]


def _int_or_percent(value: object) -> int | str:
    if isinstance(value, str) and value.removesuffix("%").isdecimal() and value.isascii() and len(value) <= 4:
        if value.endswith("%") and (value == "0%" or value[0] != "0"):
            return value
    elif isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= INT32_MAX:
        return value
    raise PydanticCustomError("int_or_percent", "must be a whole number from 0 or a percentage such as 25%")


IntOrPercent = Annotated[
    int | str,
    PlainValidator(_int_or_percent),
    WithJsonSchema(
        {
            "x-kubernetes-int-or-string": True,
            "minimum": 0,
            "maximum": INT32_MAX,
            "maxLength": 4,
            "pattern": "^(0|[1-9][0-9]{0,2})%$",
        }
    ),
]
