"""Drafts from what a text has said before."""

from __future__ import annotations

import random

from predictor.text.prompt_lookup import ALLOWED_LOSS, LONGEST, SHORTEST, TOKEN_COST, PromptLookup


def test_what_followed_the_last_tokens_before_is_the_draft() -> None:
    assert PromptLookup().draft([1, 2, 3, 4, 5, 9, 1, 2, 3], most=8) == [4, 5]


def test_the_last_of_several_places_counts() -> None:
    assert PromptLookup().draft([1, 2, 3, 4, 5, 1, 2, 3, 6, 7, 1, 2, 3], most=8) == [6, 7]


def test_there_is_no_draft_after_tokens_that_are_new_or_too_few() -> None:
    for tokens in ([], [1], [1, 1], [1, 1, 1], [1, 2, 3, 4, 5, 1, 2, 4]):
        assert PromptLookup().draft(tokens, most=8) == []


def test_a_text_that_goes_round_is_drafted_round_and_round() -> None:
    lookup = PromptLookup()
    tokens = [5, 1, 2, 3, 1, 2, 3]
    assert lookup.note([1, 2, 3, 4], [1, 2, 3, 4, 5]) == 4

    assert lookup.draft(tokens, most=7) == [1, 2, 3, 1, 2, 3, 1]


def test_tokens_that_have_come_since_are_found_too() -> None:
    lookup = PromptLookup()
    tokens = [1, 2, 3, 4]
    assert lookup.draft(tokens, most=8) == []
    tokens += [5, 6, 7, 8, 5, 6, 7]

    assert lookup.draft(tokens, most=8) == [8, 5]


def test_no_draft_is_longer_than_there_is_room_for() -> None:
    assert PromptLookup().draft([1, 2, 3, 4, 5, 9, 1, 2, 3], most=1) == [4]


def test_drafts_get_longer_while_they_are_right_and_short_again_after_a_wrong_one() -> None:
    lookup = PromptLookup()
    tokens = [1, 2, 3, *range(10, 40), 1, 2, 3]
    lengths = []
    for _ in range(4):
        draft = lookup.draft(tokens, most=100)
        lengths.append(len(draft))
        assert lookup.note(draft, [*draft, 99]) == len(draft)
    assert lookup.note([1, 2, 3, 4, 5, 6, 7, 8], [1, 3, 99, 99, 99, 99, 99, 99, 99]) == 1

    assert lengths == [SHORTEST, 4, LONGEST, LONGEST]
    assert len(lookup.draft(tokens, most=100)) == SHORTEST


def test_wrong_drafts_cost_no_more_than_the_allowed_part_of_the_steps() -> None:
    lookup = PromptLookup()
    chance = random.Random(0)
    tokens: list[int] = []
    drafted = 0
    steps = 5_000
    for _ in range(steps):
        draft = lookup.draft(tokens, most=100)
        if draft:
            drafted += len(draft)
            assert lookup.note(draft, [-1] * (len(draft) + 1)) == 0
        tokens.append(chance.randrange(4))  # nearly every three tokens have come before

    assert drafted * TOKEN_COST <= ALLOWED_LOSS * steps + 1
    assert drafted, "it is tried again from time to time"
