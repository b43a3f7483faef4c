"""The real engine with packed weights: it writes what plain layers write, and plans with what they take."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

import pytest
import torch

from contract.texts.sampling import Sampling
from predictor.cpu import number_types, packed_linear, stored_embedding
from predictor.cpu.features import computes_bfloat16
from predictor.cpu.packed_linear import PackedLinear
from predictor.cpu.stored_embedding import StoredEmbedding
from predictor.engine.tasks import TextTask
from predictor.loading.device_memory import model_bytes
from predictor.text.checkpoint import load_checkpoint
from predictor.text.transformers_engine import TransformersEngine
from tests.predictor.text.conftest import StartRandom

SIZES = {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 96}
GEMMA = ("Gemma3Text", {**SIZES, "head_dim": 16, "tie_word_embeddings": True, "query_pre_attn_scalar": 16})
LLAMA = ("Llama", {**SIZES, "tie_word_embeddings": False})
ROOT = Path(__file__).parents[4]
families = pytest.mark.parametrize(("architecture", "config"), [GEMMA, LLAMA])


@pytest.fixture(autouse=True)
def any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """Layers of tiny models are packed like large ones."""
    monkeypatch.setattr(packed_linear, "LEAST_WEIGHTS", dict.fromkeys(packed_linear.LEAST_WEIGHTS, 0))
    monkeypatch.setattr(stored_embedding, "LEAST_BYTES", 0)


async def write(engine: TransformersEngine, prompt: str, **sampling: Any) -> str:
    task = TextTask(prompt, Sampling(**{"max_tokens": 20, "temperature": 0.0} | sampling))
    return (await (await engine.submit(task)).complete()).text


def layers(engine: TransformersEngine, kind: type) -> int:
    return sum(isinstance(layer, kind) for layer in engine.core.checkpoint.model.modules())


def stored(config: dict[str, Any]) -> dict[str, Any]:
    return {**config, "dtype": "bfloat16"}


@families
async def test_packed_layers_write_what_plain_ones_write(
    start_random: StartRandom, architecture: str, config: dict[str, Any]
) -> None:
    packed = await start_random(architecture, stored(config))
    plain = await start_random(architecture, stored(config), pack_weights=False)
    assert layers(packed, PackedLinear) == 15
    assert layers(packed, StoredEmbedding) == 1
    assert layers(plain, PackedLinear) == layers(plain, StoredEmbedding) == 0
    assert packed.core.checkpoint.model.dtype == plain.core.checkpoint.model.dtype == torch.float32
    prompts = ["moon", "hello sun " * 3, "床前明月光"]
    expected = [await write(plain, prompt) for prompt in prompts]
    assert list(await asyncio.gather(*[write(packed, prompt) for prompt in prompts])) == expected
    assert [await write(packed, prompt) for prompt in prompts] == expected
    assert packed.fingerprint != plain.fingerprint


async def test_constants_are_computed_in_the_type_that_is_served(start_random: StartRandom) -> None:
    engine = await start_random(GEMMA[0], stored(GEMMA[1]))
    embedding = engine.core.checkpoint.model.get_input_embeddings()
    assert float(embedding.embedding.embed_scale) == pytest.approx(32**0.5, rel=1e-6), "and not rounded to bfloat16"


async def test_the_plan_counts_packed_weights_and_the_stored_table(start_random: StartRandom) -> None:
    engine = await start_random(GEMMA[0], stored(GEMMA[1]))
    model = engine.core.checkpoint.model
    packed = sum(layer.nbytes for layer in model.modules() if isinstance(layer, PackedLinear))
    table = model.get_input_embeddings().table.nbytes
    assert packed > table > 0
    assert packed + table < model_bytes(model) < 1.05 * (packed + table)


@pytest.mark.skipif(not computes_bfloat16(), reason="this CPU computes no bfloat16")
async def test_a_large_model_stored_in_bfloat16_is_computed_in_it_and_seeds_write_nearly_the_same_texts_in_any_batch(
    start_random: StartRandom, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(number_types, "LEAST_PARAMETERS", 1000)
    with caplog.at_level(logging.INFO, "predictor.loading.device"):
        engine = await start_random(LLAMA[0], stored(LLAMA[1]))
    assert "a bfloat16 checkpoint is served in bfloat16, which this CPU computes" in caplog.text
    assert engine.core.checkpoint.model.dtype == torch.bfloat16
    assert layers(engine, PackedLinear) == 15
    seeds = range(48)

    async def text(seed: int) -> str:
        return await write(engine, ("moon", "hello sun " * 3)[seed % 2], seed=seed, temperature=1.0, max_tokens=12)

    alone = [await text(seed) for seed in seeds]
    together = await asyncio.gather(*map(text, seeds))
    # The layers give the same numbers in any batch. Attention rounds otherwise beside longer texts, to 8 bits, and a
    # random model finds hundreds of tokens likely.
    assert sum(map(str.__eq__, alone, together)) >= 0.8 * len(seeds)


@pytest.mark.parametrize("dtype", ["float32", None])
async def test_checkpoints_of_other_types_and_small_ones_are_computed_in_float32(
    start_random: StartRandom, dtype: str | None
) -> None:
    engine = await start_random(LLAMA[0], {**LLAMA[1], "dtype": dtype})
    assert engine.core.checkpoint.model.dtype == torch.float32


def test_the_poet_is_computed_in_float32_on_every_cpu() -> None:
    model = load_checkpoint(str(ROOT / "models/poet"), "cpu", "auto", lambda _phase: None, pack_weights=True).model
    assert model.dtype == torch.float32
