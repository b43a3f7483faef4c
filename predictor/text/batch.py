"""The running batch: prompts join and finished texts leave between two tokens."""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from predictor.text.sampler import RowSampling, sample
from predictor.text.slot_cache import SlotCache

PREFILL_TOKENS = 512
"""Most prompt tokens in one forward: the running rows never wait for more than that."""


@dataclass(slots=True, eq=False)
class Row:
    """One text in the batch.

    `tokens` are the prompt and what has been written; the first `cached` of them are in the cache. `write` takes each
    new token and says whether it was the last.
    """

    tokens: list[int]
    sampling: RowSampling
    write: Callable[[int], bool]
    cached: int = 0
    done: bool = False

    @property
    def so_far(self) -> str:
        return f"{len(self.tokens)} tokens"


class Batch:
    """Up to `capacity` rows of at most `length` tokens, over one SlotCache.

    A step that raises has changed nothing but cells that the next one overwrites, so rows may be taken out and the step
    tried again.
    """

    def __init__(self, model: Any, capacity: int, length: int) -> None:
        self.capacity = capacity
        self.length = length
        self.running: list[Row] = []  # in the order of the cache's rows, whole in the cache but for their last token
        self.joining: deque[Row] = deque()  # the first may be in the cache in part, in the row behind the running ones
        self._prefilled_last = False
        self._model = model
        self._device = model.device
        self._eager = model.config._attn_implementation == "eager"
        self._keeps_logits = "logits_to_keep" in inspect.signature(model.forward).parameters
        config = model.config.get_text_config()
        self._kinds = set(getattr(config, "layer_types", None) or ())
        slides = "sliding_attention" in self._kinds if self._kinds else getattr(config, "use_sliding_window", True)
        self._window = getattr(config, "sliding_window", None) if slides else None
        self.cache = SlotCache(config.num_hidden_layers, capacity, length)

    def __len__(self) -> int:
        return len(self.running) + len(self.joining)

    @property
    def computing(self) -> list[Row]:
        return self.running

    def economize(self) -> bool:
        return False

    def join(self, row: Row) -> None:
        row.cached = 0
        self.joining.append(row)

    def remove(self, row: Row) -> None:
        """Take a row out. The last running row moves into its place, and a half-cached one behind that."""
        if row in self.joining:
            self.joining.remove(row)
            return
        at = self.running.index(row)
        last = len(self.running) - 1
        if at < last:
            self.cache.move(last, at, self.running[last].cached)
            self.running[at] = self.running[last]
        self.running.pop()
        if self.joining and self.joining[0].cached:
            self.cache.move(last + 1, last, self.joining[0].cached)

    def step(self) -> list[Row]:
        """One forward: for prompts that wait, else one token for every running row. The rows that are done by it.

        Prompts and tokens take turns, so that neither holds the other up.
        """
        prompts_turn = self.joining and not (self.running and self._prefilled_last)
        touched = self._prefill() if prompts_turn else self._decode()
        return [row for row in touched if row.done]

    def _prefill(self) -> list[Row]:
        self._prefilled_last = True
        rows, start, end = self._next_prompts()
        width = end - start
        ids = torch.zeros(len(rows), width, dtype=torch.long)
        for number, row in enumerate(rows):
            part = row.tokens[start:end]
            ids[number, : len(part)] = torch.tensor(part)  # shorter ones are padded at their end, which none looks at
        self.cache.expect_prompts(len(self.running), len(rows), start)
        lasts = [min(len(row.tokens), end) - start - 1 for row in rows]
        keep = sorted(set(lasts))
        queries = torch.arange(start, end, device=self._device)
        mask = None if start == 0 else self._mask(queries[None, :, None], end)
        logits = self._forward(ids, queries[None].expand(len(rows), -1), mask, keep)
        if len(rows) == 1 and end < len(rows[0].tokens):
            rows[0].cached = end
            return []
        tokens = self.choose(rows, logits[torch.arange(len(rows)), torch.tensor([keep.index(last) for last in lasts])])
        for row in rows:
            self.joining.popleft()
            self.running.append(row)
        return self._write(rows, tokens)

    def _next_prompts(self) -> tuple[list[Row], int, int]:
        """Rows to prefill together, and from which position to which: whole prompts, or a part of one long one."""
        first = self.joining[0]
        if first.cached or len(first.tokens) > PREFILL_TOKENS:
            return [first], first.cached, min(len(first.tokens), first.cached + PREFILL_TOKENS)
        rows: list[Row] = []
        lengths: set[int] = set()
        for row in self.joining:
            wider = lengths | {len(row.tokens)}
            places = (len(rows) + 1) * max(wider)
            logits = (len(rows) + 1) * len(wider)  # every row has them at the last place of each row
            if rows and (places > PREFILL_TOKENS or logits > self.capacity):
                break
            rows.append(row)
            lengths = wider
        return rows, 0, max(lengths)

    def _decode(self) -> list[Row]:
        self._prefilled_last = False
        ids = torch.tensor([[row.tokens[-1]] for row in self.running])
        positions = torch.tensor([row.cached for row in self.running], device=self._device)
        self.cache.expect_tokens(positions)
        mask = self._mask(positions[:, None, None], int(positions.max()) + 1)
        logits = self._forward(ids, positions[:, None], mask, [0])
        rows = list(self.running)
        return self._write(rows, self.choose(rows, logits[:, 0]))

    def _forward(self, ids: torch.Tensor, positions: torch.Tensor, mask: Any, keep: list[int]) -> torch.Tensor:
        """Logits [rows, len(keep), vocabulary] at the places `keep`."""
        kept = torch.tensor(keep, device=self._device)
        extra = {"logits_to_keep": kept} if self._keeps_logits else {}
        with torch.inference_mode():
            logits: torch.Tensor = self._model(
                input_ids=ids.to(self._device),
                position_ids=positions,
                attention_mask=mask,
                past_key_values=self.cache,
                use_cache=True,
                **extra,
            ).logits
        return logits if self._keeps_logits else logits[:, kept]

    def _mask(self, queries: torch.Tensor, length: int) -> Any:
        """What each query position [rows, queries, 1] may attend to, as [rows, 1, queries, length]."""
        keys = torch.arange(length, device=self._device)[None, None]
        full = keys <= queries
        near = full if self._window is None else full & (keys > queries - self._window)
        if not self._kinds:
            return self._form(near)
        return {kind: self._form(near if kind == "sliding_attention" else full) for kind in self._kinds}

    def _form(self, mask: torch.Tensor) -> torch.Tensor:
        mask = mask[:, None]
        if not self._eager:
            return mask
        dtype = self._model.dtype
        return torch.where(mask, 0.0, torch.finfo(dtype).min).to(dtype)

    def choose(self, rows: list[Row], logits: torch.Tensor) -> list[int]:
        """The next token of each row from its logits [rows, vocabulary]."""
        with torch.inference_mode():
            return sample(logits, [row.sampling for row in rows])

    @staticmethod
    def _write(rows: list[Row], tokens: list[int]) -> list[Row]:
        """The first to change anything; the device is done by now."""
        for row, token in zip(rows, tokens, strict=True):
            row.cached = len(row.tokens)
            row.tokens.append(token)
            row.sampling.took(token)
        for row, token in zip(rows, tokens, strict=True):
            row.done = row.write(token)
        return rows
