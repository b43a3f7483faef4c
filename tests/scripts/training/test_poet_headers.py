"""The headers that the poet is trained on are those of the chat template, and are true of their poem."""

from __future__ import annotations

import random

from scripts.training.poet.corpus import Poem
from scripts.training.poet.examples import MAX_HEADER, Encoder, Keywords
from scripts.training.poet.tokenizer import BOS, TITLE, UNK, WORD

POEM = Poem("五绝", ("白日依山尽", "黄河入海流", "欲穷千里目", "更上一层楼"), "登鹳雀楼", tang=True)


def keywords(header: list[int], encoder: Encoder) -> list[str]:
    """The keywords of a header, each as its characters."""
    words: list[str] = []
    for token in header[1:-1]:
        if token == WORD:
            words.append("")
        else:
            words[-1] += encoder.tokens[token]
    return words


def test_keywords_occur_in_the_poem_and_a_lone_character_is_written_twice() -> None:
    encoder = Encoder(sorted({char for line in POEM.lines for char in line}), Keywords([POEM] * 40))
    rng = random.Random(4)
    twice = 0
    for _ in range(2000):
        header = encoder.header(POEM, rng)
        assert header[0] == BOS
        assert len(header) <= MAX_HEADER
        if header[1:2] != [WORD] or UNK in header:
            assert header == [BOS] or header[-1] == encoder.ids["<五绝>"]
            assert TITLE not in header[2:]
            continue
        words = keywords(header, encoder)
        assert all(any(word in line for line in POEM.lines) for word in words)
        if len(set(words)) == 1:
            assert len(words) == (2 if len(words[0]) == 1 else 1)
            twice += len(words) == 2
    assert twice > 300
