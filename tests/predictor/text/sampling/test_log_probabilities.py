"""How likely the model itself found each token: whatever the request does with its logits."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch

from contract.limits import TOP_LOGPROBS
from predictor.text.batch import TextBatch
from predictor.text.sampling.batch_sampler import BatchSampler
from predictor.text.sampling.log_probabilities import LEAST, LogProbabilities, TokenLikelihood
from predictor.text.sampling.row_sampling import RowSampling
from predictor.text.single_text_batch import SoloBatch
from tests.support.texts.batches import LENGTH, AsOnGpu, ShortPrefills, Text, new_row, run_out, tiny

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def llama() -> Any:
    return tiny("Llama")


def asking(seed: int, count: int | None, **changes: Any) -> tuple[Text, list[TokenLikelihood]]:
    """A row, and what it is told."""
    row = new_row(4 + seed, seed, most=12, temperature=changes.pop("temperature", 1.0))
    row.sampling.top_logprobs = count
    for name, value in changes.items():
        setattr(row.sampling, name, value)
    told: list[TokenLikelihood] = []
    row.note_likelihood = told.append
    return row, told


def check(model: Any, row: Text, told: list[TokenLikelihood]) -> None:
    """Against torch's own log_softmax of the plain forward."""
    with torch.inference_mode():
        alone = model(input_ids=torch.tensor([row.tokens]), use_cache=False).logits[0].log_softmax(-1)
    assert len(told) == len(row.answer) == 12
    for place, one in enumerate(told, row.prompt_tokens - 1):
        assert one.logprob == pytest.approx(float(alone[place, row.tokens[place + 1]]), abs=1e-4)
        expected = alone[place].topk(row.sampling.top_logprobs or 0)
        assert [logprob for _, logprob in one.likeliest] == pytest.approx(expected.values.tolist(), abs=1e-4)
        assert [token for token, _ in one.likeliest] == expected.indices.tolist()


@pytest.mark.parametrize("kind", [ShortPrefills, AsOnGpu])
def test_they_are_those_of_the_model_whatever_else_is_asked_for(llama: Any, kind: type[TextBatch]) -> None:
    batch = kind(llama, 5, LENGTH)
    rows = [
        asking(1, 3, temperature=0.3, top_k=2, logit_bias={7: 3.0}),
        asking(2, None),
        asking(3, 0, frequency_penalty=1.0),
        asking(4, TOP_LOGPROBS, repetition_penalty=1.5, presence_penalty=1.0),
        asking(5, 1, temperature=0.0),
    ]
    for row, _ in rows:
        batch.join(row)
    run_out(batch)

    for row, told in rows:
        if row.sampling.top_logprobs is None:
            assert told == []
        else:
            check(llama, row, told)


def test_nobody_beside_a_row_changes_what_it_is_told(llama: Any) -> None:
    (alone, expected), (row, told), (other, _) = asking(1, 3), asking(1, 3), asking(2, 20)
    for texts in ([alone], [row, other]):
        batch = ShortPrefills(llama, 2, LENGTH)
        for text in texts:
            batch.join(text)
        run_out(batch)

    assert [[token for token, _ in one.likeliest] for one in told] == [
        [token for token, _ in one.likeliest] for one in expected
    ]
    assert [one.logprob for one in told] == pytest.approx([one.logprob for one in expected], abs=1e-4)


def test_they_are_told_with_drafts(llama: Any) -> None:
    batch = ShortPrefills(llama, 1, LENGTH)
    row, told = asking(1, 2, logit_bias={0: 100.0})  # it writes this token alone
    batch.join(row)
    steps = 0
    while len(batch):
        steps += 1
        for ended in batch.step():
            batch.remove(ended)

    assert steps < 12
    check(llama, row, told)


def test_they_are_told_of_an_architecture_that_cannot_be_batched(llama: Any) -> None:
    batch = SoloBatch(llama, LENGTH)
    row, told = asking(1, 2)
    batch.join(row)
    run_out(batch)

    check(llama, row, told)


def test_of_equals_the_lower_id_comes_first_and_nothing_is_infinite() -> None:
    logits = torch.full((2, 30), -torch.inf)
    logits[0, [20, 4, 9]] = 1.0
    logits[1] = torch.nan

    found = LogProbabilities(logits, torch.tensor([0, 1]), {0: 4, 1: 2}).read(torch.tensor([7, 7]))

    assert [token for token, _ in found[0].likeliest[:3]] == [4, 9, 20]
    assert [logprob for _, logprob in found[0].likeliest[:3]] == pytest.approx([-1.098612] * 3, abs=1e-6)
    assert found[0].likeliest[3][1] == found[0].logprob == LEAST
    assert found[1].logprob == LEAST


def test_they_are_of_the_chosen_token_where_the_candidates_do_not_decide() -> None:
    logits = torch.randn(1, 5_000, generator=torch.Generator().manual_seed(0)) / 100
    row = RowSampling(1.0, 0, 0.9, 0.0, 1.0, random.Random(3), top_logprobs=1)
    sampler = BatchSampler([row], logits.device)
    sampler.draw()

    choice = sampler.choose(logits.clone(), log_probabilities=sampler.log_probabilities(logits))
    [token] = choice.read()

    expected = logits.log_softmax(-1)
    assert choice.read_likelihoods()[0].logprob == pytest.approx(float(expected[0, token]), abs=1e-5)
