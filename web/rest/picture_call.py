"""What a picture model's server is asked, in OpenAI's shape, and how much of its answer is read."""

from __future__ import annotations

from contract import GenerationRequest
from web.client.call import Call
from web.rest.picture_stream import PictureStreamEvent, parse_picture_event

PICTURE_BYTES = 33_554_432
"""Longest event. A picture of 2048 x 2048 pixels that does not compress at all has 22 million bytes in base64."""

OTHER_BYTES = 16_777_216
"""Most bytes of the stream beside the pictures, for each picture; most of them are previews."""

_FIELDS = {"negative_prompt", "size", "steps", "guidance", "n", "seed"}


def picture_call(model: str, request: GenerationRequest, *, previews: bool) -> Call[PictureStreamEvent]:
    """Always a stream: closing the connection then cancels the generation. Without `previews` none are asked for."""
    renamed = {"output_format": request.format, "partial_images": request.previews if previews else None}
    count = request.n or 1
    return Call(
        path="/images/generations",
        body={
            "model": model,
            "prompt": request.prompt,
            "stream": True,
            "progress": True,  # our own predictor's extension
            **request.model_dump(include=_FIELDS, exclude_none=True),
            **{name: value for name, value in renamed.items() if value is not None},
        },
        parse=parse_picture_event,
        event_bytes=PICTURE_BYTES,
        answer_bytes=count * (PICTURE_BYTES + OTHER_BYTES),
    )
