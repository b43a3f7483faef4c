"""Base64 of pictures, decoded in parts: whole, every step would hold one more copy of megabytes."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator

PART_CHARS = 262_144
"""A multiple of four: every part can be decoded by itself."""


_DATA_URL = re.compile("data:image/[a-z]{1,16};base64,", re.ASCII | re.IGNORECASE)


def file_text(text: str) -> str:
    """The base64 in a data: URL; the text itself where it is none."""
    head = _DATA_URL.match(text)
    return text if head is None else text[head.end() :]


def decoded(text: str) -> Iterator[bytes]:
    """The bytes, in parts. Raises binascii.Error when it comes to what is no base64."""
    if 0 <= text.find("=") < len(text) - 2:
        raise binascii.Error("padding before the end")
    for start in range(0, len(text), PART_CHARS):
        yield base64.b64decode(text[start : start + PART_CHARS], validate=True)


def text_parts(text: str) -> Iterator[bytes]:
    """The text itself in UTF-8, in parts."""
    for start in range(0, len(text), PART_CHARS):
        yield text[start : start + PART_CHARS].encode()


def decoded_size(text: str) -> int:
    """How many bytes that will be, of what is base64."""
    return len(text) // 4 * 3 - text[-2:].count("=")
