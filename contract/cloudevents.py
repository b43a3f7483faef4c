"""CloudEvents (version 1.0): the event itself, our event types, and their data."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, Field

from contract.fields import StrictModel
from contract.limits import INSTANCES
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
"""Extension of a request: the served name of its model, for Triggers to filter by."""

CALLER = "caller"
"""Extension: whose request it is. It counts only where the event is signed, or its delivery proves who sent it."""

SIGNATURE = "signature"
"""Extension: proves that whoever has the predictors' token has sent the event, whichever brokers it has passed."""

CARRIED = (*TRACE, "correlationid", "partitionkey", CALLER)
"""Extensions that events about a request take over from it."""

EXPIRY = "expirytime"
"""Documented extension: after this time nobody waits for the result any more."""

DATAREF = "dataref"
"""Documented extension: the address of data that is too large for the event (a claim check)."""

ERROR_CODE, ERROR_DESTINATION, ERROR_DATA = "knativeerrorcode", "knativeerrordest", "knativeerrordata"
"""Knative's extensions of a dead letter: the last status, the subscriber's address, and its answer in base64."""

EVENT_BYTES = 262_144
"""Largest event that is sent with its data inside. Kafka's brokers take a megabyte, and may keep it for days."""

BATCH_BYTES = INSTANCES * (EVENT_BYTES + 1) + 1
"""Largest batch: as many of these as it may hold, with what stands between them."""


ATTRIBUTE_CHARS = 2_048
"""Longest value of an attribute, in Unicode code points."""

_RFC_3339 = re.compile(
    "[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}([.][0-9]+)?(Z|[+-][0-9]{2}:[0-9]{2})", re.IGNORECASE
)


def _time(text: str) -> str:
    try:
        datetime.fromisoformat(text.upper())  # accepts more than RFC 3339, but knows the calendar
        valid = _RFC_3339.fullmatch(text) is not None
    except ValueError:
        valid = False
    if not valid:
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
    """One event; `data` are the bytes that are sent, of the media type `datacontenttype`."""

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
        """Identifies the event: brokers may deliver the same one several times."""
        return self.source, self.id

    @property
    def attributes(self) -> dict[str, str]:
        """All that are set, in the order of the specification; then the extensions."""
        named = self.model_dump(exclude={"extensions", "data"}, exclude_none=True)
        return named | self.extensions

    def with_data(self, data: BaseModel) -> CloudEvent:
        """The same event around other data."""
        # In a result null means not known; in other data null and absent mean the same.
        body = data.model_dump_json(exclude_none=not isinstance(data, TextResult | PictureResult)).encode()
        return self.model_copy(update={"datacontenttype": JSON, "data": body})


ATTRIBUTES = frozenset(CloudEvent.model_fields) - {"extensions", "data"}
"""The names of the attributes that the specification defines."""


def written(seconds: float) -> str:
    """A time in seconds since 1970 as RFC 3339, in UTC, to the millisecond."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def now() -> str:
    """The current time as an event's `time`."""
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
    reasoning_content: str | None = Field(default=None, description="What the model has thought before it, so far.")
    step: int | None = Field(default=None, description="Denoising steps that are done.")
    of: int | None = None


class Cancellation(StrictModel):
    """Data of CANCELLED."""

    reason: str


@dataclass(frozen=True)
class EventType:
    """One row of the catalogue in docs/events.md. `data` are the models that its data may have."""

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
