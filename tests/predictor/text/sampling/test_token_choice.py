"""The choice of the next token: each row by its own parameters, as transformers would."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
import torch

from predictor.text.sampling import token_choice
from predictor.text.sampling.batch_sampler import BatchSampler
from predictor.text.sampling.row_sampling import RowSampling
from predictor.text.sampling.token_history import TokenHistory

pytestmark = pytest.mark.slow

ALMOST_ONE = 1 - 2**-53
"""The largest number that random() gives."""


class Row(RowSampling):
    """`seen` are the tokens of its text, for the repetition penalty."""

    seen: tuple[int, ...]


def row(
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    min_p: float = 0.0,
    repetition_penalty: float = 1.0,
    seed: int = 0,
    seen: tuple[int, ...] = (),
) -> Row:
    made = Row(temperature, top_k, top_p, min_p, repetition_penalty, random.Random(seed))
    made.seen = seen
    return made


def sample(logits: Any, rows: list[Row]) -> list[int]:
    """One token for each row of `logits`, which may be changed."""
    sampler = BatchSampler(rows, logits.device)
    sampler.draw()
    if sampler.penalizes:
        history = TokenHistory(len(rows), 8, logits.device)
        for number, each in enumerate(rows):
            if each.seen:
                history.begin(number, list(each.seen))
        history.penalize(logits, 0, max(len(each.seen) for each in rows), sampler.penalty)
    return sampler.choose(logits).read()


def logits_of(*probabilities: float) -> Any:
    return torch.tensor([[math.log(p) if p else -math.inf for p in probabilities]])


def drawn(logits: Any, count: int = 400, **parameters: Any) -> set[int]:
    """All tokens that come up in `count` draws."""
    rows = [row(seed=seed, **parameters) for seed in range(count)]
    return set(sample(logits.repeat(count, 1), rows))


def some_logits(vocabulary: int, seed: int = 0) -> Any:
    return torch.randn(1, vocabulary, generator=torch.Generator().manual_seed(seed)) * 3


def exact(logits: Any, parameters: dict[str, Any]) -> Any:
    """The probabilities that transformers' own processors leave."""
    from transformers import (
        MinPLogitsWarper,
        RepetitionPenaltyLogitsProcessor,
        TemperatureLogitsWarper,
        TopKLogitsWarper,
        TopPLogitsWarper,
    )

    seen = torch.tensor([list(parameters.get("seen", ()))], dtype=torch.long)
    chain = [
        RepetitionPenaltyLogitsProcessor(parameters.get("repetition_penalty", 1.0)),
        TemperatureLogitsWarper(parameters.get("temperature", 1.0)),
        TopKLogitsWarper(parameters.get("top_k", 0) or logits.shape[1]),
        TopPLogitsWarper(parameters.get("top_p", 1.0)),
        MinPLogitsWarper(parameters.get("min_p", 0.0)),
    ]
    for processor in chain:
        logits = processor(seen, logits)
    return logits.softmax(-1)[0]


def test_temperature_0_takes_the_likeliest_token() -> None:
    assert drawn(logits_of(0.3, 0.4, 0.3), temperature=0.0) == {1}


def test_among_equals_a_greedy_row_takes_the_same_token_beside_a_sampling_one() -> None:
    logits = torch.zeros(2, 5_000)
    logits[:, 1_000:4_000] = 1.0

    [alone] = sample(logits[:1].clone(), [row(0.0)])

    assert sample(logits, [row(0.0), row(1.0)])[0] == alone


def test_top_k_leaves_the_k_likeliest() -> None:
    assert drawn(logits_of(0.1, 0.4, 0.2, 0.3), top_k=2) == {1, 3}


def test_a_top_k_over_the_vocabulary_leaves_all() -> None:
    assert drawn(logits_of(0.1, 0.4, 0.2, 0.3), top_k=50) == {0, 1, 2, 3}


def test_top_p_leaves_the_fewest_that_reach_it() -> None:
    assert drawn(logits_of(0.1, 0.4, 0.2, 0.3), top_p=0.65) == {1, 3}
    assert drawn(logits_of(0.1, 0.4, 0.2, 0.3), top_p=0.75) == {1, 2, 3}
    assert drawn(logits_of(0.1, 0.4, 0.2, 0.3), top_p=1e-300) == {1}


def test_min_p_leaves_those_that_are_not_much_less_likely_than_the_likeliest() -> None:
    assert drawn(logits_of(0.1, 0.4, 0.2, 0.3), min_p=0.45) == {1, 2, 3}


