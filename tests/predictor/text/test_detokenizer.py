"""Text from token ids: the pieces joined are the whole, and no character is cut."""

from __future__ import annotations

import random

import pytest
from tokenizers import Tokenizer, decoders, models

from predictor.text.output import IncrementalDetokenizer

CUT = "\N{REPLACEMENT CHARACTER}"


@pytest.fixture(scope="module")
def bytewise() -> Tokenizer:
    """One token for each byte, as byte-level BPE has them when nothing merges; token 256 is special."""
    from tokenizers import pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={letter: number for number, letter in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["</s>"])
    return tokenizer


def pieces(tokenizer: Tokenizer, ids: list[int]) -> list[str]:
    decoder = IncrementalDetokenizer(tokenizer)
    return [decoder.push(token) for token in ids] + [decoder.flush()]


@pytest.mark.parametrize(
    "text", ["moon", "床前明月光", "\U0001f319 \U0001f468\u200d\U0001f469", "é e\u0301", "a\0b", " a  b "]
)
def test_a_character_comes_when_its_last_byte_has(bytewise: Tokenizer, text: str) -> None:
    spoken = pieces(bytewise, bytewise.encode(text).ids)

    assert [piece for piece in spoken if piece] == list(text)


def test_a_character_that_stays_incomplete_is_left_out(bytewise: Tokenizer) -> None:
    ids = bytewise.encode("a月").ids

    assert "".join(pieces(bytewise, ids[:-1])) == "a"


def test_what_is_no_character_is_marked_once_it_is_certain(bytewise: Tokenizer) -> None:
    ids = [*bytewise.encode("a月").ids[:-1], *bytewise.encode("b").ids]

    assert "".join(pieces(bytewise, ids)) == f"a{CUT}b"


def test_special_tokens_say_nothing(bytewise: Tokenizer) -> None:
    assert pieces(bytewise, [256, *bytewise.encode("a").ids, 256]) == ["", "a", "", ""]


def test_an_endless_run_of_what_is_no_character_is_not_held_back_for_ever(bytewise: Tokenizer) -> None:
    [_, second, _] = bytewise.encode("月").ids  # a byte that only continues a character

    assert sum(map(len, pieces(bytewise, [second] * 100)[:-1])) > 50


def test_any_text_in_any_language_joins_to_what_it_was(bytewise: Tokenizer) -> None:
    chance = random.Random(7)
    for _ in range(300):
        text = "".join(chance.choices("ab é月光\U0001f319\n", k=30))

        assert "".join(pieces(bytewise, bytewise.encode(text).ids)) == text


def test_a_leading_space_is_only_swallowed_where_the_tokenizer_does() -> None:
    """Sentencepiece's way: the mark of a space is text anywhere but in the first token."""
    tokenizer = Tokenizer(models.WordLevel({"▁the": 0, "▁moon": 1, "s": 2, "?": 3}, unk_token="?"))
    tokenizer.decoder = decoders.Metaspace()

    assert pieces(tokenizer, [0, 1, 2, 0]) == ["the", " moon", "s", " the", ""]
