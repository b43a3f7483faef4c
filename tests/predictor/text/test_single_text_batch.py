"""One text at a time, with the state that each architecture keeps: its prompt comes in parts where that changes
nothing."""

from __future__ import annotations

import copy
import random
from typing import Any

import pytest
import torch
import transformers

from predictor.text.batch_check import solo_prefill_tokens
from predictor.text.prefill import most_prefill_tokens
from predictor.text.row import TextRow
from predictor.text.sampling.batch_sampler import BatchSampler, Choice
from predictor.text.sampling.row_sampling import RowSampling
from predictor.text.single_text_batch import SoloBatch

pytestmark = pytest.mark.slow

LENGTH = 64
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 48}
STATES = {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_state": 8, "mamba_n_groups": 1, "mamba_chunk_size": 8}
ARCHITECTURES: dict[str, tuple[bool, dict[str, Any]]] = {
    "Bloom": (True, {"n_layer": 2, "n_head": 4}),
    "Lfm2": (True, HEADS | {"num_hidden_layers": 4, "layer_types": ["conv", "full_attention"] * 2}),
    "Llama4Text": (
        True,
        HEADS
        | {"num_hidden_layers": 4, "attention_chunk_size": 8, "head_dim": 8}
        | {"num_local_experts": 2, "intermediate_size_mlp": 48},
    ),
    # The first layer has no keys, so that its cache does not tell how long the text is.
    "Bamba": (True, HEADS | STATES | {"num_hidden_layers": 4, "attn_layer_indices": [1, 3]}),
    "RecurrentGemma": (
        False,
        {"num_hidden_layers": 3, "lru_width": 32, "attention_window_size": 8, "head_dim": 8} | HEADS,
    ),
    "Mamba": (False, {"num_hidden_layers": 2}),
}
"""Architectures that cannot be batched, and whether they read a prompt in parts."""


def build(architecture: str) -> Any:
    torch.manual_seed(0)
    config = {"vocab_size": 60, "hidden_size": 32, "initializer_range": 0.3, "pad_token_id": None}
    built = getattr(transformers, f"{architecture}Config")(**config | ARCHITECTURES[architecture][1])
    return transformers.AutoModelForCausalLM.from_config(built).eval()


@pytest.fixture(scope="module", params=ARCHITECTURES)
def architecture(request: pytest.FixtureRequest) -> tuple[Any, bool]:
    """A random model, and whether it reads a prompt in parts."""
    return build(request.param), ARCHITECTURES[request.param][0]


@pytest.fixture(scope="module")
def lfm2() -> Any:
    return build("Lfm2")


class CheckedSoloBatch(SoloBatch):
    """Compares every logit that it goes by with the plain forward of the whole text, and notes how many tokens each
    forward read and for how many of them there were logits."""

    def __init__(self, model: Any, prefill_tokens: int) -> None:
        super().__init__(model, LENGTH, prefill_tokens)
        self.plain = copy.deepcopy(model)  # some keep their state in the model itself
        self.checked = 0
        self.read: list[tuple[int, int]] = []

    def _advance(self, ids: torch.Tensor, start: int, following: int) -> torch.Tensor:
        forward = self._model.forward

        def noting(*args: Any, **named: Any) -> Any:
            output = forward(*args, **named)
            if named["use_cache"]:
                self.read.append((named["input_ids"].shape[1], output.logits.shape[1]))
            return output

        self._model.forward = noting
        try:
            return super()._advance(ids, start, following)
        finally:
            self._model.forward = forward

    def choose(self, rows: list[TextRow], logits: torch.Tensor, sampler: BatchSampler) -> Choice:
        self.checked += 1
        [row] = rows
        alone = self.plain(input_ids=torch.tensor([row.tokens]), use_cache=False).logits[0, -1]
        torch.testing.assert_close(logits[0], alone, rtol=1e-3, atol=1e-3)
        return super().choose(rows, logits, sampler)


def new_row(length: int, seed: int = 0, most: int = 8) -> TextRow:
    chance = random.Random(seed)
    written: list[int] = []

    def write(token: int) -> bool:
        written.append(token)
        return len(written) >= most

    return TextRow([chance.randrange(60) for _ in range(length)], RowSampling(1.0, 0, 1.0, 0.0, 1.0, chance), write)


def run_out(batch: SoloBatch) -> None:
    while len(batch):
        for row in batch.step():
            batch.remove(row)


@pytest.mark.parametrize("length", [1, 5, 6, 31])
def test_a_text_is_told_what_the_plain_model_says(architecture: tuple[Any, bool], length: int) -> None:
    model, in_parts = architecture
    batch = CheckedSoloBatch(model, 5 if in_parts else LENGTH)
    for seed in range(2):  # the second begins with nothing of the first
        batch.join(new_row(length, seed))
        run_out(batch)

    assert batch.checked == 16


def test_prompts_come_in_parts_where_that_changes_nothing(architecture: tuple[Any, bool]) -> None:
    model, in_parts = architecture

    assert solo_prefill_tokens(model, 8192) == (most_prefill_tokens(model.device) if in_parts else 8192)


def test_a_long_prompt_is_read_in_parts_with_logits_of_one_token(lfm2: Any) -> None:
    batch = CheckedSoloBatch(lfm2, 8)
    batch.join(new_row(27))

    steps = [len(batch.running) for _ in range(4) if batch.step() is not None]

    assert steps == [0, 0, 0, 1]
    assert batch.read == [(8, 1), (8, 1), (8, 1), (3, 1)]


def test_a_prompt_that_is_half_read_may_leave(lfm2: Any) -> None:
    batch = CheckedSoloBatch(lfm2, 8)
    long = new_row(27)
    batch.join(long)
    batch.step()

    batch.remove(long)

    assert len(batch) == 0
    batch.join(new_row(9, seed=1))
    run_out(batch)
    assert batch.checked == 8


@pytest.mark.parametrize("failing", [1, 3, 5])
def test_a_step_that_fails_is_tried_again_from_the_whole_text(
    lfm2: Any, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    batch = CheckedSoloBatch(lfm2, 8)
    batch.join(new_row(20))
    for _ in range(failing):
        batch.step()
    with monkeypatch.context() as patched:
        patched.setattr(lfm2, "_update_model_kwargs_for_generation", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            batch.step()

    run_out(batch)

    assert batch.checked == 8
