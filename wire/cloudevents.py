"""CloudEvents over HTTP: binary, structured and batched, read and written.

Python's own SDK (1.13, to which KServe 0.21 pins us) reads no batches, does not percent-encode headers, checks no
attribute names, and invents a time where the sender gave none. So the format is implemented here; the tests compare it
with that SDK and with JavaScript's.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import hmac
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import quote, unquote_to_bytes

from pydantic import BaseModel, Field, ValidationError

from contract import problems
from contract.cloudevents import ATTRIBUTES, CALLER, DATAREF, EXPIRY, JSON, MODEL, SIGNATURE, CloudEvent
from contract.limits import INSTANCES
from contract.problems import FieldError, ProblemError

STRUCTURED = "application/cloudevents+json"
BATCHED = "application/cloudevents-batch+json"

Mode = Literal["binary", "structured", "batched"]

_PREFIX = "ce-"
_REQUIRED = ("specversion", "id", "source", "type")
_PRINTABLE = "".join(map(chr, range(0x20, 0x7F)))
_UNENCODED = "".join(set(_PRINTABLE) - set(' "%'))
_COMPACT = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))
_MOST_ERRORS = 16  # that are reported of one event; a hostile event could have a hundred thousand
_LONGEST_NAME = 64


@dataclass(frozen=True)
class Delivery:
    """The events of one HTTP request, and their mode."""

    mode: Mode
    events: list[CloudEvent]


def is_event(headers: Mapping[str, str]) -> bool:
    """Whether an HTTP message claims to be an event. Names of `headers` in lower case."""
    media_type = _media_type(headers.get("content-type", ""))
    return media_type.startswith("application/cloudevents") or any(name.startswith(_PREFIX) for name in headers)


def read_events(headers: Mapping[str, str], body: bytes) -> Delivery:
    """The events of an HTTP message; a MALFORMED_EVENT or UNSUPPORTED_MEDIA_TYPE problem that names what is wrong.

    Names of `headers` in lower case; values as Starlette or httpx2 have them.

    Source: CloudEvents 1.0.2, HTTP protocol binding and JSON event format.
    """
    mode, found = read_each(headers, body)
    events = []
    for event in found:
        if isinstance(event, ProblemError):
            raise event
        events.append(event)
    return Delivery(mode, events)


def read_each(headers: Mapping[str, str], body: bytes) -> tuple[Mode, list[CloudEvent | ProblemError]]:
    """As read_events, but in the place of an event of a batch that cannot be read stands what is wrong with it."""
    media_type = _media_type(headers.get("content-type", ""))
    if not media_type.startswith("application/cloudevents"):
        return "binary", [_binary(headers, body)]
    if media_type not in (STRUCTURED, BATCHED):
        raise ProblemError(
            problems.UNSUPPORTED_MEDIA_TYPE,
            f"An event comes as {STRUCTURED}, as {BATCHED}, or in binary mode.",
        )
    try:
        document = json.loads(body, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise ProblemError(problems.MALFORMED_EVENT, f"The body is not valid JSON: {error}.") from None
    if media_type == STRUCTURED:
        return "structured", [_structured(document)]
    if not isinstance(document, list) or len(document) > INSTANCES:
        raise ProblemError(problems.MALFORMED_EVENT, f"A batch is a list of at most {INSTANCES} events.")
    return "batched", [_one_of_batch(item, f"{index}.") for index, item in enumerate(document)]


def _one_of_batch(document: Any, where: str) -> CloudEvent | ProblemError:
    try:
        return _structured(document, where)
    except ProblemError as error:
        return error


def write_event(event: CloudEvent, mode: Mode = "binary") -> tuple[dict[str, str], bytes]:
    """Headers and body of an HTTP message that holds the event."""
    if mode == "binary":
        attributes = event.attributes
        content_type = attributes.pop("datacontenttype", None)
        headers = {_PREFIX + name: quote(value, safe=_UNENCODED) for name, value in attributes.items()}
        if content_type is not None:  # a media type may have spaces and quotes, which are not encoded
            headers["content-type"] = quote(content_type, safe=_PRINTABLE)
        return headers, event.data or b""
    if mode == "structured":
        return {"content-type": STRUCTURED}, _document(event)
    return write_batch([event])


def write_batch(events: Iterable[CloudEvent]) -> tuple[dict[str, str], bytes]:
    """Headers and body of an HTTP message that holds all events."""
    return {"content-type": BATCHED}, b"[" + b",".join(map(_document, events)) + b"]"


def signed(event: CloudEvent, token: str) -> CloudEvent:
    """The event with a signature: the HMAC of what its reader goes by. Brokers may add to the rest."""
    return event.model_copy(update={"extensions": event.extensions | {SIGNATURE: _signature(event, token)}})


def is_signed(event: CloudEvent, token: str) -> bool:
    """Whether the event is as somebody with this token has signed it."""
    return hmac.compare_digest(event.extensions.get(SIGNATURE, "").encode(), _signature(event, token).encode())


def _signature(event: CloudEvent, token: str) -> str:
    data: Any = (event.data or b"").hex()
    with contextlib.suppress(ValueError, RecursionError):  # JSON may come in other words than it was sent in
        data = json.loads(event.data or b"")
    named = [event.id, event.source, event.type, event.subject]
    extensions = [event.extensions.get(name) for name in (CALLER, MODEL, EXPIRY, DATAREF)]
    document = json.dumps(["shangcai event", named, extensions, data], sort_keys=True)
    return hmac.new(token.encode(), document.encode(), hashlib.sha256).hexdigest()


class _Overrides(BaseModel):
    extensions: dict[str, str] = Field(default={})


def overrides(text: str) -> dict[str, str]:
    """The extension attributes in K_CE_OVERRIDES, which a SinkBinding injects and which may be empty; a ValueError when
    it is malformed."""
    try:
        extensions = _Overrides.model_validate_json(text.strip() or "{}").extensions
        return CloudEvent(id="1", source="1", type="1", extensions=extensions).extensions
    except ValidationError:
        raise ValueError('must be JSON such as {"extensions": {"name": "value"}}') from None


def is_json(content_type: str | None) -> bool:
    """Whether data of this type is JSON, as it is without a type (JSON event format, 3.1)."""
    media_type = _media_type(content_type or JSON)
    return media_type.endswith(("/json", "+json"))


def _binary(headers: Mapping[str, str], body: bytes) -> CloudEvent:
    attributes = {
        name.removeprefix(_PREFIX): _decoded(name, value) for name, value in headers.items() if name.startswith(_PREFIX)
    }
    if "content-type" in headers:
        attributes["datacontenttype"] = headers["content-type"]
    return _event(attributes, body or None, "header ce-")


def _structured(document: Any, where: str = "") -> CloudEvent:
    """`where` stands before an attribute's name in errors."""
    if not isinstance(document, dict):
        raise _malformed([_error(where.rstrip(".") or "body", "must be a JSON object")])
    members = {name: value for name, value in document.items() if value is not None}
    data = _data(members.pop("data", None), members.pop("data_base64", None), members.get("datacontenttype"), where)
    attributes: dict[str, str] = {}
    for name, value in members.items():
        if not isinstance(value, str | int):  # a bool is an int
            raise _malformed([_error(where + name, "must be a text, a whole number or a truth value")])
        attributes[name] = str(value).lower() if isinstance(value, bool) else str(value)
    return _event(attributes, data, where)


