"""A text while it arrives."""

from __future__ import annotations

from collections.abc import Iterable

from contract import FinishReason, ResultEvent, Timing, TokenEvent, Usage
from web.client.failures import bad_answer
from web.rest.result_builder import ResultBuilder
from web.rest.text_stream import Chunk, ChunkUsage

# Anything else (content_filter, tool_calls, abort) leaves a text that is not whole, which a result promises to be.
_FINISH_REASONS: dict[str, FinishReason] = {"stop": "stop", "length": "length"}


class TextResultBuilder(ResultBuilder[Chunk]):
    """Collects chunks."""

    def __init__(self, url: str, model: str, result_id: str, arrived: float) -> None:
        super().__init__(url, model, result_id, arrived)
        self._pieces: list[str] = []
        self._finish_reason: str | None = None
        self._first_token_s: float | None = None
        self._total_s = 0.0
        self._usage: ChunkUsage | None = None

    def add(self, event: Chunk) -> Iterable[TokenEvent]:
        """The text that this chunk adds, often none."""
        if event.usage is not None:
            self._usage = event.usage
        if event.timing is not None:
            self._queue_s = event.timing.queue_s
        if not event.choices:
            return ()
        [choice, *_] = event.choices
        piece = choice.delta.content or ""
        self._finish_reason = choice.finish_reason or self._finish_reason
        if piece or choice.finish_reason:
            self._total_s = self._elapsed()
        if not piece:
            return ()
        self._pieces.append(piece)
        if self._first_token_s is None:
            self._first_token_s = self._total_s
        return (TokenEvent(text=piece),)

    def result(self) -> ResultEvent:
        if self._finish_reason is None:
            raise bad_answer(self._url, "it ends before the text does")
        if self._finish_reason not in _FINISH_REASONS:
            raise bad_answer(self._url, f"finish_reason {self._finish_reason!r}")
        if self._usage is None:
            raise bad_answer(self._url, "it ends without the usage that was asked for")
        return ResultEvent(
            id=self._id,
            model=self._model,
            text="".join(self._pieces),
            finish_reason=_FINISH_REASONS[self._finish_reason],
            usage=Usage(
                prompt_tokens=self._usage.prompt_tokens,
                completion_tokens=self._usage.completion_tokens,
            ),
            timing=Timing(
                queue_s=self._waited,
                # A text may be empty: the model said stop at once.
                first_token_s=self._total_s if self._first_token_s is None else self._first_token_s,
                total_s=self._total_s,
            ),
        )
