"""Architectures with something of their own: each text in a batch is what `generate` writes alone."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from contract.problems import ProblemError
from contract.request import Sampling
from predictor.engine.tasks import TextTask
from predictor.text.checkpoint import load_checkpoint
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


FACTORS = {"short_factor": [1.0, 1.1, 1.2, 1.3], "long_factor": [4.0, 5.0, 6.0, 8.0]}
SCALED: dict[str, tuple[str, dict[str, Any]]] = {
    "longrope": (
        "Phi3",
        LAYERS
        | {"intermediate_size": 48, "max_position_embeddings": 160, "original_max_position_embeddings": 40}
        | {"rope_parameters": {"rope_type": "longrope", "rope_theta": 100.0, **FACTORS}},
    ),
    "dynamic": (
        "Llama",
        LAYERS
        | {"intermediate_size": 48, "max_position_embeddings": 40}
        | {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 100.0, "factor": 4.0}},
    ),
    "dynamic in some layers": (
        "Gemma3Text",
        LAYERS
        | {"intermediate_size": 48, "max_position_embeddings": 40, "sliding_window": 6, "tie_word_embeddings": False}
        | {"layer_types": ["sliding_attention", "full_attention"] * 2}
        | {
            "rope_parameters": {
                "full_attention": {"rope_type": "dynamic", "rope_theta": 100.0, "factor": 4.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
            }
        },
    ),
}
"""Position embeddings that change at 40 tokens, by the longest text of a forward."""


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


@pytest.mark.parametrize("family", SCALED)
async def test_a_short_text_beside_a_long_one_has_its_own_positions(
    start_random: Any, written_alone: Any, caplog: pytest.LogCaptureFixture, family: str
) -> None:
    caplog.set_level("INFO")
    engine = await start_random(*SCALED[family], max_concurrency=3)
    assert engine.core.batch.slots == 3
    trials = [("hello moon", 18), ("moon " * 10, 60), ("world", 12)]

    texts = await asyncio.gather(*(write(engine, *trial) for trial in trials))

    room = [40 - len(engine.core.checkpoint.encode(prompt).ids) for prompt, _ in trials]
    assert texts == [
        written_alone(engine, prompt, min(tokens, left)) for (prompt, tokens), left in zip(trials, room, strict=True)
    ]
    assert len(set(texts)) == 3
    said = [record.message for record in caplog.records if "texts have at most 40 tokens" in record.message]
    assert len(said) == 1
    with pytest.raises(ProblemError, match="a context of 40 is served"):
        await write(engine, "moon " * 50, 3)


@pytest.mark.parametrize("family", SCALED)
async def test_longer_texts_are_served_one_at_a_time_where_they_are_asked_for(
    start_random: Any, written_alone: Any, caplog: pytest.LogCaptureFixture, family: str
) -> None:
    engine = await start_random(*SCALED[family], max_concurrency=3, max_length=120)
    trials = [("hello moon", 18), ("moon " * 50, 30), ("moon " * 43, 20), ("hello sun", 60), ("moon " * 30, 20)]

    texts = [await write(engine, *trial) for trial in trials]

    for text, trial in zip(texts, trials, strict=True):
        written_alone(engine, "hello", 1)  # or transformers goes on with the scaling of the text before
        assert text == written_alone(engine, *trial)
    assert len(set(texts)) == 5
    assert [record.message for record in caplog.records if "one text at a time" in record.message] == [
        f"one text at a time, because {engine.settings.model} cannot be batched: texts of more than 40 tokens change "
        "the positions of all texts beside them (with --max-length 40 they share a batch)"
    ]


@pytest.mark.parametrize("load_format", ["safetensors", "runai_streamer"])
def test_a_model_that_sees_and_hears_is_loaded_for_texts_alone_where_it_lacks_a_package(
    tiny_model: Path, tmp_path: Path, load_format: Any
) -> None:
    """Gemma 3n needs timm for pictures."""
    import transformers
    from safetensors.torch import save_file

    folder = Path(shutil.copytree(tiny_model, tmp_path / "gemma3n"))
    (folder / "model.safetensors").unlink()
    config = {"vocab_size": 400, "hidden_size": 32, "pad_token_id": 2, **FAMILIES["gemma3n"][1]}
    text = transformers.Gemma3nTextConfig(**config | {"tie_word_embeddings": True})
    model = transformers.AutoModelForCausalLM.from_config(text)
    transformers.Gemma3nConfig(text_config=text.to_dict()).save_pretrained(folder)
    tensors = {
        name.replace("model.", "model.language_model.", 1): tensor
        for name, tensor in model.state_dict().items()
        if name != "lm_head.weight"
    }
    save_file(
        tensors | {"model.vision_tower.weight": torch.zeros(1)}, folder / "model.safetensors", metadata={"format": "pt"}
    )

    loaded = load_checkpoint(str(folder), "cpu", "auto", lambda _phase: None, load_format).model

    assert type(loaded) is type(model)
    for (name, tensor), expected in zip(loaded.state_dict().items(), model.state_dict().values(), strict=True):
        assert torch.equal(tensor, expected), name
