"""In bfloat16 a text on a CPU is the same alone and in any batch, to the last bit of its logits."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch

from predictor.cpu import features, packed_linear
from predictor.cpu.packed_linear import pack_linear_layers
from predictor.text import batch as text_batch
from predictor.text.batch import TextBatch
from predictor.text.row import TextRow
from predictor.text.sampling.row_sampling import RowSampling
from tests.support.texts.batches import run_out, tiny

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not features.computes_packed(torch.bfloat16), reason="this CPU computes no bfloat16"),
]
SLOTS, LENGTH, TOKENS, TEXTS = 16, 320, 24, 48
VOCABULARY = 512


@pytest.fixture(scope="module")
def model() -> Any:
    """With layers that are large enough to be packed."""
    made = tiny(
        "Llama",
        vocab_size=VOCABULARY,
        hidden_size=256,
        intermediate_size=2048,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
    ).to(torch.bfloat16)
    assert pack_linear_layers(made, exact=True) == 1 + 7 * made.config.num_hidden_layers
    return made


def new_row(number: int) -> TextRow:
    """Prompts of 1 to 290 tokens, which repeat themselves; every second text is greedy."""
    chance = random.Random(number)
    words = [chance.randrange(VOCABULARY) for _ in range(9)]
    prompt = (words * 33)[: chance.choice([3, 20, 33, 60, 120, 290]) + number % 3]
    sampling = RowSampling(0.7 * (number % 2), 40, 0.95, 0.0, 1.0, random.Random(number))
    end = len(prompt) + TOKENS
    row = TextRow(prompt, sampling, lambda _: len(row.tokens) >= end)
    return row


def written_alone(model: Any) -> list[list[int]]:
    batch = TextBatch(model, SLOTS, LENGTH)
    rows = [new_row(number) for number in range(TEXTS)]
    for row in rows:
        batch.join(row)
        run_out(batch)
    return [row.tokens for row in rows]


def written_together(model: Any) -> list[list[int]]:
    """They join at any time, and in another order."""
    batch = TextBatch(model, SLOTS, LENGTH)
    rows = [new_row(number) for number in range(TEXTS)]
    chance = random.Random(0)
    waiting = chance.sample(rows, TEXTS)
    while waiting:
        for row in [waiting.pop() for _ in range(min(chance.randint(0, 6), SLOTS - len(batch), len(waiting)))]:
            batch.join(row)
        if len(batch):
            for row in batch.step():
                batch.remove(row)
    run_out(batch)
    return [row.tokens for row in rows]


def test_a_text_is_the_same_alone_and_in_any_batch(model: Any) -> None:
    assert written_together(model) == written_alone(model)


@pytest.mark.parametrize("change", ["keys", "parts"])
def test_it_would_not_be_without_what_is_done_for_it(model: Any, change: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where this fails, kernels no longer round by the number of rows or keys, and it can be left out."""
    if change == "keys":
        monkeypatch.setattr(text_batch, "KEY_STEP", 1)
    else:
        monkeypatch.setattr(packed_linear, "ROWS_AT_ONCE", 1_000)
        for layer in model.modules():
            if isinstance(layer, packed_linear.PackedLinear):
                monkeypatch.setattr(layer, "equal_rows", False)
    assert written_together(model) != written_alone(model)
