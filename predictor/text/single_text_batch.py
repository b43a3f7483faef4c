"""One text at a time, for architectures whose texts differ in a batch."""

from __future__ import annotations

from typing import Any

import torch

from predictor.text.batch import TextBatch, TextRow
from predictor.text.rope_scaling import unscaled_length


class SoloBatch(TextBatch):
    """A batch of one row, with the state that the model itself keeps, stepped as transformers' `generate` does."""

    def __init__(self, model: Any, length: int) -> None:
        super().__init__(model, slots=1, length=length)
        self._state: dict[str, Any] | None = None  # of the running row; None before its first step

        self._scales = unscaled_length(model.config.get_text_config()) is not None

    def remove(self, row: TextRow) -> None:
        (self.running if row in self.running else self.joining).remove(row)
        self._state = None

    def step(self) -> list[TextRow]:
        [row] = self.running or self.joining
        try:
            tokens = self.choose([row], self._advance(row))
        except BaseException:
            self._state = None  # it may be half updated, so the next step begins from the whole text
            raise
        if self.joining:
            self.running.append(self.joining.popleft())
        return [row for row in self._write([row], tokens) if row.done]

    def _forget_scaling(self) -> None:
        """Dynamic scaling stays as it was for the longest text, until a forward of a short one."""
        with torch.inference_mode():
            self._model(input_ids=torch.zeros(1, 1, dtype=torch.long, device=self._device), use_cache=False)

    def _advance(self, row: TextRow) -> torch.Tensor:
        """Logits [1, vocabulary] of the next token."""
        ids = torch.tensor([row.tokens], device=self._device)
        first = self._state is None
        if first and self._scales:
            self._forget_scaling()
        state = {"attention_mask": torch.ones_like(ids), "use_cache": True} if self._state is None else self._state
        with torch.inference_mode():
            inputs = self._model.prepare_inputs_for_generation(
                ids, next_sequence_length=None if first else 1, is_first_iteration=first, **state
            )
            output = self._model(**inputs, return_dict=True)
            self._state = self._model._update_model_kwargs_for_generation(output, state)
        logits: torch.Tensor = output.logits[:, -1]
        return logits
