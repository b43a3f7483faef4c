"""Print docs/events.md from the contract: `python -m scripts.docs.events > docs/events.md`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel

from contract import INSTANCES, problems
from contract.cloudevents import (
    ACCEPTED,
    ATTRIBUTES,
    CALLER,
    CANCELLED,
    CARRIED,
    CAUSATION,
    DATAREF,
    ERROR_CODE,
    ERROR_DATA,
    ERROR_DESTINATION,
    EVENT_BYTES,
    EVENT_TYPES,
    EXPIRY,
    FAMILY,
    MODEL,
    PROGRESS,
    REQUESTED,
    SIGNATURE,
    EventType,
)
from scripts.docs.event_examples import EXAMPLES
from scripts.docs.template import fill

NO_REPLY = {
    problems.MALFORMED_REQUEST,
    problems.HEADER_TOO_LARGE,
    problems.MALFORMED_EVENT,
    problems.UNAUTHORIZED,
    problems.FORBIDDEN,
    problems.NOT_FOUND,
    problems.METHOD_NOT_ALLOWED,
    problems.NOT_ACCEPTABLE,
    problems.BODY_TOO_LARGE,
    problems.KEY_REUSED,
    problems.PREVIOUS_RESPONSE_NOT_FOUND,
    problems.CONTENT_FILTERED,
    problems.REFUSED_UPSTREAM,
    problems.QUOTA_EXCEEDED,
}
"""Problems of a delivery that is no request: they have no reply."""


def short(name: str) -> str:
    return name.removeprefix(FAMILY)


MEANINGS = {
    "specversion": "Always 1.0.",
    "id": "Unique with `source`. The reply to a request has the same one however often it is sent.",
    "source": "Who sent it: `urn:shangcai:web`, `urn:shangcai:model:NAME`, or what `--event-source` says.",
    "type": "One of the types above.",
    "subject": "The generation: the same in all events about it. Only the loading of a model has none.",
    "time": "When it was sent.",
    "datacontenttype": "`application/json`.",
    CAUSATION: "The `id` of the request that it is about.",
    DATAREF: "Where the data are, if they are too large for an event.",
    MODEL: "The served name of the model that is asked.",
    CALLER: "Whose request it is, where that is proven.",
    SIGNATURE: "The proof of a request or a cancellation.",
    EXPIRY: "After this nobody waits for the result.",
    "traceparent": "The trace that the request belongs to, as W3C Trace Context has it.",
}
"""Of every attribute in the examples."""


def describe() -> str:
    """The whole page, in Markdown."""
    return fill(
        "events.md",
        {
            "types": "".join(types()),
            "attributes": "".join(attributes()),
            "sections": "".join(map(section, EVENT_TYPES)),
            "transient": transient(),
            "final": final(),
            "carried": listed(CARRIED),
            "accepted": short(ACCEPTED),
            "caller": CALLER,
            "cancelled": short(CANCELLED),
            "progress": short(PROGRESS),
            "requested": short(REQUESTED),
            "causation": CAUSATION,
            "dataref": DATAREF,
            "error_code": ERROR_CODE,
            "error_data": ERROR_DATA,
            "error_destination": ERROR_DESTINATION,
            "event_bytes": f"{EVENT_BYTES:,}",
            "expiry": EXPIRY,
            "instances": str(INSTANCES),
            "model": MODEL,
            "signature": SIGNATURE,
            "too_large": problems.RESULT_TOO_LARGE.slug,
            "too_late": problems.TOO_LATE.slug,
        },
    )


def types() -> Iterator[str]:
    yield "| type | sent by | meaning |\n|---|---|---|\n"
    for row in EVENT_TYPES:
        anchor = short(row.name).replace(".", "")
        yield f"| [`{row.name}`](#{anchor}) | {row.sender} | {row.meaning} |\n"


def transient() -> str:
    """The problems that another try can mend, by their status."""
    rows = ["| status | problems |", "|---|---|"]
    kinds = [kind for kind in problems.PROBLEM_TYPES if kind.transient and kind not in NO_REPLY]
    for status in dict.fromkeys(kind.status for kind in kinds):
        names = listed(kind.slug for kind in kinds if kind.status == status)
        rows.append(f"| {status} {HTTPStatus(status).phrase} | {names} |")
    return "\n".join(rows)


def final() -> str:
    """The problems that a request ends with."""
    kinds = [kind for kind in problems.PROBLEM_TYPES if not kind.transient and kind not in NO_REPLY]
    return listed(kind.slug for kind in kinds)


def attributes() -> Iterator[str]:
    yield "| attribute | meaning |\n|---|---|\n"
    for name, meaning in MEANINGS.items():
        yield f"| `{name}` | {meaning} |\n"


def section(row: EventType) -> str:
    """One type: its meaning, its attributes, its data, and examples of them; the first in every form."""
    shown = EXAMPLES[row.name]
    names = dict.fromkeys(name for example in shown for name in example.event.attributes)
    first, *others = shown
    return "".join(
        [
            f"## {short(row.name)}\n\n`{row.name}`, sent by {row.sender}. {row.meaning}\n\n",
            f"Attributes: {listed(name for name in names if name in ATTRIBUTES)}. ",
            f"Extensions: {listed(name for name in names if name not in ATTRIBUTES)}.\n\n",
            *map(schema, row.data),
            f"{first.what}, in binary mode:\n\n{first.transcript('binary')}\n",
            f"structured:\n\n{first.transcript('structured')}\n",
            f"and batched:\n\n{first.transcript('batched')}\n",
            *(f"{other.what}:\n\n{other.transcript('binary')}\n" for other in others),
        ]
    )


def listed(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def schema(data: type[BaseModel]) -> str:
    written = json.dumps(plain(data.model_json_schema()), ensure_ascii=False, indent=2)
    return f"<details><summary>Data: {data.__name__}</summary>\n\n```json\n{written}\n```\n\n</details>\n\n"


def plain(schema: Any) -> Any:
    """Without pydantic's titles, and without the null that is the same as to leave a member out."""
    match schema:
        case {"anyOf": [kind, {"type": "null"}], "default": None, **others}:
            return plain({**kind, **others})
        case dict():
            titled = isinstance(schema.get("title"), str)
            return {key: plain(value) for key, value in schema.items() if not (titled and key == "title")}
        case list():
            return list(map(plain, schema))
    return schema


if __name__ == "__main__":
    print(describe(), end="")
