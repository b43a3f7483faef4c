"""Which rows are kept, found, moved and forgotten."""

from __future__ import annotations

from typing import cast

from predictor.text.cache.prefix_cache import LEAST_TOKENS, PrefixCache
from predictor.text.cache.slot_cache import SlotCache


class Rows:
    """Stands for a SlotCache: what each of its rows holds."""

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self.held: list[list[int]] = [[] for _ in range(slots)]

    def move(self, source: int, target: int, length: int) -> None:
        self.held[target] = self.held[source][:length]

    def swap(self, one: int, other: int, length: int) -> None:
        assert length <= 60
        self.held[one], self.held[other] = self.held[other], self.held[one]


def conversation(number: int, length: int = 40) -> list[int]:
    return [1000 * number + place for place in range(length)]


class Kept:
    """A prefix cache over such rows."""

    def __init__(self, slots: int) -> None:
        self.rows = Rows(slots)
        self.cache = PrefixCache(cast(SlotCache, self.rows))

    def keep(self, row: int, tokens: list[int], scope: str = "a") -> None:
        self.rows.held[row] = list(tokens)
        self.cache.keep(row, scope, tokens)

    def reuse(self, tokens: list[int], row: int, scope: str = "a") -> int:
        length = self.cache.reuse(scope, tokens, row)
        assert self.rows.held[row][:length] == tokens[:length]
        return length


def test_the_next_turn_begins_with_what_the_one_before_has_left_in_place() -> None:
    kept = Kept(slots=1)
    kept.keep(0, conversation(1))

    assert kept.reuse([*conversation(1), 7, 8], 0) == 40
    assert len(kept.cache) == 0, "the text that goes on has the row now"


def test_the_last_token_is_always_computed() -> None:
    kept = Kept(slots=1)
    kept.keep(0, conversation(1))

    assert kept.reuse(conversation(1), 0) == 39


def test_only_the_same_scope_finds_it() -> None:
    kept = Kept(slots=2)
    kept.keep(0, conversation(1))

    assert not kept.cache.holds("b", conversation(1))
    assert kept.reuse(conversation(1), 1, scope="b") == 0
    assert kept.reuse(conversation(1), 1) == 39


def test_a_few_tokens_are_not_worth_it() -> None:
    kept = Kept(slots=2)
    kept.keep(0, conversation(1, LEAST_TOKENS - 1))
    kept.keep(1, conversation(2))

    assert kept.reuse(conversation(1), 0) == 0
    assert kept.reuse([*conversation(2, LEAST_TOKENS - 1), 5, 6, 7], 0) == 0
    assert len(kept.cache) == 1


def test_the_longest_beginning_is_taken() -> None:
    kept = Kept(slots=3)
    kept.keep(0, conversation(1, 20))
    kept.keep(1, conversation(1, 30))
    kept.keep(2, conversation(2, 40))

    assert kept.reuse(conversation(1, 35), 0) == 30


def test_another_text_with_the_same_beginning_leaves_the_first_one_as_it_is() -> None:
    for row in (0, 1):
        kept = Kept(slots=3)
        kept.keep(0, conversation(1))
        branch = [*conversation(1, 18), 7, 8, 9]

        assert kept.reuse(branch, row) == 18
        assert kept.reuse([*conversation(1), 5], 2) == 40


def test_texts_that_join_move_what_was_kept_in_their_rows() -> None:
    kept = Kept(slots=4)
    kept.keep(0, conversation(1))
    kept.keep(1, conversation(2))

    kept.cache.make_room(0, 2)
    kept.rows.held[0] = kept.rows.held[1] = []

    assert kept.reuse(conversation(1), 2) == 39
    assert kept.reuse(conversation(2), 3) == 39


def test_what_was_used_least_recently_is_forgotten_first() -> None:
    kept = Kept(slots=3)
    for number in range(3):
        kept.keep(number, conversation(number))
    assert kept.reuse(conversation(0), 0) == 39
    kept.keep(0, conversation(0))

    kept.cache.make_room(0, 1)

    assert [kept.cache.holds("a", conversation(number)) for number in range(3)] == [True, False, True]
    kept.cache.make_room(0, 2)
    assert [kept.cache.holds("a", conversation(number)) for number in range(3)] == [True, False, False]
    kept.cache.make_room(0, 3)
    assert len(kept.cache) == 0


def test_conversations_that_take_turns_keep_each_others_rows() -> None:
    """As many as there are slots, one at a time, which all run in the first row."""
    kept = Kept(slots=3)
    for length in range(40, 60, 2):
        for number in range(3):
            tokens = conversation(number, length)
            found = kept.reuse(tokens, 0)
            assert found == (length - 2 if length > 40 else 0)
            if not found:
                kept.cache.make_room(0, 1)
            kept.keep(0, tokens)
