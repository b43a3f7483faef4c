"""Texts of a lone row with drafts are those without, in fewer steps."""

from __future__ import annotations

import random
from typing import Any

import pytest

from predictor.text.batch import TextBatch
from tests.support.texts.batches import (
    ARCHITECTURES,
    LENGTH,
    AsOnGpu,
    CheckedBatch,
    ShortPrefills,
    Text,
    new_row,
    row_after,
    run_out,
    tiny,
)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=["llama", "gemma3-sliding", "gpt2", "gemma3n-shared"])
def model(request: pytest.FixtureRequest) -> Any:
    return ARCHITECTURES[request.param]()


@pytest.fixture(scope="module")
def gemma() -> Any:
    """Its input and output embeddings are the same: it likes to repeat itself."""
    return ARCHITECTURES["gemma3-sliding"]()


def written(batch: TextBatch, row: Text, *, drafts: bool) -> int:
    """Write a row to its end; in how many steps."""
    batch.drafts = drafts
    batch.join(row)
    steps = 0
    while len(batch):
        steps += 1
        for ended in batch.step():
            batch.remove(ended)
    return steps


@pytest.mark.parametrize("kind", [ShortPrefills, AsOnGpu])
@pytest.mark.parametrize("temperature", [0.0, 0.4, 1.0])
def test_a_text_is_the_same_with_drafts(model: Any, temperature: float, kind: type[ShortPrefills]) -> None:
    steps = {True: 0, False: 0}
    for seed in range(8):
        texts = []
        for drafts in (False, True):
            row = new_row(4, seed, most=40, temperature=temperature)
            steps[drafts] += written(kind(model, 2, LENGTH), row, drafts=drafts)
            assert row.written == row.answer
            texts.append(row.tokens)
        assert texts[0] == texts[1]

    assert steps[True] <= steps[False]


def test_a_text_that_repeats_its_prompt_takes_a_fraction_of_the_steps(gemma: Any) -> None:
    """The prompt has what the model will write."""
    answer = new_row(4, 3, most=16, temperature=0.7)
    written(ShortPrefills(gemma, 1, LENGTH), answer, drafts=False)
    prompt = answer.tokens[:4] + answer.answer + answer.tokens[:4]
    steps = [
        written(ShortPrefills(gemma, 1, LENGTH), row_after(prompt, random.Random(0), 16, 0.0), drafts=drafts)
        for drafts in (False, True)
    ]

    assert steps[1] <= 0.6 * steps[0]


def test_a_text_ends_where_it_ends_without_drafts(gemma: Any) -> None:
    """In the middle of what was right, at a token that only the text tells of, or at the end of its slot."""
    whole = new_row(4, 3, most=LENGTH - 4, temperature=0.0)
    written(CheckedBatch(gemma, 1, LENGTH), whole, drafts=True)
    assert len(whole.tokens) == LENGTH

    for stop in set(whole.answer):
        for kind in (ShortPrefills, AsOnGpu):
            row = new_row(4, 3, temperature=0.0, stop=stop)
            written(kind(gemma, 1, LENGTH), row, drafts=True)
            end = whole.answer.index(stop) + 1
            assert row.written == row.answer == whole.answer[:end]
    for most in range(1, LENGTH - 4):
        row = new_row(4, 3, most=most, temperature=0.0)
        written(ShortPrefills(gemma, 1, LENGTH), row, drafts=True)
        assert row.written == row.answer == whole.answer[:most]


@pytest.mark.parametrize("kind", [ShortPrefills, AsOnGpu])
def test_others_may_join_and_leave_between_drafts(gemma: Any, kind: type[ShortPrefills]) -> None:
    expected = new_row(4, 3, most=40, temperature=0.5)
    written(kind(gemma, 3, LENGTH), expected, drafts=False)
    for joins in range(1, 12, 2):
        batch = kind(gemma, 3, LENGTH)
        batch.drafts = True
        row, other = new_row(4, 3, most=40, temperature=0.5), new_row(20, 5, most=3)
        batch.join(row)
        for _ in range(joins):
            assert not batch.step()
        batch.join(other)
        batch.join(new_row(5, 6, most=6))
        run_out(batch)

        assert row.written == row.answer == expected.answer
        assert len(other.written) == 3


def test_a_row_with_a_repetition_penalty_has_no_drafts(gemma: Any) -> None:
    row = new_row(4, 3, most=30, temperature=0.0)
    row.sampling.repetition_penalty = 1.01

    assert written(ShortPrefills(gemma, 1, LENGTH), row, drafts=True) == 30


def test_a_text_with_drafts_survives_a_step_that_fails(gemma: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = new_row(4, 3, most=40, temperature=0.5)
    written(ShortPrefills(gemma, 1, LENGTH), expected, drafts=True)
    batch = ShortPrefills(gemma, 1, LENGTH)
    row = new_row(4, 3, most=40, temperature=0.5)
    choose, failures = batch.choose, 0

    def failing(*arguments: Any) -> Any:
        nonlocal failures
        if batch._draft and failures < 3:
            failures += 1
            raise RuntimeError("a kernel failed")
        return choose(*arguments)

    monkeypatch.setattr(batch, "choose", failing)
    batch.drafts = True
    batch.join(row)
    while len(batch):
        try:
            for ended in batch.step():
                batch.remove(ended)
        except RuntimeError:
            continue

    assert failures == 3
    assert row.written == row.answer == expected.answer


def test_the_check_of_a_batch_has_no_drafts() -> None:
    from predictor.text.batch_check import why_not_batched

    assert why_not_batched(tiny("Llama", vocab_size=2)) is None, "its known texts repeat themselves"
