"""Which prompts share a forward, and what of their logits is computed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from predictor.text.batch import TextBatch
from predictor.text.prefill import logits_at, prompts_together, short_prompts_together
from predictor.text.row import TextRow
from predictor.text.sampling.row_sampling import RowSampling

SIZES: dict[str, Any] = {
    "vocab_size": 60,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "initializer_range": 0.3,
    "pad_token_id": None,
}


@pytest.mark.parametrize(
    ("lengths", "most", "chosen"),
    [
        ([9], 512, [0]),
        ([900], 512, [0]),
        ([30] * 16, 512, list(range(16))),
        ([12, 15, 9, 14], 512, [0, 3, 1, 2]),  # the nearest first
        ([100] * 6, 512, [0, 1, 2, 3, 4]),
        ([100, 300, 110, 290, 95], 512, [0, 4, 2]),
        ([10, 200], 512, [0]),  # 190 of 400 positions would be padding
        ([2, 20], 512, [0, 1]),  # 18 are, but a forward has that cost anyway
        ([400, 1], 512, [0]),
    ],
)
def test_prompts_share_a_forward_where_little_is_padding(lengths: list[int], most: int, chosen: list[int]) -> None:
    assert prompts_together(lengths, most) == chosen


@pytest.mark.parametrize(
    ("lengths", "longest", "chosen", "width"),
    [
        ([9], 512, [0], 32),
        ([32, 33, 1, 64], 512, [0, 2], 32),
        ([33, 64, 32], 512, [0, 1], 64),
        ([20] * 16, 512, list(range(8)), 32),  # no more than are multiplied in parts
        ([100, 128, 97], 512, [0, 1], 128),
        ([129, 129], 512, [0], 129),
        ([40, 41], 60, [0], 40),  # a model may know no further positions
    ],
)
def test_short_prompts_of_about_the_same_length_share_a_forward_of_coarse_numbers(
    lengths: list[int], longest: int, chosen: list[int], width: int
) -> None:
    assert short_prompts_together(lengths, longest) == (chosen, width)


def build(architecture: str, **changes: Any) -> Any:
    import transformers

    torch.manual_seed(0)
    config = getattr(transformers, f"{architecture}Config")(**SIZES | changes)
    return transformers.AutoModelForCausalLM.from_config(config).eval()


def headless() -> Any:
    """A model that does not say which its head is."""
    model = build("Llama")
    model.get_output_embeddings = lambda: None
    return model


MODELS: dict[str, Callable[[], Any]] = {
    "plain": lambda: build("Llama"),
    "tied": lambda: build("Llama", tie_word_embeddings=True),
    "capped": lambda: build("Gemma2", final_logit_softcapping=0.7),
    "divided": lambda: build("Granite", logits_scaling=8.0),
    "multiplied": lambda: build("Cohere", logit_scale=3.0),
    "headless": headless,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_logits_of_one_place_of_each_row_are_those_that_the_model_has_there(name: str) -> None:
    model = MODELS[name]()
    ids = torch.arange(21).view(3, 7)
    places = torch.tensor([6, 2, 0])
    with torch.inference_mode():
        everywhere = model(input_ids=ids).logits
        own = logits_at(places, model, input_ids=ids)
        after = model(input_ids=ids).logits

    torch.testing.assert_close(own, everywhere[torch.arange(3), places])
    assert after.shape == everywhere.shape, "other forwards have all their logits"


class Recorded(TextBatch):
    """Records the token ids of each forward, and what its head is given."""

    def __init__(self, slots: int = 16, length: int = 100, prefill_tokens: int | None = None) -> None:
        model = build("Llama")
        super().__init__(model, slots, length, prefill_tokens)
        self.forwards: list[tuple[int, ...]] = []
        self.heads: list[tuple[int, ...]] = []
        model.lm_head.register_forward_hook(lambda _head, given, _made: self.heads.append(tuple(given[0].shape)))

    def _inputs(self, ids: torch.Tensor, positions: torch.Tensor, mask: Any) -> dict[str, Any]:
        self.forwards.append(tuple(ids.shape))
        return super()._inputs(ids, positions, mask)

    def add(self, *lengths: int) -> list[TextRow]:
        rows = [TextRow([1] * length, RowSampling.greedy(), lambda _: False) for length in lengths]
        for row in rows:
            self.join(row)
        return rows


@pytest.mark.slow
def test_a_burst_of_unequal_prompts_is_one_forward_with_logits_for_each_of_them_alone() -> None:
    batch = Recorded()
    rows = batch.add(*range(16, 32))
    batch.step()

    assert batch.forwards == [(16, 31)]
    assert batch.heads == [(16, 1, 32)]
    assert sorted(batch.running, key=rows.index) == rows
    assert [len(row.tokens) for row in rows] == list(range(17, 33))


@pytest.mark.slow
def test_small_forwards_of_prompts_follow_each_other_up_to_what_running_rows_may_wait_for() -> None:
    batch = Recorded(prefill_tokens=64)
    batch.add(20)
    batch.step()
    batch.add(4, 4, 38, 38, 4)
    for _ in range(5):
        batch.step()

    # 20 and 12 positions, then 38 would be 70; and after a token 38, and a token, because 76 are more than 64.
    assert batch.forwards == [(1, 20), (3, 4), (4, 1), (1, 38), (5, 1), (1, 38)]


@pytest.mark.slow
def test_a_prompt_in_parts_is_read_to_its_end_beside_shorter_ones() -> None:
    batch = Recorded(prefill_tokens=16)
    long, short = batch.add(40, 5)
    for _ in range(6):
        batch.step()

    assert batch.forwards == [(1, 16), (1, 16), (1, 8), (1, 1), (1, 5), (2, 1)]
    assert batch.heads[:3] == 3 * [(1, 1, 32)]
    assert batch.running == [long, short]