def test_the_repetition_penalty_makes_what_was_seen_less_likely_on_either_side_of_zero() -> None:
    logits = torch.tensor([[2.0, 1.5, -3.0]])

    assert sample(logits.clone(), [row(0.0)]) == [0]
    assert sample(logits.clone(), [row(0.0, repetition_penalty=2.0, seen=(0,))]) == [1]
    assert sample(-logits, [row(0.0, repetition_penalty=2.0, seen=(2,))]) == [2]
    assert sample(-logits, [row(0.0, repetition_penalty=9.0, seen=(2,))]) == [2]
    assert sample(torch.tensor([[-1.0, -1.5]]), [row(0.0, repetition_penalty=2.0, seen=(0,))]) == [1]


@pytest.mark.parametrize("temperature", [1e-4, 0.3, 1.0, 2.0])
@pytest.mark.parametrize("top_p", [1e-300, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("draw", [0.0, 0.5, ALMOST_ONE])
def test_an_impossible_token_is_never_chosen(temperature: float, top_p: float, draw: float) -> None:
    for seed in range(20):
        logits = some_logits(300, seed)
        logits[:, ::2] = -math.inf
        sampling = row(temperature, top_p=top_p)
        sampling.draw = draw

        [token] = sample(logits.clone(), [sampling])

        assert exact(logits, {"temperature": temperature, "top_p": top_p})[token] > 0


SAMPLINGS: list[dict[str, Any]] = [
    {},
    {"temperature": 0.5},
    {"temperature": 1.7},
    {"top_k": 7},
    {"top_p": 0.8},
    {"min_p": 0.05},
    {"repetition_penalty": 1.5, "seen": (3, 5, 11)},
    {"temperature": 1.3, "top_k": 12, "top_p": 0.9, "min_p": 0.02, "repetition_penalty": 1.2, "seen": (1, 2)},
]


@pytest.mark.parametrize("parameters", SAMPLINGS, ids=str)
def test_tokens_come_as_often_as_they_are_likely(parameters: dict[str, Any]) -> None:
    """Pearson's chi-square with a bound of more than five standard deviations; the seeds are fixed."""
    draws, logits = 20_000, some_logits(40)
    expected = exact(logits, parameters) * draws
    rows = [row(seed=seed, **parameters) for seed in range(draws)]

    seen = torch.bincount(torch.tensor(sample(logits.repeat(draws, 1), rows)), minlength=40)

    assert int(seen[expected == 0].sum()) == 0
    likely = expected >= 5
    chi_square = float(((seen - expected)[likely] ** 2 / expected[likely]).sum())
    freedom = int(likely.sum()) - 1
    assert chi_square < freedom + 6 * math.sqrt(2 * freedom) + 1


@pytest.mark.parametrize("parameters", [*SAMPLINGS, {"top_k": 60, "top_p": 0.6}], ids=str)
@pytest.mark.parametrize("spread", [1e-3, 1.0])
def test_looking_at_the_likeliest_first_changes_no_choice(
    monkeypatch: pytest.MonkeyPatch, parameters: dict[str, Any], spread: float
) -> None:
    logits = torch.cat([some_logits(200, seed) * spread for seed in range(300)])

    def choices() -> list[int]:
        return sample(logits.clone(), [row(seed=seed, **parameters) for seed in range(300)])

    monkeypatch.setattr(token_choice, "CANDIDATES", 200)
    expected = choices()
    monkeypatch.setattr(token_choice, "CANDIDATES", 10)
    assert choices() == expected


def test_a_row_does_not_depend_on_its_neighbours() -> None:
    chance = random.Random(3)
    parameters = [*SAMPLINGS, {"temperature": 0.0}]
    for trial in range(60):
        chosen = chance.choices(parameters, k=chance.randint(2, 9))
        logits = torch.cat([some_logits(200, seed=trial * 100 + at) for at in range(len(chosen))])

        together = sample(logits.clone(), [row(seed=at, **each) for at, each in enumerate(chosen)])

        alone = [sample(logits[at : at + 1].clone(), [row(seed=at, **each)])[0] for at, each in enumerate(chosen)]
        assert together == alone


def test_a_choice_may_be_repeated_until_it_was_taken() -> None:
    """A step that fails behind the choice is tried again, and must come to the same."""
    sampling = row(seed=5, repetition_penalty=1.3)
    logits = some_logits(200)

    first, again = (sample(logits.clone(), [sampling])[0] for _ in range(2))
    assert first == again

    draws = []
    for _ in range(3):
        draws.append(sampling.draw)
        sampling.accept(0)
    numbers = random.Random(5)
    assert draws == [numbers.random() for _ in range(3)]


def tied_logits(vocabulary: int, seed: int) -> Any:
    """Few values, so that most tokens have equals."""
    return (some_logits(vocabulary, seed) / 2).round()


@pytest.mark.parametrize("parameters", [{}, {"top_k": 7}, {"top_k": 60, "top_p": 0.6}, {"min_p": 0.05}], ids=str)
@pytest.mark.parametrize("rows", [1, 64])
def test_of_equals_the_lower_id_comes_first_however_the_choice_is_made(
    monkeypatch: pytest.MonkeyPatch, parameters: dict[str, Any], rows: int
) -> None:
    for seed in range(0, 128, rows):
        logits = torch.cat([tied_logits(3_000, at) for at in range(seed, seed + rows)])
        samplings = [row(seed=at, **parameters) for at in range(seed, seed + rows)]
        monkeypatch.setattr(token_choice, "CANDIDATES", 3_000)
        in_order = sample(logits.clone(), samplings)
        monkeypatch.setattr(token_choice, "CANDIDATES", 100)

        assert sample(logits.clone(), samplings) == in_order


def test_of_equal_likeliest_ones_greedy_and_top_k_1_take_the_first() -> None:
    for vocabulary in (50, 5_000):
        logits = torch.zeros(9, vocabulary)
        logits[:, [7, 20, 31, vocabulary - 1]] = 1.0

        assert set(sample(logits, [row(0.0), *(row(top_k=1, seed=seed) for seed in range(8))])) == {7}


def test_a_row_that_is_not_decided_costs_one_more_look_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    decided: list[list[int]] = []
    decide = BatchSampler.decide

    def recording(self: BatchSampler, logits: Any, numbers: list[int]) -> Any:
        decided.append(numbers)
        return decide(self, logits, numbers)

    monkeypatch.setattr(BatchSampler, "decide", recording)
    monkeypatch.setattr(token_choice, "CANDIDATES", 10)
    flat = torch.zeros(1, 200)
    peaked = torch.cat([torch.full((1, 1), 50.0), torch.zeros(1, 199)], 1)

    tokens = sample(torch.cat([peaked, flat, peaked, flat]), [row(0.0), *(row(seed=seed) for seed in range(1, 4))])

    assert decided == [[1, 3]]
    assert (tokens[0], tokens[2]) == (0, 0)
    assert [tokens[1], tokens[3]] == [sample(flat.clone(), [row(seed=seed)])[0] for seed in (1, 3)]


def test_a_few_candidates_where_no_row_keeps_more_choose_as_many_do(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    logits = torch.randn(40, 3_000) * 3
    rows = [row(0.75, top_k=1 + seed % 64, top_p=0.5 + seed % 3 / 4, seed=seed) for seed in range(40)]
    few = sample(logits, rows)
    monkeypatch.setattr(token_choice, "FEW_CANDIDATES", 0)

    assert sample(logits, rows) == few


def test_a_row_of_few_candidates_looks_at_as_many_beside_one_of_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sums over other numbers of candidates round otherwise."""
    looked: list[tuple[int, bool]] = []
    sample_likeliest = token_choice.sample_likeliest

    def recording(logits: Any, parameters: Any, draws: Any, few: bool) -> Any:
        looked.append((len(logits), few))
        return sample_likeliest(logits, parameters, draws, few)

    monkeypatch.setattr(token_choice, "sample_likeliest", recording)
    sample(torch.zeros(4, 3_000), [row(top_k=40), row(top_k=100), row(0.0), row()])

    assert sorted(looked) == [(1, True), (2, False)]


@pytest.mark.parametrize("kind", ["normal", "rounded", "equal", "rising", "masked", "no number"])
@pytest.mark.parametrize(("vocabulary", "count"), [(65, 64), (130, 64), (5_414, 64), (5_414, 1_024), (40_009, 64)])
def test_the_largest_are_those_that_torch_finds(kind: str, vocabulary: int, count: int) -> None:
    values = torch.randn(5, vocabulary, generator=torch.Generator().manual_seed(0))
    if kind == "rounded":
        values = values.round()
    elif kind == "equal":
        values = torch.zeros(5, vocabulary)
    elif kind == "rising":
        values = values.sort(-1).values
    elif kind == "masked":
        values[:, 10:] = -math.inf
    elif kind == "no number":
        values[2] = math.nan

    largest, places = token_choice.largest(values, count)

    torch.testing.assert_close(largest, values.topk(count).values, rtol=0, atol=0, equal_nan=True)
    torch.testing.assert_close(values.gather(1, places), largest, rtol=0, atol=0, equal_nan=True)
    assert all(len(set(row.tolist())) == count for row in places)


@pytest.mark.parametrize("size", [5, 300_000])
def test_a_greedy_row_takes_the_first_of_equals(size: int) -> None:
    logits = torch.zeros(3, size)
    logits[0, 3:] = logits[1, size - 1] = 1.0

    assert sample(logits, [row(0.0)] * 3) == [3, size - 1, 0]
