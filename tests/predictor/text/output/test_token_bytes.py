"""What a token stands for: bytes, of which those of a character may lie in several tokens."""

from __future__ import annotations

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from predictor.text.output.token_bytes import TokenBytes


def byte_level(*added: str) -> Tokenizer:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={letter: number for number, letter in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(added))
    return tokenizer


@pytest.fixture(scope="module")
def byte_fallback() -> Tokenizer:
    """As Llama 2's and Gemma's."""
    names = ["▁moon", "moon", "▁", *(f"<0x{byte:02X}>" for byte in range(256)), "a", "</s>", "?"]
    vocabulary = {name: number for number, name in enumerate(names)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], byte_fallback=True, unk_token="?"))
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens(["</s>"])
    return tokenizer


@pytest.mark.parametrize("text", ["moon", "月", " \U0001f319é", "\N{REPLACEMENT CHARACTER}", "a\0b"])
def test_the_bytes_of_all_tokens_are_those_of_the_text(text: str) -> None:
    tokenizer = byte_level()
    token_bytes = TokenBytes(tokenizer)
    ids = tokenizer.encode(text).ids

    assert b"".join(token_bytes.of(token, first=place == 0) for place, token in enumerate(ids)) == text.encode()


def test_a_part_of_a_character_is_named_by_its_bytes() -> None:
    tokenizer = byte_level()
    token_bytes = TokenBytes(tokenizer)
    first, second, third = tokenizer.encode("月").ids

    assert [token_bytes.of(token, first=False) for token in (first, second, third)] == [b"\xe6", b"\x9c", b"\x88"]
    assert token_bytes.name(first, first=False) == r"\xe6"
    assert token_bytes.name(tokenizer.encode("a").ids[0], first=True) == "a"


def test_a_byte_for_which_there_is_no_other_token_is_that_byte(byte_fallback: Tokenizer) -> None:
    token_bytes = TokenBytes(byte_fallback)

    assert token_bytes.of(3 + 0xE6, first=False) == b"\xe6"
    assert token_bytes.of(3 + 0x0A, first=False) == b"\n"
    assert token_bytes.name(3 + 0xE6, first=True) == r"\xe6"


def test_only_the_first_token_has_lost_its_space(byte_fallback: Tokenizer) -> None:
    token_bytes = TokenBytes(byte_fallback)

    assert [token_bytes.of(0, first=first) for first in (True, False)] == [b"moon", b" moon"]
    assert [token_bytes.name(2, first=first) for first in (True, False)] == ["", " "]


def test_a_special_token_has_a_name_and_no_bytes_and_an_unknown_id_has_neither(byte_fallback: Tokenizer) -> None:
    token_bytes = TokenBytes(byte_fallback)
    end = byte_fallback.token_to_id("</s>")
    assert end is not None

    assert (token_bytes.name(end, first=False), token_bytes.of(end, first=False)) == ("</s>", b"")
    assert (token_bytes.name(9_999, first=False), token_bytes.of(9_999, first=False)) == ("", b"")
