"""Drafts of a text's next tokens: what followed its last ones earlier, as in transformers' prompt lookup decoding.

The model checks a whole draft in one forward, which takes little longer than one of a single token. That makes texts
faster which repeat their prompt or themselves, and must not make others slower.
"""

from __future__ import annotations

from predictor import metrics

MATCHED = 3
"""How many of the last tokens must have come before."""

SHORTEST, LONGEST = 2, 8
"""Tokens of a draft. It begins short, and gets longer while all of it is right: of a model of 270M parameters on two
cores, a forward of three tokens takes 1.1 times as long as one of a single token, of nine 1.5 times. In float32 without
packed weights nine take 2.6 times as long."""

TOKEN_COST = 0.1
"""What a token of a draft costs, as a part of a step. A right one saves a step."""

ALLOWED_LOSS = 0.02
"""Which part of its steps a text may lose to wrong drafts."""

MOST_CREDIT = 1.0
"""Steps. What right drafts have saved does not pay for wrong ones without end."""


class PromptLookup:
    """The drafts of one text."""

    def __init__(self) -> None:
        # After which MATCHED tokens the text has gone on at which place; the last of several counts.
        self._places: dict[tuple[int, ...], int] = {}
        self._known = MATCHED  # places before this one are in it
        self._credit = 2 * SHORTEST * TOKEN_COST
        self._length = SHORTEST

    def draft(self, tokens: list[int], most: int) -> list[int]:
        """At most `most` tokens that may follow `tokens`, which are the whole text so far; none where none are likely,
        or where drafts were wrong too often. Say by `note` what became of them."""
        for place in range(self._known, len(tokens)):
            self._places[tuple(tokens[place - MATCHED : place])] = place
        self._known = max(self._known, len(tokens))
        place = self._places.get(tuple(tokens[-MATCHED:]), len(tokens))
        repeated = tokens[place : place + self._length]
        if not repeated or self._credit < self._length * TOKEN_COST:
            self._credit = min(self._credit + ALLOWED_LOSS, MOST_CREDIT)
            return []
        # What follows may end with the text: it is then the whole of what is repeated.
        return [repeated[number % len(repeated)] for number in range(min(self._length, most))]

    def note(self, draft: list[int], tokens: list[int]) -> int:
        """How many tokens of the draft are right: the model has written `tokens`, each after those of the draft that
        come before it."""
        right = next((place for place, token in enumerate(draft) if token != tokens[place]), len(draft))
        self._credit = min(self._credit + right - len(draft) * TOKEN_COST, MOST_CREDIT)
        self._length = min(2 * len(draft), LONGEST) if right == len(draft) else max(right, SHORTEST)
        metrics.DRAFT_TOKENS.inc(len(draft))
        metrics.RIGHT_TOKENS.inc(right)
        return right
