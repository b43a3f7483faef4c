"""Weights of 8 and 4 bits, made by torchao while they are loaded. test_quantization.py runs these with torchao, in a
process of its own: transformers imports it wherever it is installed."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import get_args

import pytest
import torch

from contract.texts.sampling import Sampling
from predictor.engine.engine_settings import EngineSettings
from predictor.engine.tasks import TextTask
from predictor.loading.device_memory import model_bytes
from predictor.plan_settings import Quantization
from predictor.text.capacity import measure_cost
from predictor.text.checkpoint import Checkpoint, load_checkpoint
from predictor.text.transformers_engine import TransformersEngine

OFF = {"int8": 0.02, "int4": 0.25}
"""How far logits may be off, relative to their norm. The weights here are random, which 4 bits suit least."""


def load(folder: Path, quantize: Quantization | None) -> Checkpoint:
    return load_checkpoint(str(folder), "cpu", "auto", lambda _phase: None, quantize=quantize)


def logits(checkpoint: Checkpoint) -> torch.Tensor:
    with torch.inference_mode():
        found: torch.Tensor = checkpoint.model(input_ids=torch.arange(20)[None]).logits
    return found


@pytest.mark.parametrize("quantize", get_args(Quantization))
def test_the_model_is_smaller_and_says_nearly_the_same(tiny_model: Path, quantize: Quantization) -> None:
    plain, quantized = load(tiny_model, None), load(tiny_model, quantize)
    expected = logits(plain)
    assert float((logits(quantized) - expected).norm() / expected.norm()) < OFF[quantize]

    linear = sum(p.numel() for name, p in plain.model.named_parameters() if "_proj." in name)
    saved = model_bytes(plain.model) - model_bytes(quantized.model)
    assert saved > linear * {"int8": 2.9, "int4": 3.3}[quantize], "of four bytes a weight, scales not counted"
    costs = [measure_cost(one.model, 64, 64, 0).weights for one in (plain, quantized)]
    assert costs[0] - costs[1] == saved


def test_a_checkpoint_that_torchao_has_quantized_is_served_as_it_is(tiny_model: Path, tmp_path: Path) -> None:
    made = load(tiny_model, "int8")
    made.model.save_pretrained(tmp_path)
    made.tokenizer.save_pretrained(tmp_path)

    stored = load(tmp_path, None)

    assert model_bytes(stored.model) == model_bytes(made.model)
    assert torch.equal(logits(stored), logits(made))


@pytest.mark.parametrize("quantize", get_args(Quantization))
async def test_texts_in_a_batch_are_those_alone(tiny_model: Path, quantize: Quantization) -> None:
    engine = TransformersEngine(EngineSettings(model=str(tiny_model), quantize=quantize, max_concurrency=4))
    await asyncio.to_thread(engine.load, lambda _phase: None)
    try:
        tasks = [TextTask("moon" * length, Sampling(temperature=0, max_tokens=12)) for length in (1, 5, 9)]
        alone = [(await (await engine.submit(task)).complete()).text for task in tasks]
        generations = [await engine.submit(task) for task in tasks]
        assert [(await generation.complete()).text for generation in generations] == alone
        assert engine.core.batch.slots == 4
    finally:
        engine.close()
