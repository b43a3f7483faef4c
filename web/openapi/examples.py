"""The examples in the OpenAPI description of `POST /generate`: bodies, results and streams."""

from __future__ import annotations

from typing import Any

from contract import (
    Picture,
    PictureResultEvent,
    PictureTiming,
    PreviewEvent,
    ProgressEvent,
    ResultEvent,
    StatusEvent,
    Timing,
    TokenEvent,
    Usage,
)
from contract.events import LiveEvent
from wire.sse import frame

# The smallest picture there is: one transparent pixel.
_PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="

REQUESTS: dict[str, dict[str, Any]] = {
    "poem": {"summary": "All that is needed", "value": {"prompt": "写一首关于CPU的现代诗"}},
    "sampling": {
        "summary": "Everything that can be chosen of a text",
        "value": {
            "prompt": "Write a poem about the moon",
            "max_tokens": 128,
            "temperature": 0.8,
            "top_p": 0.95,
            "stop": ["\n\n", "END"],
            "seed": 7,
            "thinking": False,
        },
    },
    "live": {"summary": "Read it while it is written", "value": {"prompt": "春天的雨", "stream": True}},
    "picture": {"summary": "A picture", "value": {"prompt": "画一只猫", "kind": "image"}},
    "painting": {
        "summary": "Everything that can be chosen of a picture",
        "value": {
            "prompt": "a red apple",
            "kind": "image",
            "negative_prompt": "leaves",
            "size": "64x64",
            "steps": 20,
            "guidance": 4,
            "n": 2,
            "seed": 7,
            "format": "webp",
        },
    },
    "from a picture": {
        "summary": "Another picture of a picture",
        "value": {"prompt": "a red apple", "kind": "image", "image": _PIXEL, "strength": 0.6},
    },
    "live picture": {
        "summary": "See it while it is made",
        "value": {"prompt": "a red apple", "kind": "image", "stream": True, "previews": 4},
    },
}

_TEXT = "床前明月光,疑是地上霜。\n举头望明月,低头思故乡。"
TEXT_RESULT = ResultEvent(
    id="0b7f8c1e5d9a4f2e8c3b6a1d7e9f0a2c",
    model="poet",
    text=_TEXT,
    finish_reason="stop",
    usage=Usage(prompt_tokens=12, completion_tokens=25),
    timing=Timing(queue_s=0.0021, first_token_s=0.0312, total_s=0.1984),
)

PICTURE_RESULT = PictureResultEvent(
    id="6d1f3b7a9c5e4d8fa2b4c6e8f0a1b3d5",
    model="painter",
    images=[Picture(data=_PIXEL, media_type="image/png", seed=7, width=1, height=1)],
    steps=20,
    understood=["cat"],
    timing=PictureTiming(queue_s=0.0034, total_s=0.8127),
)

_TEXT_EVENTS: list[LiveEvent] = [
    StatusEvent(state="pending"),
    StatusEvent(state="asleep", expected_seconds=6.1),
    StatusEvent(state="waking", phase="loading the weights", seconds=1.5, expected_seconds=6.1),
    StatusEvent(state="queued"),
    StatusEvent(state="running"),
    TokenEvent(text=_TEXT[:12]),
    TokenEvent(text=_TEXT[12:]),
    TEXT_RESULT,
]

_PICTURE_EVENTS: list[LiveEvent] = [
    StatusEvent(state="queued", position=3, expected_seconds=7.5),
    StatusEvent(state="running"),
    ProgressEvent(step=10, of=20, eta_s=0.4),
    PreviewEvent(image=0, step=10, data=_PIXEL, media_type="image/png"),
    ProgressEvent(step=20, of=20, eta_s=0),
    PICTURE_RESULT,
]


def _stream(events: list[LiveEvent]) -> str:
    return b"".join(frame(event.model_dump_json(), event.event) for event in events).decode()


TEXT_STREAM = _stream(_TEXT_EVENTS)
PICTURE_STREAM = _stream(_PICTURE_EVENTS)