def _data(value: Any, encoded: Any, content_type: Any, where: str) -> bytes | None:
    if encoded is None:
        if value is None:
            return None
        as_text = isinstance(value, str) and isinstance(content_type, str) and not is_json(content_type)
        try:
            return (value if as_text else _COMPACT.encode(value)).encode()
        except (ValueError, RecursionError):  # half a surrogate pair, 1e999, or deep nesting
            raise _malformed([_error(where + "data", "holds what cannot be written as JSON again")]) from None
    if value is not None:
        raise _malformed([_error(where + "data_base64", "must be left out where there is data")])
    try:
        return base64.b64decode(encoded, validate=True)
    except (binascii.Error, TypeError, ValueError):
        raise _malformed([_error(where + "data_base64", "is no base64")]) from None


def _event(attributes: dict[str, str], data: bytes | None, where: str) -> CloudEvent:
    """`where` stands before an attribute's name in errors."""
    missing = [_error(where + name, "is required") for name in _REQUIRED if not attributes.get(name)]
    if missing:
        raise _malformed(missing)
    named = {name: value for name, value in attributes.items() if name in ATTRIBUTES}
    extensions = {name: value for name, value in attributes.items() if name not in ATTRIBUTES}
    try:
        return CloudEvent(**named, extensions=extensions, data=data)  # type: ignore[arg-type]
    except ValidationError as error:
        raise _malformed(
            [
                # Extensions are one level deeper.
                _error(where + str(item["loc"][:2][-1]), item["msg"].removeprefix("Value error, "))
                for item in error.errors(include_url=False, include_input=False)[:_MOST_ERRORS]
            ]
        ) from None


def _error(field: str, detail: str) -> FieldError:
    # JSON can escape half a surrogate pair, which UTF-8 cannot encode.
    return FieldError(field=field[:_LONGEST_NAME].encode(errors="replace").decode(), detail=detail)


def _malformed(errors: list[FieldError]) -> ProblemError:
    detail = "; ".join(f"{error.field}: {error.detail}" for error in errors)
    return ProblemError(problems.MALFORMED_EVENT, detail, errors=errors)


def _decoded(name: str, value: str) -> str:
    """A header's value: percent-encoded UTF-8, perhaps in double quotes (HTTP protocol binding, 3.1.3.2)."""
    if len(value) >= 2 and value[0] == value[-1] == '"':
        value = re.sub(r"\\(.)", r"\1", value[1:-1])
    with contextlib.suppress(UnicodeError):  # then it is Latin-1, or was decoded as UTF-8 already (httpx2 does that)
        value = value.encode("latin-1").decode()
    if re.search("%(?![0-9A-Fa-f]{2})", value):
        raise _malformed([_error(f"header {name}", "has a % that begins no percent-encoding")])
    try:
        return unquote_to_bytes(value).decode()
    except UnicodeError:
        raise _malformed([_error(f"header {name}", "is no percent-encoded UTF-8")]) from None


def _document(event: CloudEvent) -> bytes:
    document = _COMPACT.encode(event.attributes).encode()
    if event.data is None:
        return document
    if is_json(event.datacontenttype) and _holds_json(event.data):
        return document[:-1] + b',"data":' + event.data + b"}"
    return document[:-1] + b',"data_base64":"' + base64.b64encode(event.data) + b'"}'


def _holds_json(data: bytes) -> bool:
    """Whether it can be embedded as it is. Data that is no JSON could add attributes to the document."""
    try:
        json.loads(data.decode(), parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return False
    return True


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number in JSON")


def _media_type(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()
