"""What travels as a CloudEvent (version 1.0 of the specification): the types, their data, and the event itself."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, Field

from contract.fields import StrictModel
from contract.problems import Problem
from contract.request import GenerationRequest, Kind
from contract.result import PictureResult, TextResult

FAMILY = "ai.shangcai.generation."
REQUESTED = FAMILY + "requested.v1"
ACCEPTED = FAMILY + "accepted.v1"
PROGRESS = FAMILY + "progress.v1"
COMPLETED = FAMILY + "completed.v1"
FAILED = FAMILY + "failed.v1"
CANCELLED = FAMILY + "cancelled.v1"

JSON = "application/json"

TRACE = ("traceparent", "tracestate")
"""Extension attributes of the distributed-tracing extension."""

CAUSATION = "causationid"
"""Extension: the id of the event that this one answers."""

MODEL = "model"
"""Extension of a request: the served name of the model that is meant, for Triggers to filter by."""

CARRIED = (*TRACE, "correlationid", "partitionkey")
"""Extensions of a request that what is said about it has, too."""

EXPIRY = "expirytime"
"""Extension of the specification's: after this time nobody waits for the result any more."""

DATAREF = "dataref"
"""Extension of the specification's: where the data lies that is too large to travel (a claim check)."""

ERROR_CODE, ERROR_DESTINATION, ERROR_DATA = "knativeerrorcode", "knativeerrordest", "knativeerrordata"
"""Knative's extensions of an event that nobody took: the last status, who was asked, and the answer in base64."""

EVENT_BYTES = 262_144
"""Largest event that is sent with its data inside; Kafka's brokers take a megabyte, and may keep it for days."""


ATTRIBUTE_CHARS = 2_048
"""Longest value of an attribute, in Unicode code points."""

_RFC_3339 = re.compile(
    "[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}([.][0-9]+)?(Z|[+-][0-9]{2}:[0-9]{2})", re.IGNORECASE
)


def _time(text: str) -> str:
    try:
        datetime.fromisoformat(text.upper())  # which takes more than that, but knows the calendar
        known = _RFC_3339.fullmatch(text) is not None
    except ValueError:
        known = False
    if not known:
        raise ValueError("must be a time as RFC 3339 writes it, such as 2026-01-31T08:00:00Z")
    return text


def _printable(text: str) -> str:
    if re.search(r"[\x00-\x1f\x7f-\x9f]", text):
        raise ValueError("must not have control characters")
    return text


def _name(name: str) -> str:
    if not re.fullmatch("[a-z0-9]+", name):
        raise ValueError("is no name of an attribute: it must be of lower-case letters and digits")
    if name == "data" or name in ATTRIBUTES:
        raise ValueError("is no name of an extension: the specification gives it a meaning")
    return name


Extension = Annotated[str, Field(max_length=ATTRIBUTE_CHARS), AfterValidator(_printable)]
Attribute = Annotated[str, Field(min_length=1, max_length=ATTRIBUTE_CHARS), AfterValidator(_printable)]
Time = Annotated[Attribute, AfterValidator(_time)]


class CloudEvent(StrictModel):
    """One event; `data` as it is to be sent, in the form that `datacontenttype` names."""

    specversion: Literal["1.0"] = "1.0"
    id: Attribute
    source: Attribute
    type: Attribute
    subject: Attribute | None = None
    time: Time | None = None
    datacontenttype: Attribute | None = None
    dataschema: Attribute | None = None
    extensions: dict[Annotated[str, AfterValidator(_name)], Extension] = Field(default={})
    data: bytes | None = Field(default=None, repr=False)

    @property
    def key(self) -> tuple[str, str]:
        """What tells it from every other event: brokers may deliver the same one many times."""
        return self.source, self.id

    @property
    def attributes(self) -> dict[str, str]:
        """All of them, extensions too, in the order of the specification."""
        named = self.model_dump(exclude={"extensions", "data"}, exclude_none=True)
        return named | self.extensions

    def with_data(self, data: BaseModel) -> CloudEvent:
        """The same event around other data."""
        # A result says null where something is not known; elsewhere null and nothing are the same.
        body = data.model_dump_json(exclude_none=not isinstance(data, TextResult | PictureResult)).encode()
        return self.model_copy(update={"datacontenttype": JSON, "data": body})


ATTRIBUTES = frozenset(CloudEvent.model_fields) - {"extensions", "data"}
"""The names that the specification itself gives a meaning."""


def written(seconds: float) -> str:
    """A moment, in seconds since 1970, as RFC 3339 writes it."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def now() -> str:
    """This moment as an event's `time`."""
    return written(time.time())


class Acceptance(StrictModel):
    """Data of ACCEPTED: who has begun with it."""

    model: str
    kind: Kind


class GenerationProgress(StrictModel):
    """Data of PROGRESS: how far it has come. Without a subject it is the model itself that is loading."""

    model: str
    state: Literal["loading", "running"]
    phase: str | None = Field(default=None, description="What loading is busy with.")
    seconds: float | None = Field(default=None, description="Since loading has begun.")
    text: str | None = Field(default=None, description="The text so far.")
    step: int | None = Field(default=None, description="Denoising steps that are done.")
    of: int | None = None


class Cancellation(StrictModel):
    """Data of CANCELLED."""

    reason: str


@dataclass(frozen=True)
class EventType:
    """One row of the catalogue. `data` are the models that its data may have."""

    name: str
    data: tuple[type[BaseModel], ...]
    sender: Literal["anyone", "predictor", "web"]
    meaning: str


EVENT_TYPES = (
    EventType(REQUESTED, (GenerationRequest,), "anyone", "Somebody wants a text or pictures."),
    EventType(ACCEPTED, (Acceptance,), "predictor", "A predictor has begun with it (where progress is switched on)."),
    EventType(PROGRESS, (GenerationProgress,), "predictor", "How far it has come (where progress is switched on)."),
    EventType(COMPLETED, (TextResult, PictureResult), "predictor", "The result."),
    EventType(FAILED, (Problem,), "predictor", "There will be no result; asking again would not help."),
    EventType(CANCELLED, (Cancellation,), "web", "Nobody wants the result any more."),
)
