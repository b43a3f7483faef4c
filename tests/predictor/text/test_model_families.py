"""Architectures with something of their own: each text in a batch is what `generate` writes alone."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from contract.request import Sampling
from predictor.engine.tasks import TextTask
from predictor.text.single_text_batch import SoloBatch
from predictor.text.transformers_engine import TransformersEngine

pytestmark = pytest.mark.slow

LAYERS = {"num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8}
SHARED = LAYERS | {
    "sliding_window": 6,
    "layer_types": ["sliding_attention", "full_attention"] * 2,
    "num_kv_shared_layers": 2,
    "vocab_size_per_layer_input": 400,
    "hidden_size_per_layer_input": 8,
    "max_position_embeddings": 256,
    "tie_word_embeddings": False,  # or a random model repeats its last token
}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "gemma3n": ("Gemma3nText", SHARED | {"intermediate_size": [48, 48, 64, 64], "laurel_rank": 4}),
    "gemma4": ("Gemma4Text", SHARED | {"intermediate_size": 48, "global_head_dim": 16, "use_double_wide_mlp": True}),
}


async def write(engine: TransformersEngine, prompt: str, tokens: int) -> str:
    generation = await engine.submit(TextTask(prompt, Sampling(max_tokens=tokens, temperature=0)))
    return (await generation.complete()).text.rstrip("\N{REPLACEMENT CHARACTER}")


@pytest.mark.parametrize("family", FAMILIES)
async def test_rows_that_leave_in_the_middle_change_no_text(start_random: Any, written_alone: Any, family: str) -> None:
    engine = await start_random(*FAMILIES[family], max_concurrency=3)
    assert engine.core.batch.slots == 3
    assert not isinstance(engine.core.batch, SoloBatch)
    trials = [("hello moon", 5), ("sun " * 20, 30), ("hello sun and moon", 20), ("moon", 9), ("world", 25)]

    texts = await asyncio.gather(*(write(engine, *trial) for trial in trials))

    assert texts == [written_alone(engine, *trial) for trial in trials]
    assert len(set(texts)) == 5
    assert engine.alive
