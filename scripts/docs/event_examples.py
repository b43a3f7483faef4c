"""One event or more of each type, as docs/events.md shows them."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import BaseModel

from contract import (
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
    CALLER,
    CANCELLED,
    CAUSATION,
    COMPLETED,
    DATAREF,
    EXPIRY,
    FAILED,
    MODEL,
    PROGRESS,
    REQUESTED,
    Acceptance,
    Cancellation,
    CloudEvent,
    GenerationProgress,
)
from wire.cloudevents import Mode, signed, write_batch, write_event

JOB = "1b4e28ba2fa14d2f883f0016d3cca427"
SIGNED_WITH = "the predictor's token"
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
    """An event, what it is an example of, and whether it travels in an answer (`reply`) or in a request."""

    what: str
    event: CloudEvent
    reply: bool = False

    def transcript(self, mode: Mode) -> str:
        """The HTTP message that carries it, as a code block."""
        headers, body = write_batch([self.event]) if mode == "batched" else write_event(self.event, mode)
        lines = ["HTTP/1.1 200 OK"] if self.reply else ["POST / HTTP/1.1", "host: example.test"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        return "\n".join(["```http", *lines, f"content-length: {len(body)}", "", body.decode(), "```", ""])


def about(source: str, number: int, kind: str, data: BaseModel, **extensions: str) -> CloudEvent:
    """An event about the job, `number` seconds after its request."""
    return CloudEvent(
        id=f"6ba7b81{number}-9dad-5d1b-80b4-00c04fd430c8",
        source=source,
        type=kind,
        subject=JOB,
        time=f"2026-01-31T08:00:0{number}.000Z",
        extensions={**TRACE, CALLER: "ann", CAUSATION: JOB, **extensions},
    ).with_data(data)


def requested() -> CloudEvent:
    request = GenerationRequest(prompt="写一首关于春雨的诗", model="poet", seed=7)
    extensions = {**TRACE, MODEL: "poet", CALLER: "ann", EXPIRY: "2026-01-31T09:00:00.000Z"}
    event = about(WEB, 0, REQUESTED, request).model_copy(update={"id": JOB, "extensions": extensions})
    return signed(event, SIGNED_WITH)


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
