"""Base64 in parts is what it is as a whole."""

from __future__ import annotations

import base64
import binascii
import os

import pytest

from contract.base64_parts import PART_CHARS, decoded, decoded_size, text_parts

PART_BYTES = PART_CHARS // 4 * 3


@pytest.mark.parametrize("size", [0, 1, 2, 3, PART_BYTES - 1, PART_BYTES, PART_BYTES + 1, 3 * PART_BYTES + 2])
def test_parts_are_the_whole(size: int) -> None:
    content = os.urandom(size)
    text = base64.b64encode(content).decode()
    assert b"".join(decoded(text)) == content
    assert decoded_size(text) == size
    assert b"".join(text_parts(text)) == text.encode()
    assert b"".join(text_parts("春" * (PART_CHARS + 1))).decode() == "春" * (PART_CHARS + 1)


@pytest.mark.parametrize(
    "text", ["x", "xx==xxxx", "x" * (PART_CHARS - 2) + "==" + "xxxx", "x" * PART_CHARS + "é===", "xxx ", "xx=", "===="]
)
def test_what_is_no_base64(text: str) -> None:
    with pytest.raises((binascii.Error, ValueError)):
        list(decoded(text))
