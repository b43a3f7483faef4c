"""Batches of random tiny models, and rows of random prompts."""

from __future__ import annotations

import random
from collections.abc import Callable, Hashable
from typing import Any

import torch

from predictor.text.batch import TextBatch
from predictor.text.row import TextRow
from predictor.text.sampling.batch_sampler import BatchSampler, Choice
from predictor.text.sampling.row_sampling import RowSampling

VOCABULARY = 60
LENGTH = 48


def tiny(architecture: str, **changes: Any) -> Any:
    """A random model of four small layers."""
    import transformers

    config = {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "max_position_embeddings": 64,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "pad_token_id": None,
        "initializer_range": 0.3,  # with the usual 0.02 a random model hardly attends to anything
    }
    torch.manual_seed(0)
    built = getattr(transformers, f"{architecture}Config")(**config | changes)
    return transformers.AutoModelForCausalLM.from_config(built).eval()


SHARED: dict[str, Any] = {
    "head_dim": 8,
    "num_key_value_heads": 2,
    "sliding_window": 6,
    "layer_types": ["sliding_attention", "full_attention"] * 2,
    "num_kv_shared_layers": 2,
    "vocab_size_per_layer_input": VOCABULARY,
    "hidden_size_per_layer_input": 8,
}
"""Two layers that attend to the keys and values of the two before them, and write none."""

ARCHITECTURES: dict[str, Callable[[], Any]] = {
    "llama": lambda: tiny("Llama"),
    "llama-eager": lambda: tiny("Llama", attn_implementation="eager"),
    "gemma3-sliding": lambda: tiny(
        "Gemma3Text", head_dim=8, sliding_window=6, layer_types=["sliding_attention", "full_attention"] * 2
    ),
    "qwen3-grouped": lambda: tiny("Qwen3", head_dim=8, num_key_value_heads=2),
    "mistral-sliding": lambda: tiny("Mistral", sliding_window=6, num_key_value_heads=2),
    "gpt2": lambda: tiny("GPT2", n_embd=32, n_layer=2, n_head=4, n_positions=64),
    "gemma3n-shared": lambda: tiny("Gemma3nText", **SHARED, laurel_rank=4, altup_num_inputs=2),
    "gemma4-shared": lambda: tiny("Gemma4Text", **SHARED, global_head_dim=16),
}


class ShortPrefills(TextBatch):
    """Prompts come in parts of eight tokens."""

    def __init__(self, model: Any, slots: int, length: int) -> None:
        super().__init__(model, slots, length, prefill_tokens=8)


class AsOnGpu(ShortPrefills):
    """Writes texts while the next token is computed, and masks only what must be masked."""

    def __init__(self, model: Any, slots: int, length: int) -> None:
        super().__init__(model, slots, length)
        self.defers_texts = True
        self.always_masks = False


class CheckedBatch(ShortPrefills):
    """Compares every logit that it goes by with the plain forward of the row's whole text."""

    checked = 0

    def choose(self, rows: list[TextRow], logits: torch.Tensor, sampler: BatchSampler) -> Choice:
        for place, (row, said) in enumerate(zip(rows, logits, strict=True)):
            text = [*row.tokens, *self._draft[:place]]
            with torch.inference_mode():
                alone = self._model(input_ids=torch.tensor([text]), use_cache=False).logits[0, -1]
            torch.testing.assert_close(said, alone, rtol=1e-3, atol=1e-3)
            self.checked += 1
        return super().choose(rows, logits, sampler)


class CheckedAsOnGpu(CheckedBatch, AsOnGpu):
    """Both."""


class Text(TextRow):
    """A row that keeps what is written of it after a prompt of so many tokens."""

    prompt: int
    written: list[int]

    @property
    def answer(self) -> list[int]:
        return self.tokens[self.prompt :]


def new_row(length: int, seed: int = 0, most: int = 1_000, temperature: float = 1.0, stop: int | None = None) -> Text:
    """A prompt of random tokens, and at most so many tokens after it. Only the text tells of the token `stop`."""
    chance = random.Random(seed)
    prompt = [chance.randrange(VOCABULARY) for _ in range(length)]
    return row_after(prompt, chance, most, temperature, stop)


def row_after(
    prompt: list[int],
    chance: random.Random,
    most: int = 1_000,
    temperature: float = 1.0,
    stop: int | None = None,
    scope: Hashable | None = None,
) -> Text:
    """The same with a known prompt."""
    written: list[int] = []

    def write(token: int) -> bool:
        written.append(token)
        return token == stop or len(written) >= most

    sampling = RowSampling(temperature, 0, 1.0, 0.0, 1.0, chance)
    row = Text(list(prompt), sampling, write, lambda _: len(written) + 1 >= most, scope=scope)
    row.prompt, row.written = len(prompt), written
    return row


def run_out(batch: TextBatch) -> None:
    """Step until every row is done."""
    while len(batch):
        for row in batch.step():
            batch.remove(row)
