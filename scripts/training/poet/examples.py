"""Training examples: poems as token ids, behind headers that say what they are about.

One token per character; ``，\\n`` and ``。\\n`` are one token each::

    <s><词>秋<词>明月<五绝>…poem…</s>     keywords that occur in the poem
    <s><题>秋江夜泊<七绝>…poem…</s>       the poem's title
    <s><七律>…poem…</s>                  no topic
    <s>…poem…</s>                        no header, so that any opening can be continued
"""

from __future__ import annotations

import random
from collections import Counter

import torch
from torch import Tensor

from scripts.training.poet.corpus import Poem
from scripts.training.poet.tokenizer import BOS, COMMA_LINE, EOS, PAD, SPECIALS, STOP, STOP_LINE, TITLE, UNK, WORD

MAX_HEADER = 11  # <s> + 3 keywords of 2 characters with their marks + form
# Characters that say nothing about a poem's topic and are never a keyword by themselves.
STOP_CHARACTERS = set(
    "不一无有来何自如知此为得今谁是未更相子上中下时已可亦又也而以之其于与则且乃所者将欲应须能却便只还从莫岂犹尚再皆"
    "似若因在到去出入过见闻言道得到分半几多少两三四五六七八九十百千万第方向对前后里外间边旁同共各每当正初复忽曾"
)


class Keywords:
    """Chooses what a poem is said to be about: characters and common pairs that really occur in it."""

    def __init__(self, poems: list[Poem]) -> None:
        pairs = Counter(pair for poem in poems for line in poem.lines for pair in self.pairs(line))
        self.common = {pair for pair, count in pairs.items() if count >= 40}

    @staticmethod
    def pairs(line: str) -> list[str]:
        """The pairs of characters between the pauses of a verse, and the last two characters."""
        starts = [0, 2, 3] if len(line) == 5 else [0, 2, 4, 5]
        return [line[i : i + 2] for i in starts]

    def choose(self, poem: Poem, rng: random.Random) -> list[str]:
        """At most three keywords, a lone character twice; characters that are also in the title are likelier."""
        words: list[str] = []
        for _ in range(rng.choices((1, 2, 3), (66, 23, 11))[0]):
            if rng.random() < 0.35:
                found = [pair for line in poem.lines for pair in self.pairs(line) if pair in self.common]
            else:
                found = [char for line in poem.lines for char in line if char not in STOP_CHARACTERS]
                found += 4 * [char for char in found if char in poem.title]
            if found:
                word = rng.choice(found)
                if word not in words:
                    words.append(word)
        # As the chat template writes it.
        return words * 2 if len(words) == 1 and len(words[0]) == 1 else words


class Encoder:
    """Turns poems into token ids, with a header chosen afresh each time."""

    def __init__(self, chars: list[str], keywords: Keywords) -> None:
        self.tokens = [*SPECIALS, COMMA_LINE, STOP_LINE, "，", STOP, *chars]
        self.ids = {token: index for index, token in enumerate(self.tokens)}
        self.keywords = keywords

    def body(self, poem: Poem) -> list[int]:
        """The poem and its end, without a header."""
        ids: list[int] = []
        for number, line in enumerate(poem.lines):
            end = COMMA_LINE if number % 2 == 0 else STOP_LINE if number < len(poem.lines) - 1 else STOP
            ids += [self.ids[char] for char in line] + [self.ids[end]]
        return [*ids, EOS]

    def header(self, poem: Poem, rng: random.Random) -> list[int]:
        """A header. Some topics contain an unknown character, as those of users will."""
        kind = rng.random()
        if kind < 0.10:
            return [BOS]
        topic: list[int] = []
        if kind < 0.74:
            for word in self.keywords.choose(poem, rng):
                topic += [WORD, *(self.ids[char] for char in word)]
            if rng.random() < 0.05 and len(topic) <= 6:
                topic += [WORD, UNK] if rng.random() < 0.5 else [WORD, UNK, UNK]
        elif kind < 0.86 and poem.title:
            topic = [TITLE, *(UNK if rng.random() < 0.02 else self.ids.get(char, UNK) for char in poem.title)]
        return [BOS, *topic, self.ids[f"<{poem.form}>"]]

    def batch(self, poems: list[Poem], rng: random.Random) -> tuple[Tensor, Tensor]:
        """Ids and next-token labels, padded to one width per form so that the compiled step keeps its shapes."""
        width = MAX_HEADER + len(poems[0].lines) * (len(poems[0].lines[0]) + 1) + 1
        ids = torch.full((len(poems), width), PAD)
        labels = torch.full((len(poems), width), -100)
        for row, poem in enumerate(poems):
            header, body = self.header(poem, rng), self.body(poem)
            sample = torch.tensor(header + body)
            ids[row, : len(sample)] = sample
            # Of the header, only the form is learnt: the model chooses it if the user did not.
            start = max(len(header) - 1, 1)
            labels[row, start - 1 : len(sample) - 1] = sample[start:]
        return ids, labels
