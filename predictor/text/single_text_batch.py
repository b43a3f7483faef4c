"""One text at a time, for architectures whose texts differ in a batch."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from transformers.generation.configuration_utils import GenerationConfig

from predictor.text.batch import TextBatch
from predictor.text.row import Decoding, TextRow
from predictor.text.sampling.batch_sampler import Choice


class SoloBatch(TextBatch):
    """A batch of one row, with the state that the model itself keeps, stepped as transformers' `generate` does."""

    def __init__(self, model: Any, length: int, prefill_tokens: int | None = None) -> None:
        super().__init__(model, slots=1, length=length, prefill_tokens=prefill_tokens)
        self._state: dict[str, Any] | None = None  # of the running row; None where it begins from the whole text
        self._ids = torch.empty(1, 0, dtype=torch.long, device=self._device)  # what the state has read
        self._has_read_all = False  # whether that is the whole text
        self.drafts = False
        self._parameters = inspect.signature(model.forward).parameters

    def join(self, row: TextRow) -> None:
        row.scope = None  # no other text can begin with the model's state
        super().join(row)

    def remove(self, row: TextRow) -> None:
        super().remove(row)
        self._forget()

    def _forget(self) -> None:
        super()._forget()
        self._state = None
        self._has_read_all = False

    def _compute(self) -> tuple[list[TextRow], Choice | None]:
        return self._decode() if self._has_read_all else self._prefill()

    def _prefill(self) -> tuple[list[TextRow], Choice | None]:
        [row] = self.running or self.joining
        start = 0 if self._state is None else self._ids.shape[1]
        end = min(len(row.tokens), start + self.prefill_tokens)
        ids = torch.tensor([row.tokens[:end]], device=self._device)
        if end < len(row.tokens):
            self._advance(ids, start, min(len(row.tokens) - end, self.prefill_tokens))
            return [], None
        sampler = self._sampler([row], 0)
        logits = self._advance(ids, start, 1)
        self._has_read_all = True
        return [row], self.choose([row], logits, sampler)

    def _next_logits(self, now: Decoding, longest: int) -> torch.Tensor:
        return self._advance(torch.cat([self._ids, now.tokens[:, None]], 1), self._ids.shape[1], 1)

    def _advance(self, ids: torch.Tensor, start: int, following: int) -> torch.Tensor:
        """Logits [1, vocabulary] of the token after `ids` [1, tokens], of which the state has read those before
        `start`; `following` is how many tokens the next call brings."""
        state = self._new_state(ids) if self._state is None else self._state
        inputs = self._model.prepare_inputs_for_generation(
            ids,
            next_sequence_length=ids.shape[1] - start if start else None,
            is_first_iteration=start == 0,
            **state,
        )
        output = self._model(**inputs, return_dict=True)
        self._ids = ids
        self._state = self._model._update_model_kwargs_for_generation(output, state, num_new_tokens=following)
        logits: torch.Tensor = output.logits[:, -1]
        return logits

    def _new_state(self, ids: torch.Tensor) -> dict[str, Any]:
        """What `generate` begins a text with; `ids` [1, tokens] are the first of it."""
        # Some models keep in themselves what they know of the text before: dynamic rope the scaling, RecurrentGemma its
        # states. A forward of one token without a cache makes them forget it.
        self._model(input_ids=ids[:, :1], use_cache=False)
        state: dict[str, Any] = {"attention_mask": torch.ones_like(ids), "use_cache": True}
        if "position_ids" in self._parameters:
            state["position_ids"] = torch.arange(ids.shape[1], device=self._device)[None]
        if "logits_to_keep" in self._parameters:
            state["logits_to_keep"] = 1
        # A model that has to make its own cache may not return it, or count its positions by an empty layer.
        self._model._prepare_cache_for_generation(
            GenerationConfig(), state, generation_mode=None, batch_size=1, max_cache_length=self.length
        )
        return state
