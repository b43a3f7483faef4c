"""A model that would say something else in a batch than alone is refused when it is loaded."""

from __future__ import annotations

import asyncio
import inspect
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from contract.request import Sampling
from predictor.engine.engine_settings import EngineSettings
from predictor.engine.tasks import TextTask
from predictor.text.batch_check import why_not_batched
from predictor.text.transformers_engine import TransformersEngine

pytestmark = pytest.mark.slow


def build(architecture: str, **config: Any) -> Any:
    torch.manual_seed(0)
    built = getattr(transformers, f"{architecture}Config")(
        vocab_size=60, hidden_size=32, initializer_range=0.3, **config
    )
    return transformers.AutoModelForCausalLM.from_config(built).eval()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_model_that_attends_by_position_passes_in_any_type(dtype: Any) -> None:
    model = build("Llama", intermediate_size=48, num_hidden_layers=2, num_attention_heads=4)

    assert why_not_batched(model.to(dtype)) is None


def test_a_model_with_its_bias_from_a_padding_mask_is_found_out() -> None:
    assert why_not_batched(build("Bloom", n_layer=2, n_head=4))


@pytest.mark.parametrize(
    ("architecture", "config", "kind"),
    [
        ("Mamba", {"num_hidden_layers": 2}, "linear_attention"),
        ("Lfm2", {"num_hidden_layers": 2, "num_attention_heads": 4, "layer_types": ["conv", "conv"]}, "conv"),
    ],
)
def test_layers_without_keys_and_values_are_found_out_by_name(
    architecture: str, config: dict[str, Any], kind: str
) -> None:
    assert why_not_batched(build(architecture, **config)) == f"it has layers of other kinds: {kind}"


def test_a_model_that_goes_by_something_else_than_its_positions_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build("Llama", intermediate_size=48, num_hidden_layers=2, num_attention_heads=4)
    forward = model.forward

    def countless(*, position_ids: Any = None, **named: Any) -> Any:
        return forward(position_ids=None if position_ids is None else torch.zeros_like(position_ids), **named)

    countless.__signature__ = inspect.signature(forward)  # type: ignore[attr-defined]
    monkeypatch.setattr(model, "forward", countless)

    assert "logits are off by" in (why_not_batched(model) or "")


@pytest.mark.parametrize(
    ("architecture", "config"),
    [
        ("Bloom", {"n_layer": 2, "n_head": 4}),
        ("Mamba", {"num_hidden_layers": 2}),
        (
            "Lfm2",
            {
                "num_hidden_layers": 2,
                "num_attention_heads": 4,
                "num_key_value_heads": 2,
                "layer_types": ["conv", "full_attention"],
            },
        ),
    ],
)
async def test_what_cannot_be_batched_is_served_one_text_at_a_time(
    tiny_model: Path, tmp_path: Path, architecture: str, config: dict[str, Any]
) -> None:
    folder = Path(shutil.copytree(tiny_model, tmp_path / "solo"))
    torch.manual_seed(0)
    built = getattr(transformers, f"{architecture}Config")(
        vocab_size=400, hidden_size=32, initializer_range=0.3, eos_token_id=399, **config
    )
    model = transformers.AutoModelForCausalLM.from_config(built).eval()
    model.save_pretrained(folder)
    engine = TransformersEngine(EngineSettings(model=str(folder)))
    await asyncio.to_thread(engine.load, lambda _phase: None)
    sampling = Sampling(max_tokens=12, temperature=0)
    prompts = ["hello moon", "hello sun and moon", "hello"]

    generations = [await engine.submit(TextTask(prompt, sampling)) for prompt in prompts]
    texts = [(await generation.complete()).text for generation in generations]

    for prompt, text in zip(prompts, texts, strict=True):
        ids = torch.tensor([engine.core.checkpoint.encode(prompt)])
        with torch.inference_mode():
            whole = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False)
        written = whole[0, ids.shape[1] :].tolist()
        assert text == engine.core.checkpoint.tokenizer.decode(written, skip_special_tokens=True).rstrip(
            "\N{REPLACEMENT CHARACTER}"
        )
    engine.close()
