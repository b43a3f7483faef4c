"""What single tokens stand for in UTF-8."""

from __future__ import annotations

import re
from functools import lru_cache

from tokenizers import Tokenizer

_KEPT = 8_192
"""Tokens that are remembered: of a text most come again and again, or are likely again and again."""

_BYTE = re.compile("<0x([0-9A-F]{2})>")
_UNDECODABLE = "\N{REPLACEMENT CHARACTER}"


class TokenBytes:
    """Of one tokenizer. A special token stands for nothing, and so does an id that it does not know."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._special = {id for id, token in tokenizer.get_added_tokens_decoder().items() if token.special}
        # Many decoders leave out the space that a text begins with, so a token is decoded after another one.
        self._before = tokenizer.encode("a", add_special_tokens=False).ids
        self._of = lru_cache(_KEPT)(self._find)

    def of(self, token: int, *, first: bool) -> bytes:
        """Of the `first` token of a text, or of a later one; part of a character where it takes several tokens."""
        return self._of(token, first)

    def name(self, token: int, *, first: bool) -> str:
        """The same as a text, where bytes that are no character are written as OpenAI does: \\xe4. A special token by
        its name."""
        if token in self._special:
            return str(self._tokenizer.id_to_token(token))
        return self.of(token, first=first).decode("utf-8", "backslashreplace")

    def _find(self, token: int, first: bool) -> bytes:
        name = self._tokenizer.id_to_token(token)
        if name is None or token in self._special:
            return b""
        before = [] if first else self._before
        text = self._decode([*before, token])[len(self._decode(before)) :]
        return _named(name) if _UNDECODABLE in text else text.encode()

    def _decode(self, ids: list[int]) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=True))


def _named(name: str) -> bytes:
    """Of a token that is no text by itself: a byte by its number, or bytes by GPT-2's characters for them."""
    if byte := _BYTE.fullmatch(name):
        return bytes([int(byte[1], 16)])
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    bytes_of = {character: byte for byte, character in bytes_to_unicode().items()}
    if all(character in bytes_of for character in name):
        return bytes(bytes_of[character] for character in name)
    return name.encode()
