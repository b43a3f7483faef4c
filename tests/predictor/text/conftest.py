"""Engines around random models of any architecture."""

from __future__ import annotations

import asyncio
import itertools
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from predictor.engine.engine_settings import EngineSettings
from predictor.text.transformers_engine import TransformersEngine

StartEngine = Callable[..., Awaitable[TransformersEngine]]
StartRandom = Callable[..., Awaitable[TransformersEngine]]


@pytest.fixture
async def start_engine(tiny_model: Path) -> AsyncIterator[StartEngine]:
    """Starts engines that do not outlive the test: `start_engine(folder, **settings)`, of the tiny model without a
    folder."""
    started: list[TransformersEngine] = []

    async def start(folder: Path = tiny_model, **settings: Any) -> TransformersEngine:
        engine = TransformersEngine(EngineSettings(model=str(folder), **settings))
        await asyncio.to_thread(engine.load, lambda _phase: None)
        started.append(engine)
        return engine

    yield start
    for engine in started:
        engine.close()


@pytest.fixture
def start_random(tiny_model: Path, tmp_path: Path, start_engine: StartEngine) -> StartRandom:
    """Starts an engine around a model of this architecture: `start_random("Llama", config, **settings)`. It has the
    tokenizer of the tiny model."""
    import torch
    import transformers

    made = itertools.count()

    async def start(architecture: str, config: dict[str, Any], **settings: Any) -> TransformersEngine:
        folder = Path(shutil.copytree(tiny_model, tmp_path / f"model-{next(made)}"))
        common = {
            "vocab_size": 400,
            "hidden_size": 32,
            "initializer_range": 0.3,
            "bos_token_id": 0,
            "eos_token_id": 399,
        }
        torch.manual_seed(0)
        built = getattr(transformers, f"{architecture}Config")(**{**common, "pad_token_id": None, **config})
        transformers.AutoModelForCausalLM.from_config(built).save_pretrained(folder)
        return await start_engine(folder, **settings)

    return start


@pytest.fixture
def written_alone() -> Callable[[TransformersEngine, str, int], str]:
    """What transformers' own `generate` writes after a prompt, greedily, in so many tokens."""
    import torch

    def write(engine: TransformersEngine, prompt: str, tokens: int) -> str:
        checkpoint = engine.core.checkpoint
        ids = torch.tensor([checkpoint.encode(prompt).ids])
        with torch.inference_mode():
            whole = checkpoint.model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=tokens,
                do_sample=False,
                eos_token_id=sorted(checkpoint.end_tokens),
            )
        text: str = checkpoint.tokenizer.decode(whole[0, ids.shape[1] :].tolist(), skip_special_tokens=True)
        return text.rstrip("\N{REPLACEMENT CHARACTER}")

    return write
