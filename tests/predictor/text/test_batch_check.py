"""A model that would say something else in a batch than alone is refused when it is loaded."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
import transformers

from contract.texts.sampling import Sampling
from predictor.engine.tasks import TextTask
from predictor.text.batch_check import why_not_batched
from predictor.text.cache.slot_cache import SlotCache
from predictor.text.single_text_batch import SoloBatch

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
        (
            "Bamba",
            {
                "num_hidden_layers": 2,
                "num_attention_heads": 4,
                "num_key_value_heads": 2,
                "intermediate_size": 48,
                "attn_layer_indices": [1],
                "mamba_n_heads": 8,
                "mamba_d_head": 8,
                "mamba_d_state": 8,
            },
        ),
    ],
)
async def test_what_cannot_be_batched_is_served_one_text_at_a_time(
    start_random: Any, written_alone: Any, architecture: str, config: dict[str, Any]
) -> None:
    engine = await start_random(architecture, config)
    assert isinstance(engine.core.batch, SoloBatch)
    prompts = ["hello moon", "hello sun and moon", "hello"]

    generations = [await engine.submit(TextTask(prompt, Sampling(max_tokens=12, temperature=0))) for prompt in prompts]
    texts = [(await generation.complete()).text for generation in generations]

    assert texts == [written_alone(engine, prompt, 12) for prompt in prompts]


@pytest.mark.parametrize("forgotten", ["the second row", "the half of the long prompt"])
def test_a_row_that_does_not_find_its_keys_where_it_moved_is_found_out(
    monkeypatch: pytest.MonkeyPatch, forgotten: str
) -> None:
    model = build("Llama", intermediate_size=48, num_hidden_layers=2, num_attention_heads=4)
    move = SlotCache.move
    moves: list[int] = []

    def forgetful(self: SlotCache, source: int, target: int, length: int) -> None:
        moves.append(length)
        if len(moves) != (1 if forgotten == "the second row" else 2):
            move(self, source, target, length)

    monkeypatch.setattr(SlotCache, "move", forgetful)

    assert "logits are off by" in (why_not_batched(model) or "")
    assert moves == [4, 6]


def test_a_start_waits_for_nine_small_forwards(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build("Llama", intermediate_size=48, num_hidden_layers=2, num_attention_heads=4)
    forward, forwards = model.forward, []

    def counted(**named: Any) -> Any:
        forwards.append(named["input_ids"].numel())
        return forward(**named)

    counted.__signature__ = inspect.signature(forward)  # type: ignore[attr-defined]
    monkeypatch.setattr(model, "forward", counted)

    assert why_not_batched(model) is None
    assert len(forwards) == 9
    assert sum(forwards) < 60, "tokens"
