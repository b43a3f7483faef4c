"""Probes of pictures."""

from __future__ import annotations

from typing import Any

from tests.support.openai.answers import has_pictures, pictures
from tests.support.openai.probe import MethodProbes, Probe

one_picture = has_pictures(1)


def _is_a(kind: str) -> Any:
    begins = {"png": "iVBOR", "jpeg": "/9j/", "webp": "UklGR"}[kind]
    return lambda answer: pictures(answer)[0]["b64_json"].startswith(begins)


def _has_partial(answer: Any) -> bool:
    return one_picture(answer) and any("partial" in event["type"] for event in answer)


COMMON = (
    Probe("background", "auto", one_picture),
    Probe("background", "opaque", one_picture),
    Probe("background", "transparent"),
    Probe("complexity", "low"),
    Probe("frame_count", 2),
    Probe("frame_duration_ms", 100),
    Probe("model", "painter", one_picture),
    Probe("n", 2, has_pictures(2)),
    Probe("output_compression", 80, one_picture, {"output_format": "jpeg"}),
    Probe("output_format", "png", _is_a("png")),
    Probe("output_format", "jpeg", _is_a("jpeg")),
    Probe("output_format", "webp", _is_a("webp")),
    Probe("output_format", "gif"),
    Probe("partial_images", 2, _has_partial, {"stream": True}),
    Probe("prompt", "画一只猫", one_picture),
    Probe("quality", "auto", one_picture),
    Probe("quality", "high"),
    Probe("response_format", "b64_json", one_picture),
    Probe("response_format", "url", lambda answer: "signature=" in pictures(answer)[0]["url"]),
    Probe("safety_identifier", "somebody", one_picture),
    Probe("size", "64x64", one_picture),
    Probe("size", "auto", one_picture),
    Probe("stream", False, one_picture),
    Probe("stream", True, one_picture),
    Probe("svg", {"model": "gpt-6-sol"}),
    Probe("user", "somebody", one_picture),
)
DRAWING = {"$file": "drawing.png"}
MASK = {"$file": "mask.png"}

METHODS = (
    MethodProbes(
        "images.generate",
        {"model": "painter", "prompt": "画一只猫"},
        (
            *COMMON,
            Probe("moderation", "auto", one_picture),
            Probe("moderation", "low", one_picture),
            Probe("style", "vivid"),
        ),
    ),
    MethodProbes(
        "images.edit",
        {"model": "painter", "prompt": "画一只猫", "image": DRAWING},
        (
            *COMMON,
            Probe("image", DRAWING, one_picture),
            Probe("image", [DRAWING], one_picture),
            Probe("image", [DRAWING, DRAWING]),
            Probe("input_fidelity", "low", one_picture),
            Probe("input_fidelity", "high"),
            Probe("markup", DRAWING),
            Probe("mask", MASK),
        ),
    ),
    MethodProbes(
        "images.create_variation", {"image": DRAWING}, (Probe("image", DRAWING),), javascript="images.createVariation"
    ),
)
