"""What each token of a model stands for, in bytes: grammars are about bytes, and a token may be part of a character."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tokenizers import Tokenizer

SPECIAL = b"\xff"
"""Before the name of a token that is no text. No text in UTF-8 has this byte."""

_UNDECODABLE = "\N{REPLACEMENT CHARACTER}"


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """`tokens` are the bytes of each id; `ends` are the ids that end a text, at least one."""

    tokens: list[bytes]
    ends: list[int]


def vocabulary(tokenizer: Tokenizer, ends: frozenset[int], size: int) -> Vocabulary:
    """Of a model that has logits of `size` tokens. Where none of them ends a text, one more does, which the model
    cannot say: the text then ends where nothing else may follow."""
    tokens = list(_tokens(tokenizer, size))
    known = sorted(end for end in ends if 0 <= end < size)  # a config may say -1
    for end in known:
        if not tokens[end].startswith(SPECIAL):
            tokens[end] = SPECIAL + tokens[end]
    if known:
        return Vocabulary(tokens, known)
    return Vocabulary([*tokens, _unused(size)], [size])


def _tokens(tokenizer: Tokenizer, size: int) -> Iterator[bytes]:
    added = tokenizer.get_added_tokens_decoder()
    steps = list(_decoding_steps(tokenizer))
    byte_level, byte_fallback = "ByteLevel" in steps, "ByteFallback" in steps
    # What the other tokenizers make of a token shows behind another one: some leave out a space at the beginning.
    before = None if byte_level else _anchor(tokenizer)
    for number in range(size):
        name = tokenizer.id_to_token(number)
        if name is None:
            yield _unused(number)
        elif number in added:
            yield (SPECIAL if added[number].special else b"") + added[number].content.encode()
        elif byte_level:
            yield _bytes_of(name) or _unused(number)
        elif byte_fallback and len(name) == 6 and name.startswith("<0x"):
            yield bytes([int(name[3:5], 16)])
        else:
            yield _text_behind(tokenizer, before, number).encode() or _unused(number)


def _unused(number: int) -> bytes:
    return SPECIAL + f"<[{number}]>".encode()


def _decoding_steps(tokenizer: Tokenizer) -> Iterator[str]:
    """The types of what decodes its tokens."""

    def types(decoder: dict[str, Any]) -> Iterator[str]:
        yield decoder["type"]
        for part in decoder.get("decoders", ()):
            yield from types(part)

    if tokenizer.decoder is not None:
        yield from types(json.loads(tokenizer.decoder.__getstate__()))


def _byte_characters() -> dict[str, int]:
    """GPT-2's character for each byte: itself where it can be seen, and else the next one that is free."""
    seen = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    unseen = [byte for byte in range(256) if byte not in seen]
    return {chr(byte): byte for byte in seen} | {chr(256 + place): byte for place, byte in enumerate(unseen)}


_BYTES = _byte_characters()


def _bytes_of(name: str) -> bytes:
    """Of a byte-level token; none where its name has other characters."""
    try:
        return bytes(_BYTES[character] for character in name)
    except KeyError:
        return b""


def _anchor(tokenizer: Tokenizer) -> tuple[int, str] | None:
    """A token that is a text by itself, and that text."""
    for number in range(tokenizer.get_vocab_size()):
        text = tokenizer.decode([number])
        if text.strip() and _UNDECODABLE not in text:
            return number, text
    return None


def _text_behind(tokenizer: Tokenizer, before: tuple[int, str] | None, number: int) -> str:
    """What a token adds to the text before it; nothing where that is no text of its own."""
    if before is None:
        return ""
    anchor, known = before
    text: str = tokenizer.decode([anchor, number])
    if not text.startswith(known) or _UNDECODABLE in text:
        return ""
    return text[len(known) :]
