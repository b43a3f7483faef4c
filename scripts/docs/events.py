"""Print docs/events.md from the contract itself: `python -m scripts.docs.events > docs/events.md`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel

from contract import (
    INSTANCES,
    GenerationRequest,
    Picture,
    PictureResult,
    PictureTiming,
    ProblemError,
    TextResult,
    Timing,
    Usage,
    problems,
)
from contract.cloudevents import (
    ACCEPTED,
    ATTRIBUTES,
    CANCELLED,
    CARRIED,
    CAUSATION,
    COMPLETED,
    DATAREF,
    ERROR_CODE,
    ERROR_DATA,
    ERROR_DESTINATION,
    EVENT_BYTES,
    EVENT_TYPES,
    EXPIRY,
    FAILED,
    FAMILY,
    MODEL,
    PROGRESS,
    REQUESTED,
    Acceptance,
    Cancellation,
    CloudEvent,
    EventType,
    GenerationProgress,
)
from wire.cloudevents import Mode, write_batch, write_event

NO_REPLY = {
    problems.MALFORMED_EVENT,
    problems.UNAUTHORIZED,
    problems.FORBIDDEN,
    problems.NOT_FOUND,
    problems.METHOD_NOT_ALLOWED,
    problems.NOT_ACCEPTABLE,
    problems.BODY_TOO_LARGE,
    problems.KEY_REUSED,
}
"""What keeps a request from being one."""


def short(name: str) -> str:
    return name.removeprefix(FAMILY)


HEAD = """\
# Events

