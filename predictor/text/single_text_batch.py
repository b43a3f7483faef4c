"""One text at a time, for architectures whose texts differ in a batch."""

from __future__ import annotations

from typing import Any

import torch

from predictor.text.batch import Decoding, TextBatch, TextRow
from predictor.text.rope_scaling import unscaled_length
from predictor.text.sampler import Choice


class SoloBatch(TextBatch):
    """A batch of one row, with the state that the model itself keeps, stepped as transformers' `generate` does."""

    def __init__(self, model: Any, length: int) -> None:
        super().__init__(model, slots=1, length=length)
        self._state: dict[str, Any] | None = None  # of the running row; None where it begins from the whole text
        self._ids = torch.empty(1, 0, dtype=torch.long, device=self._device)  # what the state has read
        self._scales = unscaled_length(model.config.get_text_config()) is not None

    def _forget(self) -> None:
        super()._forget()
        self._state = None

    def _compute(self) -> tuple[list[TextRow], Choice | None]:
        return self._prefill() if self._state is None else self._decode()

    def _forget_scaling(self) -> None:
        """Dynamic scaling stays as it was for the longest text, until a forward of a short one."""
        self._model(input_ids=torch.zeros(1, 1, dtype=torch.long, device=self._device), use_cache=False)

    def _prefill(self) -> tuple[list[TextRow], Choice | None]:
        [row] = self.running or self.joining
        if self._scales:
            self._forget_scaling()
        sampler = self._sampler([row], 0)
        ids = torch.tensor([row.tokens], device=self._device)
        logits = self._advance(ids, {"attention_mask": torch.ones_like(ids), "use_cache": True}, is_first=True)
        return [row], self.choose([row], logits, sampler)

    def _next_logits(self, now: Decoding, longest: int) -> torch.Tensor:
        assert self._state is not None
        return self._advance(torch.cat([self._ids, now.tokens[:, None]], 1), self._state, is_first=False)

    def _advance(self, ids: torch.Tensor, state: dict[str, Any], *, is_first: bool) -> torch.Tensor:
        """Logits [1, vocabulary] of the token after `ids` [1, tokens], all of the text."""
        inputs = self._model.prepare_inputs_for_generation(
            ids, next_sequence_length=None if is_first else 1, is_first_iteration=is_first, **state
        )
        output = self._model(**inputs, return_dict=True)
        self._ids = ids
        self._state = self._model._update_model_kwargs_for_generation(output, state)
        logits: torch.Tensor = output.logits[:, -1]
        return logits
