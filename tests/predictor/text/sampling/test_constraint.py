"""Rows that something holds to a structure: by a mask of the tokens that may come next."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from predictor.text.batch import TextBatch
from predictor.text.sampling.batch_sampler import BatchSampler
from predictor.text.sampling.constraint import Constraint
from predictor.text.sampling.row_sampling import RowSampling
from predictor.text.single_text_batch import SoloBatch
from tests.support.texts.batches import LENGTH, VOCABULARY, AsOnGpu, ShortPrefills, Text, new_row, run_out, tiny

pytestmark = pytest.mark.slow


def mask_of(allowed: Sequence[int], vocabulary: int = VOCABULARY) -> Any:
    mask = torch.zeros(-(-vocabulary // 32), dtype=torch.int64)
    for token in allowed:
        mask[token // 32] |= 1 << (token % 32)
    return mask.to(torch.int32)


class Steps:
    """The token of each place is one of three that follow from the one before it."""

    def __init__(self, token: int = 0, fails_at: int = -1) -> None:
        self.last = token
        self.accepted: list[int] = []
        self._fails_at = fails_at

    @property
    def allowed(self) -> list[int]:
        return [(self.last + step) % VOCABULARY for step in (1, 7, 31)]

    def mask(self) -> torch.Tensor:
        if len(self.accepted) == self._fails_at:
            raise ValueError("no such state")
        mask: torch.Tensor = mask_of(self.allowed)
        return mask

    def accept(self, token: int) -> None:
        assert token in self.allowed
        self.last = token
        self.accepted.append(token)


class Refusing(Steps):
    """Does not take its third token."""

    def accept(self, token: int) -> None:
        super().accept(token)
        if len(self.accepted) == 3:
            raise ValueError("no such token")


def constrained(constraint: Constraint, seed: int = 1, temperature: float = 1.0, most: int = 12) -> Text:
    row = new_row(4, seed, most=most, temperature=temperature)
    row.sampling.constraint = constraint
    return row


@pytest.fixture(scope="module")
def llama() -> Any:
    return tiny("Llama")


@pytest.fixture(scope="module", params=[ShortPrefills, AsOnGpu, SoloBatch])
def kind(request: pytest.FixtureRequest) -> Any:
    return request.param


def new_batch(kind: Any, model: Any) -> TextBatch:
    batch: TextBatch = kind(model, LENGTH) if kind is SoloBatch else kind(model, 3, LENGTH)
    return batch


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_text_has_only_what_its_constraint_allows(llama: Any, kind: Any, temperature: float) -> None:
    batch, steps = new_batch(kind, llama), Steps()
    row = constrained(steps, temperature=temperature)
    batch.join(row)
    run_out(batch)

    assert row.failure is None
    assert steps.accepted == row.answer == row.written
    assert len(row.answer) == 12


def test_a_constraint_changes_no_row_beside_it_and_none_changes_with_those_beside_it(llama: Any) -> None:
    def rows() -> list[Text]:
        return [new_row(4, 5, most=12), constrained(Steps(), 6), new_row(7, 7, most=9, temperature=0.0)]

    together, alone = rows(), rows()
    batch = ShortPrefills(llama, 3, LENGTH)
    for row in together:
        batch.join(row)
    run_out(batch)
    for row in alone:
        single = ShortPrefills(llama, 3, LENGTH)
        single.join(row)
        run_out(single)

    assert [row.tokens for row in together] == [row.tokens for row in alone]


def test_it_decides_after_penalties_and_before_top_k() -> None:
    logits = torch.zeros(2, VOCABULARY)
    logits[:, 3], logits[:, 40], logits[:, 41] = 9.0, 5.0, 1.0
    rows = [RowSampling(1.0, 1, 1.0, 0.0, 1.0, random.Random(0), constraint=Steps(10)) for _ in range(2)]
    rows[1].constraint = None
    sampler = BatchSampler(rows, logits.device)
    sampler.draw()

    assert sampler.choose(logits, [mask_of([40, 41])]).read() == [40, 3]


@pytest.mark.parametrize("vocabulary", [40, 64, 70, 96])
def test_what_the_mask_does_not_reach_is_not_allowed(vocabulary: int) -> None:
    """Models have rows of logits for more tokens than their tokenizers know, and masks end with a whole number."""
    logits = torch.arange(vocabulary, dtype=torch.float32)[None]
    sampler = BatchSampler([RowSampling(0.0, 0, 1.0, 0.0, 1.0, random.Random(0), constraint=Steps())], logits.device)

    assert sampler.choose(logits, [mask_of([5, 39, 31], 64)]).read() == [39]


def test_a_step_that_fails_neither_accepts_nor_changes_anything(llama: Any, kind: Any) -> None:
    class Failing(kind):  # type: ignore[misc]
        failures = 0

        def choose(self, rows: Any, logits: Any, sampler: BatchSampler) -> Any:
            choice = super().choose(rows, logits, sampler)
            self.failures += 1
            if self.failures % 2:
                raise torch.OutOfMemoryError("no memory")
            return choice

    undisturbed, row = constrained(Steps()), constrained(Steps())
    batch = new_batch(kind, llama)
    batch.join(undisturbed)
    run_out(batch)
    failing = new_batch(Failing, llama)
    failing.join(row)
    while len(failing):
        try:
            for ended in failing.step():
                failing.remove(ended)
        except torch.OutOfMemoryError:
            continue

    assert row.tokens == undisturbed.tokens
    assert isinstance(row.sampling.constraint, Steps)
    assert row.sampling.constraint.accepted == row.answer


def test_a_row_that_leaves_and_comes_back_goes_on_where_it_was(llama: Any) -> None:
    batch, steps = ShortPrefills(llama, 3, LENGTH), Steps()
    row = constrained(steps)
    batch.join(row)
    for _ in range(4):
        batch.step()
    batch.suspend(row)
    batch.join(row)
    run_out(batch)

    assert steps.accepted == row.answer
    assert len(row.answer) == 12


@pytest.mark.parametrize("constraint", [lambda: Steps(fails_at=0), lambda: Steps(fails_at=4), Refusing])
def test_what_a_constraint_raises_ends_its_text_alone(llama: Any, constraint: Any) -> None:
    batch = ShortPrefills(llama, 3, LENGTH)
    good, bad, late = new_row(4, 1, most=9), constrained(constraint()), new_row(4, 3, most=9)
    for row in (good, bad, late):
        batch.join(row)
    run_out(batch)

    assert isinstance(bad.failure, ValueError)
    assert good.failure is late.failure is None
    assert len(good.written) == len(late.written) == 9


def test_a_text_with_a_constraint_is_not_drafted(llama: Any) -> None:
    class Cycle(Steps):
        @property
        def allowed(self) -> list[int]:
            return [(self.last + 1) % 3]

    batch = ShortPrefills(llama, 3, LENGTH)
    row = constrained(Cycle(), most=30)
    batch.join(row)
    steps = 0
    while len(batch):
        steps += 1
        for ended in batch.step():
            batch.remove(ended)

    assert steps == len(row.answer) == 30
