"""What a picture model's server is asked, in OpenAI's shape, and how much of its answer is read."""

from __future__ import annotations

from contract import GenerationRequest
from web.client.call import Call
from web.jobs.picture_memory import picture_bytes
from web.rest.picture_stream import PictureStreamEvent, parse_picture_event

EVENT_BYTES = 65_536
"""Most bytes of an event beside its picture."""

OTHER_BYTES = 1_048_576
"""Most bytes of the stream beside pictures and previews, for each picture."""

PREVIEW_BYTES = 1_048_576
"""Most bytes of each preview, on average."""

_FIELDS = {"negative_prompt", "size", "steps", "guidance", "n", "seed", "image", "mask", "strength"}


def picture_call(model: str, request: GenerationRequest, *, previews: bool) -> Call[PictureStreamEvent]:
    """Always a stream: closing the connection then cancels the generation. Without `previews` none are asked for."""
    renamed = {"output_format": request.format, "partial_images": request.previews if previews else None}
    count, picture = request.n or 1, picture_bytes(request) + EVENT_BYTES
    beside = OTHER_BYTES + PREVIEW_BYTES * (request.previews or 0 if previews else 0)
    return Call(
        path="/images/generations" if request.image is None else "/images/edits",
        body={
            "model": model,
            "prompt": request.prompt,
            "stream": True,
            "progress": True,  # our own predictor's extension
            **request.model_dump(include=_FIELDS, exclude_none=True),
            **{name: value for name, value in renamed.items() if value is not None},
        },
        parse=parse_picture_event,
        event_bytes=picture,
        answer_bytes=count * (picture + beside),
        names={"output_format": "format", "partial_images": "previews"},
    )
