"""OpenAI's penalties and biases, of each row by its own text."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest
import torch

from predictor.text.batch import TextBatch
from predictor.text.row import TextRow
from predictor.text.sampling.batch_sampler import BatchSampler
from predictor.text.sampling.row_sampling import RowSampling
from tests.support.texts.batches import LENGTH, VOCABULARY, AsOnGpu, ShortPrefills, new_row, run_out, tiny

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def llama() -> Any:
    return tiny("Llama")


def sampling_of(chance: random.Random, **changes: Any) -> RowSampling:
    """Any of the penalties and biases, or none."""
    fields: dict[str, Any] = {
        "temperature": 0.0,
        "top_k": 0,
        "top_p": 1.0,
        "min_p": 0.0,
        "repetition_penalty": chance.choice([1.0, 1.0, 1.5]),
        "frequency_penalty": chance.choice([0.0, 0.0, 0.9, -0.5]),
        "presence_penalty": chance.choice([0.0, 0.0, 1.5, -1.0]),
        "logit_bias": chance.choice([{}, {}, {5: -100.0, 7: 2.5}]),
        "random": chance,
    }
    return RowSampling(**fields | changes)


def penalized(logits: torch.Tensor, tokens: list[int], prompt: int, sampling: RowSampling) -> torch.Tensor:
    """`logits` [vocabulary] after `tokens`, by transformers' processor and by OpenAI's formula."""
    from transformers import RepetitionPenaltyLogitsProcessor, SequenceBiasLogitsProcessor

    seen = torch.tensor([tokens])
    changed = RepetitionPenaltyLogitsProcessor(sampling.repetition_penalty)(seen, logits[None].clone())
    for token, count in Counter(tokens[prompt:]).items():
        changed[0, token] -= count * sampling.frequency_penalty + (count > 0) * sampling.presence_penalty
    if sampling.logit_bias:
        bias = {(token,): value for token, value in sampling.logit_bias.items()}
        changed = SequenceBiasLogitsProcessor(bias)(seen, changed)
    likeliest: torch.Tensor = changed[0]
    return likeliest


@pytest.mark.parametrize("kind", [ShortPrefills, AsOnGpu])
@pytest.mark.parametrize("seed", range(3))
def test_rows_that_join_and_leave_at_random_are_penalized_for_their_own_texts(
    llama: Any, seed: int, kind: type[TextBatch]
) -> None:
    chance = random.Random(seed)
    batch = kind(llama, slots=4, length=LENGTH)
    rows: list[TextRow] = []

    def join() -> None:
        prompt = [chance.randrange(VOCABULARY) for _ in range(chance.randint(1, 20))]
        most = len(prompt) + chance.randint(1, 25)
        row = TextRow(prompt, sampling_of(chance), lambda _: len(row.tokens) >= most)
        rows.append(row)
        batch.join(row)

    for _ in range(80):
        if chance.random() < 0.3 and len(batch) < batch.slots:
            join()
        elif chance.random() < 0.1 and batch.running:
            back = chance.choice(batch.running)
            batch.suspend(back)
            batch.join(back)
        elif len(batch):
            for row in batch.step():
                batch.remove(row)
    run_out(batch)

    assert len(rows) > 5
    for row in rows:
        with torch.inference_mode():
            alone = llama(input_ids=torch.tensor([row.tokens]), use_cache=False).logits[0]
        for place in range(row.prompt_tokens, len(row.tokens)):
            expected = penalized(alone[place - 1], row.tokens[:place], row.prompt_tokens, row.sampling)
            assert expected[row.tokens[place]] > expected.max() - 1e-3


def test_a_sampled_text_is_the_same_alone_and_beside_others(llama: Any) -> None:
    def rows() -> list[TextRow]:
        made: list[TextRow] = []
        for seed in range(9):
            chance = random.Random(seed)
            sampling = sampling_of(chance, temperature=0.8, top_k=chance.choice([0, 9]), min_p=0.01)
            row = new_row(3 + seed, seed, most=15)
            row.sampling = sampling
            made.append(row)
        return made

    together, alone = rows(), rows()
    batch = ShortPrefills(llama, 9, LENGTH)
    for row in together:
        batch.join(row)
    run_out(batch)
    for row in alone:
        single = ShortPrefills(llama, 1, LENGTH)
        single.join(row)
        run_out(single)

    assert [row.tokens for row in together] == [row.tokens for row in alone]
    assert any(row.sampling.counts for row in alone)
    assert any(row.sampling.logit_bias for row in alone)


def test_the_prompt_does_not_count(llama: Any) -> None:
    plain, penalized_for_text = new_row(12, 1, most=1, temperature=0.0), new_row(12, 1, most=1, temperature=0.0)
    penalized_for_text.tokens[:] = plain.tokens[:] = [3] * 12
    penalized_for_text.sampling.presence_penalty = penalized_for_text.sampling.frequency_penalty = 2.0
    for row in (plain, penalized_for_text):
        batch = ShortPrefills(llama, 1, LENGTH)
        batch.join(row)
        run_out(batch)

    assert penalized_for_text.tokens == plain.tokens


@pytest.mark.parametrize(
    ("field", "value", "drafted"),
    [("frequency_penalty", 0.1, False), ("presence_penalty", 0.1, False), ("logit_bias", {0: 5.0}, True)],
)
def test_a_text_with_penalties_is_not_drafted_and_one_with_biases_is(
    llama: Any, field: str, value: Any, drafted: bool
) -> None:
    def steps(*, drafts: bool) -> tuple[int, list[int]]:
        batch = ShortPrefills(llama, 1, LENGTH)
        batch.drafts = drafts
        row = new_row(4, 3, most=40, temperature=0.0)
        row.sampling.logit_bias = {0: 100.0}  # it writes this token alone
        setattr(row.sampling, field, value if field != "logit_bias" else {0: 100.0})
        batch.join(row)
        count = 0
        while len(batch):
            count += 1
            for ended in batch.step():
                batch.remove(ended)
        return count, row.tokens

    with_drafts, without = steps(drafts=True), steps(drafts=False)

    assert with_drafts[1] == without[1]
    assert (with_drafts[0] < without[0]) == drafted


def test_a_bias_forbids_a_token_and_another_one_forces_one() -> None:
    logits = torch.zeros(3, VOCABULARY)
    logits[:, 9] = 5.0
    rows = [
        RowSampling(1.0, 1, 1.0, 0.0, 1.0, random.Random(0), logit_bias=bias)
        for bias in ({9: -100.0, 4: 1.0}, {50: 100.0, 51: 99.0}, {})
    ]
    sampler = BatchSampler(rows, logits.device)
    sampler.draw()

    assert sampler.choose(logits).read() == [4, 50, 9]
