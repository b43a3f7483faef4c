"""The next turn of a conversation computes what is new in it, and nobody else finds anything."""

from __future__ import annotations

import random
from collections.abc import Hashable
from typing import Any

import pytest

from predictor.text.row import TextRow
from tests.support.texts.batches import (
    ARCHITECTURES,
    LENGTH,
    VOCABULARY,
    CheckedAsOnGpu,
    CheckedBatch,
    ShortPrefills,
    Text,
    new_row,
    row_after,
    run_out,
    tiny,
)

pytestmark = pytest.mark.slow

CALLER = ("alice", "salt")


class Counting(ShortPrefills):
    """Counts the positions that the model is asked for."""

    positions = 0

    def _inputs(self, ids: Any, positions: Any, mask: Any) -> dict[str, Any]:
        self.positions += ids.numel()
        return super()._inputs(ids, positions, mask)


@pytest.fixture(scope="module")
def llama() -> Any:
    return tiny("Llama")


def turn(batch: Counting, prompt: list[int], scope: Hashable | None = CALLER, most: int = 4) -> tuple[Text, int]:
    """A text written to its end, and how many positions of its prompt were computed."""
    batch.drafts = False
    before = batch.positions
    row = row_after(prompt, random.Random(1), most, scope=scope)
    batch.join(row)
    run_out(batch)
    return row, batch.positions - before - (most - 1)


PROMPT = new_row(20, 1).tokens
FURTHER = new_row(6, 2).tokens


@pytest.mark.parametrize("slots", [1, 3])
def test_the_second_turn_computes_what_is_new(llama: Any, slots: int) -> None:
    batch = Counting(llama, slots, LENGTH)
    first, computed = turn(batch, PROMPT)
    assert computed == 20
    told: list[int] = []
    second = row_after([*first.tokens, *FURTHER], random.Random(2), 4, scope=CALLER)
    second.note_reuse = told.append
    before = batch.positions
    batch.join(second)
    run_out(batch)

    assert told == [23], "all but the last token, which was never given to the model"
    assert batch.positions - before == 1 + 6 + 3
    alone = row_after([*first.tokens, *FURTHER], random.Random(2), 4)
    plain = Counting(llama, slots, LENGTH)
    plain.join(alone)
    run_out(plain)
    assert second.tokens == alone.tokens


def test_the_same_prompt_again_computes_its_last_token(llama: Any) -> None:
    batch = Counting(llama, 1, LENGTH)
    first, _ = turn(batch, PROMPT)
    again, computed = turn(batch, PROMPT)

    assert computed == 1
    assert again.tokens == first.tokens


@pytest.mark.parametrize(
    ("mine", "others"),
    [
        (CALLER, ("alice", "another salt")),
        (CALLER, ("bob", "salt")),
        (CALLER, None),
        (None, CALLER),
        (None, None),
    ],
)
@pytest.mark.parametrize("slots", [1, 3])
def test_nobody_else_finds_anything(llama: Any, slots: int, mine: Hashable | None, others: Hashable | None) -> None:
    batch = Counting(llama, slots, LENGTH)
    turn(batch, PROMPT, mine)

    assert turn(batch, PROMPT, others)[1] == 20
    assert turn(batch, PROMPT, others)[1] == (1 if others else 20)


def test_what_a_cancelled_text_has_computed_is_found(llama: Any) -> None:
    batch = Counting(llama, 2, LENGTH)
    row = row_after([*PROMPT, *FURTHER], random.Random(1), scope=CALLER)
    batch.join(row)
    batch.step()
    batch.step()
    assert row.cached == 16, "two parts of the prompt"
    batch.remove(row)

    assert turn(batch, [*PROMPT, *FURTHER])[1] == 10


def test_nothing_is_kept_of_a_text_that_failed(llama: Any) -> None:
    batch = Counting(llama, 2, LENGTH)
    row = row_after(PROMPT, random.Random(1), scope=CALLER)
    row.write = lambda _: 1 / 0 > 1
    batch.join(row)
    run_out(batch)

    assert isinstance(row.failure, ZeroDivisionError)
    assert turn(batch, PROMPT)[1] == 20


def test_what_is_kept_makes_way_for_any_text(llama: Any) -> None:
    batch = Counting(llama, 2, LENGTH)
    turn(batch, PROMPT)
    for seed in (5, 6):
        batch.join(new_row(10, seed, most=3))
    run_out(batch)

    assert turn(batch, PROMPT)[1] == 20


def test_a_batch_of_prompts_leaves_those_alone_that_are_found(llama: Any) -> None:
    batch = Counting(llama, 4, LENGTH)
    batch.prefill_tokens = 200
    turn(batch, PROMPT)
    before = batch.positions
    rows = [row_after(PROMPT, random.Random(3), 1, scope=scope) for scope in (None, CALLER, None)]
    for row in rows:
        batch.join(row)
    run_out(batch)

    assert batch.positions - before == 20 + 1 + 20


@pytest.mark.parametrize("kind", [CheckedBatch, CheckedAsOnGpu])
@pytest.mark.parametrize("architecture", ["gemma3-sliding", "gemma4-shared"])
@pytest.mark.parametrize("seed", range(2))
def test_turns_that_begin_and_leave_at_random_are_told_what_they_are_told_alone(
    architecture: str, seed: int, kind: type[CheckedBatch]
) -> None:
    """Of two callers with two conversations each, and texts of nobody."""
    chance = random.Random(seed)
    batch = kind(ARCHITECTURES[architecture](), slots=4, length=LENGTH)
    beginnings = [new_row(18, number).tokens for number in range(2)]
    reused: list[int] = []
    conversations: dict[tuple[str, int], list[int]] = {}
    texts: dict[TextRow, tuple[str, int]] = {}
    for _ in range(150):
        action = chance.random()
        if action < 0.3 and len(batch) < batch.slots:
            scope, number = chance.choice([None, "alice", "bob"]), chance.randrange(2)
            before = conversations.get((str(scope), number), beginnings[number])
            if len(before) > LENGTH - 14:
                before = beginnings[number]
            prompt = [*before, *(chance.randrange(VOCABULARY) for _ in range(chance.randint(1, 6)))]
            row = row_after(prompt, random.Random(chance.randrange(99)), chance.randint(1, 8))
            row.scope, row.note_reuse = scope, reused.append
            texts[row] = (str(scope), number)
            batch.join(row)
        elif action < 0.36 and len(batch):
            batch.remove(chance.choice([*batch.running, *batch.joining]))
        elif len(batch):
            for ended in batch.step():
                batch.remove(ended)
                conversations[texts[ended]] = ended.tokens
    run_out(batch)

    assert batch.checked > 20
    assert sum(length > 0 for length in reused) > 3
