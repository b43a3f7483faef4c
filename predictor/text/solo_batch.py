"""One text at a time, for architectures that say something else in a batch than alone."""

from __future__ import annotations

from typing import Any

import torch

from predictor.text.batch import Batch, Row


class SoloBatch(Batch):
    """A batch of one, over whatever state the model itself keeps, stepped the way `generate` does it."""

    def __init__(self, model: Any, length: int) -> None:
        super().__init__(model, capacity=1, length=length)
        self._state: dict[str, Any] | None = None  # of the text in hand, and None before its first step

    def remove(self, row: Row) -> None:
        (self.running if row in self.running else self.joining).remove(row)
        self._state = None

    def step(self) -> list[Row]:
        [row] = self.running or self.joining
        try:
            tokens = self.choose([row], self._advance(row))
        except BaseException:
            self._state = None  # it may have taken the token in by half: the next step begins from the text again
            raise
        if self.joining:
            self.running.append(self.joining.popleft())
        return [row for row in self._write([row], tokens) if row.done]

    def _advance(self, row: Row) -> torch.Tensor:
        """Logits [1, vocabulary] of the next token."""
        ids = torch.tensor([row.tokens], device=self._device)
        first = self._state is None
        state = {"attention_mask": torch.ones_like(ids), "use_cache": True} if self._state is None else self._state
        with torch.inference_mode():
            inputs = self._model.prepare_inputs_for_generation(
                ids, next_sequence_length=None if first else 1, is_first_iteration=first, **state
            )
            output = self._model(**inputs, return_dict=True)
            self._state = self._model._update_model_kwargs_for_generation(output, state)
        logits: torch.Tensor = output.logits[:, -1]
        return logits
