"""A text while it arrives."""

from __future__ import annotations

import time
import uuid
from typing import TYPE_CHECKING

from contract import FinishReason, ResultEvent, Timing, Usage
from web.failures import bad_answer

if TYPE_CHECKING:
    from web.chunks import Chunk, ChunkUsage

# Anything else (content_filter, tool_calls, abort) leaves a text that is not whole, which a result promises to be.
_FINISH_REASONS: dict[str, FinishReason] = {"stop": "stop", "length": "length"}


class Draft:
    """Collects chunks, and knows when they make a result."""

    def __init__(self, url: str, model: str, arrived: float) -> None:
        self._url = url
        self._model = model
        self._arrived = arrived
        self._pieces: list[str] = []
        self._finish_reason: str | None = None
        self._first_token_s: float | None = None
        self._total_s = 0.0
        self._usage: ChunkUsage | None = None
        self._queue_s: float | None = None

    def add(self, chunk: Chunk) -> str:
        """The text that this chunk adds, often none."""
        if chunk.usage is not None:
            self._usage = chunk.usage
        if chunk.timing is not None:
            self._queue_s = chunk.timing.queue_s
        if not chunk.choices:
            return ""
        [choice, *_] = chunk.choices
        piece = choice.delta.content or ""
        self._finish_reason = choice.finish_reason or self._finish_reason
        if piece or choice.finish_reason:
            self._total_s = self._elapsed()
        if piece:
            self._pieces.append(piece)
            if self._first_token_s is None:
                self._first_token_s = self._total_s
        return piece

    def result(self) -> ResultEvent:
        """The whole text, or a BAD_UPSTREAM problem if the stream ended without making it one."""
        if self._finish_reason is None:
            raise bad_answer(self._url, "it ends before the text does")
        if self._finish_reason not in _FINISH_REASONS:
            raise bad_answer(self._url, f"finish_reason {self._finish_reason!r}")
        if self._usage is None:
            raise bad_answer(self._url, "it ends without the usage that was asked for")
        return ResultEvent(
            id=uuid.uuid4().hex,
            model=self._model,
            text="".join(self._pieces),
            finish_reason=_FINISH_REASONS[self._finish_reason],
            usage=Usage(
                prompt_tokens=self._usage.prompt_tokens,
                completion_tokens=self._usage.completion_tokens,
            ),
            timing=Timing(
                queue_s=None if self._queue_s is None else round(self._queue_s, 4),
                # A text may be empty: the model said stop at once.
                first_token_s=self._total_s if self._first_token_s is None else self._first_token_s,
                total_s=self._total_s,
            ),
        )

    def _elapsed(self) -> float:
        return round(time.perf_counter() - self._arrived, 4)