Shangcai speaks [CloudEvents](https://cloudevents.io) 1.0 over HTTP, in binary, structured and batched mode. The
predictor is a subscriber: it takes requests at `POST /` and at KServe's `POST /v1/models/NAME:predict`, and answers
each with an event. `web` sends requests to `K_SINK` (`DISPATCH=EVENTS`) and takes what is said about them at `POST
/events`. `python -m web.publish` sends one by hand.

This page is made by `scripts/docs/events.py`; a test keeps it true.

"""

RULES = f"""\
## Rules

**Retries.** A request ends with one reply: `completed.v1`, or `failed.v1` with a problem document where asking again
would not help. Both come with status 200, so that no broker delivers the request again. What another try can mend is
answered with the problem itself, its status and `Retry-After`, which Knative and most clients take as "again, later":

{{transient}}

What ends a request as `failed.v1`: {{final}}.

What cannot be read as an event, or may not be sent by whoever sent it, has no reply: its answer is a problem with a 4xx
status, which brokers do not retry.

**Redelivery.** Brokers deliver at least once. The predictor knows a request by its `source` and `id`: delivered again
while it runs, it joins the run; afterwards it gets the same reply, with the same `id`, and nothing is computed. Give
each request an `id` of its own: with other data, the same `id` is still the same request.

**Claim check.** An event of more than {EVENT_BYTES:,} bytes does not carry its data: they lie in a file below
`ARTIFACTS_URL`, and `{DATAREF}` says where. `web` reads from below that address only. Without an `ARTIFACTS_URL` such a
request fails as `{problems.RESULT_TOO_LARGE.slug}`.

**Trace and causation.** What is said about a request has its `subject` (or its `id`, where it has no subject), its
extensions {{carried}}, and its `id` as `{CAUSATION}`.

**Several models.** A request with the extension `{MODEL}`, as `web` sends it, is for the predictor of that name;
Triggers filter by it, and a predictor of another name that gets it all the same leaves it alone (204).

**Loops.** A reply never has the type of a request. A Trigger should filter on the types that its subscriber is meant to
take: `{short(REQUESTED)}` and `{short(CANCELLED)}` for the predictor, the others for `web`.

**Time.** After `{EXPIRY}` nobody waits for the result any more: a request that comes later fails as
`{problems.TOO_LATE.slug}`, and one that is running is given up. `time` may be missing, as the specification allows.

**Cancelling.** `{short(CANCELLED)}` ends what runs under its `subject`, which it must have, whoever asked for it, and
what is asked for under that subject in the next ten minutes: it may have overtaken its request. So give each request a
subject, or an id, of its own.

**Batches** hold at most {INSTANCES} events. A batch of requests is answered with the batch of their replies. If one of
them had better be tried again, the whole batch is answered with that problem; when it comes again, the others are not
computed again.

**Dead letters.** A request that a broker gave up on goes to its dead-letter sink, with `{ERROR_CODE}`,
`{ERROR_DESTINATION}` and `{ERROR_DATA}`. Let that sink be `POST /events` of `web`, and the job ends as failed with the
reason.

**Progress** is opt-in (`--progress-events`): `{short(ACCEPTED)}` and `{short(PROGRESS)}` go to the predictor's
`K_SINK`, each once, and may be lost. Nothing else depends on them.

"""

MEANINGS = {
    "specversion": "Always 1.0.",
    "id": "With `source` what tells a request from any other. A reply to the same request always has the same one.",
    "source": "Who sent it: `urn:shangcai:web`, `urn:shangcai:model:NAME`, or what `--event-source` says.",
    "type": "One of the types above.",
    "subject": "The generation: the same in all that is said about it. Only the loading of a model has none.",
    "time": "When it was sent.",
    "datacontenttype": "`application/json`.",
    CAUSATION: "The `id` of the request that it is about.",
    DATAREF: "Where the data lie, if they are too large for an event.",
    MODEL: "The served name of the model that is meant.",
    EXPIRY: "When nobody waits for the result any more.",
    "traceparent": "The trace that the request belongs to, as W3C Trace Context has it.",
}
"""Of every attribute in the examples."""

JOB = "1b4e28ba2fa14d2f883f0016d3cca427"
WEB, POET, PAINTER = "urn:shangcai:web", "urn:shangcai:model:poet", "urn:shangcai:model:painter"
TRACE = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
ONE_PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
TEXT = TextResult(
    id=JOB,
    model="poet",
    text="好雨知时节，当春乃发生。\n随风潜入夜，润物细无声。",
    finish_reason="stop",
    usage=Usage(prompt_tokens=11, completion_tokens=26),
    timing=Timing(queue_s=0.002, first_token_s=0.011, total_s=0.094),
)
PICTURE = PictureResult(
    id=JOB,
    model="painter",
    images=[Picture(data=ONE_PIXEL, media_type="image/png", seed=7, width=1, height=1)],
    steps=20,
    understood=["猫"],
    timing=PictureTiming(queue_s=0.002, total_s=0.731),
)
SO_FAR = GenerationProgress(model="poet", state="running", text="好雨知时节，")
STEPS = GenerationProgress(model="painter", state="running", step=12, of=20)
MISSING = ProblemError(problems.UNKNOWN_MODEL, "There is no model bard here; this is poet.")


@dataclass(frozen=True)
class Example:
    """An event as it travels; `reply` in an answer."""

    what: str
    event: CloudEvent
    reply: bool = False


def about(source: str, number: int, kind: str, data: BaseModel, **extensions: str) -> CloudEvent:
    """An event about the job, `number` seconds after its request."""
    return CloudEvent(
        id=f"6ba7b81{number}-9dad-5d1b-80b4-00c04fd430c8",
        source=source,
        type=kind,
        subject=JOB,
        time=f"2026-01-31T08:00:0{number}.000Z",
        extensions={**TRACE, CAUSATION: JOB, **extensions},
    ).with_data(data)


def requested() -> CloudEvent:
    order = GenerationRequest(prompt="写一首关于春雨的诗", model="poet", seed=7)
    extensions = {**TRACE, MODEL: "poet", EXPIRY: "2026-01-31T09:00:00.000Z"}
    return about(WEB, 0, REQUESTED, order).model_copy(update={"id": JOB, "extensions": extensions})


def loading() -> CloudEvent:
    phase = GenerationProgress(model="poet", state="loading", phase="warming up", seconds=3.25)
    return about(POET, 4, PROGRESS, phase).model_copy(update={"subject": None, "extensions": {}})


def stored() -> CloudEvent:
    address = "s3://results/9f86d081884c7d659a2feaa0c55ad015.json"
    return about(PAINTER, 5, COMPLETED, PICTURE, **{DATAREF: address}).model_copy(update={"data": None})


EXAMPLES = {
    REQUESTED: [Example("A request", requested())],
    ACCEPTED: [Example("A request that has begun", about(POET, 1, ACCEPTED, Acceptance(model="poet", kind="text")))],
    PROGRESS: [
        Example("A text so far", about(POET, 2, PROGRESS, SO_FAR)),
        Example("Steps of a picture", about(PAINTER, 3, PROGRESS, STEPS)),
        Example("A model that is loading", loading()),
    ],
    COMPLETED: [
        Example("A text", about(POET, 5, COMPLETED, TEXT), reply=True),
        Example("A picture", about(PAINTER, 5, COMPLETED, PICTURE), reply=True),
        Example("A picture that is too large for an event", stored(), reply=True),
    ],
    FAILED: [Example("A request that will never have a result", about(POET, 5, FAILED, MISSING.problem), reply=True)],
    CANCELLED: [Example("A cancelled generation", about(WEB, 6, CANCELLED, Cancellation(reason="the client left")))],
}


def describe() -> str:
    """The whole page."""
    carried = ", ".join(f"`{name}`" for name in CARRIED)
    rules = RULES.format(transient=transient(), final=final(), carried=carried)
    return HEAD + "".join([*catalogue(), rules, *attributes(), *map(section, EVENT_TYPES)])


def catalogue() -> Iterator[str]:
    yield "| type | sent by | meaning |\n|---|---|---|\n"
    for row in EVENT_TYPES:
        anchor = short(row.name).replace(".", "")
        yield f"| [`{row.name}`](#{anchor}) | {row.sender} | {row.meaning} |\n"
    yield "\n"


def transient() -> str:
    """The problems that another try can mend, by their status."""
    rows = ["| status | problems |", "|---|---|"]
    kinds = [kind for kind in problems.PROBLEM_TYPES if kind.transient]
    for status in dict.fromkeys(kind.status for kind in kinds):
        names = listed(kind.slug for kind in kinds if kind.status == status)
        rows.append(f"| {status} {HTTPStatus(status).phrase} | {names} |")
    return "\n".join(rows)


def final() -> str:
    """The problems that a request ends with."""
    kinds = [kind for kind in problems.PROBLEM_TYPES if not kind.transient and kind not in NO_REPLY]
    return listed(kind.slug for kind in kinds)


def attributes() -> Iterator[str]:
    yield "## Attributes\n\n| attribute | meaning |\n|---|---|\n"
    for name, meaning in MEANINGS.items():
        yield f"| `{name}` | {meaning} |\n"
    yield "\n"


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
            f"{first.what}, in binary mode:\n\n{transcript(first, 'binary')}\n",
            f"structured:\n\n{transcript(first, 'structured')}\n",
            f"and batched:\n\n{transcript(first, 'batched')}\n",
            *(f"{other.what}:\n\n{transcript(other, 'binary')}\n" for other in others),
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


def transcript(example: Example, mode: Mode) -> str:
    """As it goes over the wire."""
    headers, body = write_batch([example.event]) if mode == "batched" else write_event(example.event, mode)
    lines = ["HTTP/1.1 200 OK"] if example.reply else ["POST / HTTP/1.1", "host: example.test"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\n".join(["```http", *lines, f"content-length: {len(body)}", "", body.decode(), "```", ""])


if __name__ == "__main__":
    print(describe(), end="")
