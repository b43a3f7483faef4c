"""Making a text of its stream."""

from __future__ import annotations

from collections.abc import Iterable

from contract import FinishReason, ReasoningEvent, ResultEvent, Timing, TokenEvent, Usage
from contract.texts.logprobs import TokenLogprob
from web.client.failures import bad_answer, cut_off, kept_back
from web.rest.rest_request import RestRequest
from web.rest.result_builder import ResultBuilder
from web.rest.text_stream import Chunk, ChunkUsage

# With any other (tool_calls, abort) the text is not whole, as a result promises.
_FINISH_REASONS: dict[str, FinishReason] = {"stop": "stop", "length": "length"}


class TextResultBuilder(ResultBuilder[Chunk]):
    """See ResultBuilder."""

    def __init__(self, url: str, rest_request: RestRequest) -> None:
        super().__init__(url, rest_request)
        self._pieces: list[str] = []
        self._reasoning: list[str] = []
        self._logprobs: list[TokenLogprob] | None = None
        self._finish_reason: str | None = None
        self._first_token_s: float | None = None
        self._total_s = 0.0
        self._usage: ChunkUsage | None = None

    def again(self) -> None:
        super().again()
        self._pieces, self._reasoning = [], []
        self._finish_reason = self._usage = self._logprobs = None

    def add(self, event: Chunk) -> Iterable[ReasoningEvent | TokenEvent]:
        self.fingerprint = event.system_fingerprint or self.fingerprint
        if event.usage is not None:
            self._usage = event.usage
        if event.timing is not None:
            self._queue_s = event.timing.queue_s
        if not event.choices:
            return ()
        [choice, *_] = event.choices
        piece = choice.delta.content or choice.text or ""
        logprobs = choice.logprobs.told if choice.logprobs else None
        reasoning = choice.delta.reasoning_content or choice.delta.reasoning or ""
        self._finish_reason = choice.finish_reason or self._finish_reason
        if piece or reasoning or choice.finish_reason:
            self._total_s = self._elapsed()
        if self._first_token_s is None and (piece or reasoning):
            self._first_token_s = self._total_s
        events: list[ReasoningEvent | TokenEvent] = []
        if reasoning:
            self._reasoning.append(reasoning)
            events.append(ReasoningEvent(text=reasoning))
        if logprobs is not None:
            self._logprobs = self._logprobs or []
            self._logprobs += logprobs
        if piece or logprobs:
            self._pieces.append(piece)
            events.append(TokenEvent(text=piece, logprobs=logprobs))
        return events

    def result(self) -> ResultEvent:
        if self._finish_reason is None:
            raise cut_off(self._url, "it ends before the text does")
        if self._finish_reason == "content_filter":
            raise kept_back(self._url)
        if self._finish_reason not in _FINISH_REASONS:
            raise bad_answer(self._url, "its finish_reason is unknown", str(self._finish_reason))
        if self._usage is None:
            raise cut_off(self._url, "it ends without the usage that was asked for")
        return ResultEvent(
            id=self._id,
            model=self._model,
            text="".join(self._pieces),
            reasoning_content="".join(self._reasoning) or None,
            logprobs=self._logprobs,
            finish_reason=_FINISH_REASONS[self._finish_reason],
            usage=Usage(
                prompt_tokens=self._usage.prompt_tokens,
                completion_tokens=self._usage.completion_tokens,
            ),
            timing=Timing(
                queue_s=self._rounded_queue_s,
                # A text is empty where the model stops at once.
                first_token_s=self._total_s if self._first_token_s is None else self._first_token_s,
                total_s=self._total_s,
            ),
            system_fingerprint=self.fingerprint,
        )
