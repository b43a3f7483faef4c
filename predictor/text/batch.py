"""The running batch of texts: prompts join and finished texts leave between two tokens."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch

from predictor.engine.batch import Batch
from predictor.text.cache.prefix_cache import PrefixCache
from predictor.text.cache.slot_cache import AttentionMasks, SlotCache
from predictor.text.prefill import logits_at, most_prefill_tokens, prompts_together, rounded_up, short_prompts_together
from predictor.text.row import Decoding, TextRow
from predictor.text.sampling.batch_sampler import BatchSampler, Choice
from predictor.text.sampling.log_probabilities import TokenLikelihood
from predictor.text.sampling.penalties import Penalties

KEY_STEP = 64
"""On a CPU a token attends to a multiple of so many keys, the last of them masked. Attention rounds otherwise with few
keys, and with a number that fills no vector: a text would depend on the lengths beside it."""

MOST_COPIED_KEYS = 4096
"""Keys of a row that is checked as several ones, all together: each of these reads the row's keys by itself."""


class TextBatch(Batch):
    """Up to `slots` rows of at most `length` tokens, over one SlotCache; prompts come in parts of `prefill_tokens`.

    While the same rows run, a step copies their random numbers to the device and the chosen tokens from it, and nothing
    else. On a GPU the text of a token is written while the next one is computed. A step that raises has changed only
    cells that the next one overwrites, so rows may be removed and the step tried again.

    A row that runs alone gets several tokens of a step where its text repeats something: see PromptLookup.
    """

    def __init__(self, model: Any, slots: int, length: int, prefill_tokens: int | None = None) -> None:
        self.slots = slots
        self.length = length
        self.prefill_tokens = prefill_tokens or most_prefill_tokens(model.device)
        # In the order of the cache's rows. All of their tokens but the last are in the cache.
        self.running: list[TextRow] = []
        # Part of the first one may be in the cache, in the row after the running ones.
        self.joining: deque[TextRow] = deque()
        self._prefilled = 0  # positions of prompts since the last token of the running rows
        self.decode_model = model  # or a compiled one, for a token of each running row
        self._model = model
        self._device = model.device
        self._masks = AttentionMasks(model)
        on_cpu = self._device.type == "cpu"
        # Only without a mask may a GPU take flash attention. On a CPU that gains nothing, and grouped heads would take
        # another kernel, slower and of other rounding: a text would depend on the lengths beside it.
        self.always_masks = on_cpu
        self.cache = SlotCache(model.config.get_text_config().num_hidden_layers, slots, length)
        self._prefixes = PrefixCache(self.cache)
        self._decoding: Decoding | None = None  # None when it must be made from the rows
        self._penalties = Penalties(slots, length, self._device)
        # A CPU computes a step before it returns: to write later would only be later.
        self.defers_texts = not on_cpu
        # Not on a GPU, where it has not been measured, and where a step of one token is compiled and needs no mask.
        self.drafts = on_cpu
        # Where numbers are short, another kernel's rounding changes texts.
        self._is_coarse = on_cpu and model.dtype != torch.float32
        self._draft: list[int] = []  # what this step expects
        self._unwritten: list[TextRow] = []  # rows that run on, with the text of their last token to be written

    def __len__(self) -> int:
        return len(self.running) + len(self.joining)

    @property
    def computing(self) -> list[TextRow]:
        return self.running

    def join(self, row: TextRow) -> None:
        row.cached = 0
        self.joining.append(row)

    def remove(self, row: TextRow) -> None:
        """The last running row moves to its place in the cache, and one that is cached in part moves after that. What
        others may begin with is kept after all of them."""
        kept = 0 if row.scope is None or row.failure is not None else row.cached
        if row in self.joining:
            self.joining.remove(row)
            self._prefixes.keep(len(self.running), row.scope, row.tokens[:kept])
        elif row in self.running:
            unused = self._close_gap(row, kept)
            self._prefixes.keep(unused, row.scope, row.tokens[:kept])

    def _close_gap(self, row: TextRow, kept: int) -> int:
        """Take a row out of the running ones; the row of the cache that no text needs then, with its `kept` tokens."""
        self._forget()
        if row in self._unwritten:
            self._unwritten.remove(row)
        at = self.running.index(row)
        last = len(self.running) - 1
        if at < last:
            self.cache.replace(at, last, self.running[last].cached, kept)
            self._penalties.move(last, at)
            self.running[at] = self.running[last]
        self.running.pop()
        if not (self.joining and self.joining[0].cached):
            return last
        self.cache.replace(last, last + 1, self.joining[0].cached, kept)
        return last + 1

    def suspend(self, row: TextRow) -> None:
        self._write_texts()  # it will not say its last token again
        self.remove(row)

    def _forget(self) -> None:
        """Make the device's part of the running rows anew: they are others, or it may be half changed."""
        self._decoding = None
        self._draft = []

    def step(self) -> list[TextRow]:
        """One forward, of prompts that wait or of one token for every running row; the rows that have ended by now."""
        try:
            with torch.inference_mode():
                rows, choice = self._compute()
                self._write_texts()  # of the step before: the device computes meanwhile
                tokens = choice.read() if choice is not None else []
                likelihoods = choice.read_likelihoods() if choice is not None else {}
        except Exception:
            self._forget()
            self._write_texts()
            if ended := self._ended():
                return ended  # the step is tried again without them
            raise
        self._take(rows, tokens, likelihoods)
        return self._ended()

    def _ended(self) -> list[TextRow]:
        """The last ones first: where several end together, none of them takes the place of another."""
        return [row for row in (*reversed(self.joining), *reversed(self.running)) if row.ended]

    def _compute(self) -> tuple[list[TextRow], Choice | None]:
        """The forward of a step: the rows that get a token, and the choice of their tokens.

        Prompts come first, but running rows do not wait for more than `prefill_tokens` of them.
        """
        if self.joining:
            rows, start, end = self._next_prompts()
            positions = len(rows) * (end - start)
            if not self.running or not self._prefilled or self._prefilled + positions <= self.prefill_tokens:
                self._prefilled += positions
                return self._prefill_rows(rows, start, end)
        self._prefilled = 0
        self._draft = self._find_draft()
        return self._check_draft(self.running[0]) if self._draft else self._decode()

    def _next_prompts(self) -> tuple[list[TextRow], int, int]:
        """Rows to prefill together, and the first position and the end: whole prompts, or a part of a long one."""
        first = self.joining[0]
        if not first.cached:
            first.cached = self._prefixes.reuse(first.scope, first.tokens, len(self.running))
            first.note_reuse(first.cached)
        if first.cached or len(first.tokens) > self.prefill_tokens:
            return [first], first.cached, min(len(first.tokens), first.cached + self.prefill_tokens)
        rows = [row for row in self.joining if row is first or not self._prefixes.holds(row.scope, row.tokens)]
        lengths = [len(row.tokens) for row in rows]
        if self._is_coarse:
            chosen, width = short_prompts_together(lengths, self.length)
            return [rows[index] for index in chosen], 0, width
        chosen = prompts_together(lengths, self.prefill_tokens)
        return [rows[index] for index in chosen], 0, max(lengths[index] for index in chosen)

    def _prefill_rows(self, rows: list[TextRow], start: int, end: int) -> tuple[list[TextRow], Choice | None]:
        # All that goes to the device goes before the forward: a copy would wait for it.
        parts = [row.tokens[start:end] for row in rows]
        padded = [part + [0] * (end - start - len(part)) for part in parts]  # at the end, which nothing attends to
        ids = torch.tensor(padded, device=self._device)
        lasts = torch.tensor([len(part) - 1 for part in parts], device=self._device)
        sampler = self._sampler(rows, len(self.running))
        self._prefixes.make_room(len(self.running), len(rows))
        self.cache.expect_prompts(len(self.running), len(rows), start)
        queries = torch.arange(start, end, device=self._device)
        mask = None if start == 0 else self._masks.make(queries[None, :, None], end)
        logits = logits_at(lasts, self._model, **self._inputs(ids, queries[None].expand(len(rows), -1), mask))
        if end < len(rows[0].tokens):
            rows[0].cached = end
            return [], None
        return rows, self.choose(rows, logits, sampler)

    def _decode(self) -> tuple[list[TextRow], Choice]:
        rows = list(self.running)
        now = self._decoding = self._decoding or Decoding.of(rows, self._device)
        now.sampler.draw()
        self._penalties.append(now.tokens, now.positions, now.sampler)
        longest = 1 + max(row.cached for row in rows)
        choice = self.choose(rows, self._next_logits(now, self._whole_steps(longest)), now.sampler)
        now.tokens, now.positions = choice.tokens, now.positions + 1
        return rows, choice

    def _next_logits(self, now: Decoding, longest: int) -> torch.Tensor:
        """Logits [rows, vocabulary] of the tokens after the last ones of the running rows, by their first `longest`
        keys."""
        self.cache.expect_tokens(now.positions, longest)
        needs_mask = self.always_masks or any(row.cached + 1 < longest for row in self.running)
        mask = self._masks.make(now.positions[:, None, None], longest) if needs_mask else None
        inputs = self._inputs(now.tokens[:, None], now.positions[:, None], mask)
        logits: torch.Tensor = self.decode_model(**inputs).logits[:, 0]
        return logits

    def _whole_steps(self, keys: int) -> int:
        """As many keys and those that are masked, but none beyond the longest text: a model may have no place there."""
        return min(rounded_up(keys, KEY_STEP), self.length) if self.always_masks else keys

    def _find_draft(self) -> list[int]:
        """What may follow where a row runs alone. Penalties and constraints depend on every token before."""
        if not self.drafts or len(self.running) != 1:
            return []
        [row] = self.running
        if row.ended or row.sampling.depends_on_text:
            return []
        most = self.length - len(row.tokens) - 1
        if self._is_coarse:
            most = min(most, MOST_COPIED_KEYS // len(row.tokens) - 1)
        return row.lookup.draft(row.tokens, most)

    def _check_draft(self, row: TextRow) -> tuple[list[TextRow], Choice]:
        """The row once for each token that it may get: the one after its last token, and after each of the draft."""
        tokens = [row.tokens[-1], *self._draft]
        start, end = row.cached, row.cached + len(tokens)
        ids = torch.tensor([tokens], device=self._device)
        positions = torch.arange(start, end, device=self._device)[None]
        sampler = BatchSampler([row.sampling] * len(tokens), self._device)
        sampler.draw(row.sampling.draws(len(tokens)))
        if self._is_coarse:  # as rows of one token, which attention rounds as it does without a draft
            end = self._whole_steps(end)
            ids, positions = ids.T, positions.T
            self.cache.expect_copies(positions[:, 0], end)
        else:
            self.cache.expect_prompts(0, 1, start)
        mask = self._masks.make(positions[..., None], end)
        logits = self._model(**self._inputs(ids, positions, mask)).logits.flatten(0, 1)
        rows = [row] * len(tokens)
        return rows, self.choose(rows, logits, sampler)

    def _sampler(self, rows: list[TextRow], first: int) -> BatchSampler:
        """For rows that join as the running ones from number `first` on."""
        sampler = BatchSampler([row.sampling for row in rows], self._device)
        sampler.draw()
        self._penalties.begin(rows, first, sampler)
        return sampler

    def _inputs(self, ids: torch.Tensor, positions: torch.Tensor, mask: Any) -> dict[str, Any]:
        """Of the model, for token ids and their positions, both [rows, tokens]."""
        return {
            "input_ids": ids,
            "position_ids": positions,
            "attention_mask": mask,
            "past_key_values": self.cache,
            "use_cache": True,
        }

    def choose(self, rows: list[TextRow], logits: torch.Tensor, sampler: BatchSampler) -> Choice:
        """The next token of each row from its logits [rows, vocabulary], which may be changed."""
        logits = logits.float()
        log_probabilities = sampler.log_probabilities(logits)
        if sampler.looks_back:
            first = 0 if rows[0] in self.running else len(self.running)
            self._penalties.apply(logits, first, max(len(row.tokens) for row in rows), sampler)
        return sampler.choose(logits, [rows[number].mask() for number in sampler.constrained], log_probabilities)

    def _take(
        self, rows: list[TextRow], tokens: list[int], likelihoods: Mapping[int, TokenLikelihood] = MappingProxyType({})
    ) -> None:
        """Append the new tokens. Nothing was changed before this, and the device cannot fail after it."""
        if self.joining and rows and rows[0] in self.joining:
            for row in rows:
                self.joining.remove(row)
            self.running += rows
            self._decoding = None
        if self._draft:
            tokens = tokens[: 1 + rows[0].lookup.note(self._draft, tokens)]
            self._forget()
        for number, (row, token) in enumerate(zip(rows, tokens, strict=False)):
            if self._unwritten[-1:] == [row]:
                self._write_texts()  # its token before this one, of a draft
            if row.ended:  # its text turned out to be over while this token was computed
                continue
            row.take(token, likelihoods.get(number))
            self._unwritten.append(row)
        self._write_texts(defers=self.defers_texts)

    def _write_texts(self, *, defers: bool = False) -> None:
        """Write the last tokens of rows; with `defers` only of those that end with it, as far as is known."""
        rows, self._unwritten = self._unwritten, []
        for row in rows:
            if defers and not row.ended and len(row.tokens) < self.length and not row.is_last(row.tokens[-1]):
                self._unwritten.append(row)
                continue
            row.write_last()
