"""Pictures that the probes send."""

from __future__ import annotations

import io

from PIL import Image


def _drawing() -> bytes:
    picture = Image.new("RGB", (64, 64), "white")
    picture.paste((20, 160, 40), (16, 16, 48, 48))
    return _file(picture)


def _mask() -> bytes:
    picture = Image.new("RGBA", (64, 64), "black")
    picture.paste((0, 0, 0, 0), (32, 0, 64, 64))
    return _file(picture)


def _file(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "png")
    return buffer.getvalue()


FILES = {"drawing.png": _drawing(), "mask.png": _mask()}
