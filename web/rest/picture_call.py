"""What a model server is asked, in the OpenAI shapes, and within which limits its answer is read.

Streaming always, whatever the client wants in the end: closing the connection is then all it takes to cancel, and the
first token can be timed.
"""

from __future__ import annotations

from contract import GenerationRequest
from web.client.call import Call
from web.rest.picture_stream import PictureStreamEvent, parse_picture_event
from web.rest.text_stream import Chunk, parse_chunk

EVENT_BYTES = 1_048_576
"""Longest event of a text; one chunk of a completion has a few hundred bytes."""

ANSWER_BYTES = 16_777_216
"""Most bytes of the stream of one text; and of one picture all that is not the picture, previews for the most part."""

PICTURE_BYTES = 33_554_432
"""Longest event of a picture. One of 2048 x 2048 pixels that do not compress at all has 22 million, in base64."""

_SAMPLING = {"max_tokens", "temperature", "top_p", "stop", "seed"}
_PAINTING = {"negative_prompt", "size", "steps", "guidance", "n", "seed"}


def text_call(model: str, order: GenerationRequest) -> Call[Chunk]:
    return Call(
        path="/openai/v1/chat/completions",
        body={
            "model": model,
            "messages": [{"role": "user", "content": order.prompt}],
            "stream": True,
            "stream_options": {"include_usage": True},
            **order.model_dump(include=_SAMPLING, exclude_none=True),
        },
        parse=parse_chunk,
        event_bytes=EVENT_BYTES,
        answer_bytes=ANSWER_BYTES,
    )


def picture_call(model: str, order: GenerationRequest, *, live: bool) -> Call[PictureStreamEvent]:
    """Previews are asked for only where somebody is going to see them."""
    renamed = {"output_format": order.format, "partial_images": order.previews if live else None}
    count = order.n or 1
    return Call(
        path="/openai/v1/images/generations",
        body={
            "model": model,
            "prompt": order.prompt,
            "stream": True,
            "progress": True,  # our own predictor's extension
            **order.model_dump(include=_PAINTING, exclude_none=True),
            **{name: value for name, value in renamed.items() if value is not None},
        },
        parse=parse_picture_event,
        event_bytes=PICTURE_BYTES,
        answer_bytes=count * (PICTURE_BYTES + ANSWER_BYTES),
    )
