"""Making a text of its stream."""

from __future__ import annotations

from collections.abc import Iterable

from contract import FinishReason, ReasoningEvent, ResultEvent, Timing, TokenEvent, ToolCallEvent, Usage
from contract.texts.logprobs import TokenLogprob
from contract.texts.tools import CalledFunction, ToolCall
from web.client.failures import bad_answer, cut_off, kept_back
from web.rest.rest_request import RestRequest
from web.rest.result_builder import ResultBuilder
from web.rest.text_stream import Chunk, ChunkUsage, DeltaToolCall

# With any other (abort) the text is not whole, as a result promises.
_FINISH_REASONS: dict[str, FinishReason] = {"stop": "stop", "length": "length", "tool_calls": "tool_calls"}


class TextResultBuilder(ResultBuilder[Chunk]):
    """See ResultBuilder."""

    def __init__(self, url: str, rest_request: RestRequest) -> None:
        super().__init__(url, rest_request)
        self._pieces: list[str] = []
        self._reasoning: list[str] = []
        self._logprobs: list[TokenLogprob] | None = None
        self._calls: list[tuple[str, list[str]]] = []  # name and arguments of each
        self._call_ids: list[str] = []  # over all answers: the client may have them, and other servers draw new ones
        self._finish_reason: str | None = None
        self._first_token_s: float | None = None
        self._total_s = 0.0
        self._usage: ChunkUsage | None = None

    def again(self) -> None:
        super().again()
        self._pieces, self._reasoning, self._calls = [], [], []
        self._finish_reason = self._usage = self._logprobs = None

    def add(self, event: Chunk) -> Iterable[ReasoningEvent | TokenEvent | ToolCallEvent]:
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
        calls = [self._called(one) for one in choice.delta.tool_calls or ()]
        self._finish_reason = choice.finish_reason or self._finish_reason
        if piece or reasoning or calls or choice.finish_reason:
            self._total_s = self._elapsed()
        if self._first_token_s is None and (piece or reasoning or calls):
            self._first_token_s = self._total_s
        events: list[ReasoningEvent | TokenEvent | ToolCallEvent] = []
        if reasoning:
            self._reasoning.append(reasoning)
            events.append(ReasoningEvent(text=reasoning))
        if logprobs is not None:
            self._logprobs = self._logprobs or []
            self._logprobs += logprobs
        if piece or logprobs:
            self._pieces.append(piece)
            events.append(TokenEvent(text=piece, logprobs=logprobs))
        return [*events, *calls]

    def _called(self, delta: DeltaToolCall) -> ToolCallEvent:
        """The piece of a call; the first of each has its id and its name."""
        index, arguments = delta.index, delta.function.arguments or ""
        if index < len(self._calls):
            self._calls[index][1].append(arguments)
            return ToolCallEvent(index=index, arguments=arguments)
        name = delta.function.name
        if index > len(self._calls) or not name:
            raise bad_answer(self._url, "a call of a function begins without its name, or before the one before it")
        self._calls.append((name, [arguments]))
        if index == len(self._call_ids):
            self._call_ids.append(delta.id or f"call_{self._id}_{index}")
        return ToolCallEvent(index=index, id=self._call_ids[index], name=name, arguments=arguments)

    def result(self) -> ResultEvent:
        if self._finish_reason is None:
            raise cut_off(self._url, "it ends before the text does")
        if self._finish_reason == "content_filter":
            raise kept_back(self._url)
        if self._finish_reason not in _FINISH_REASONS:
            raise bad_answer(self._url, "its finish_reason is unknown", str(self._finish_reason))
        reason = _FINISH_REASONS[self._finish_reason]
        calls = [
            ToolCall(id=id, function=CalledFunction(name=name, arguments="".join(arguments)))
            for id, (name, arguments) in zip(self._call_ids, self._calls, strict=False)
        ]
        if reason == "tool_calls" and not calls:
            raise bad_answer(self._url, "its finish_reason is tool_calls, and it calls none")
        if self._usage is None:
            raise cut_off(self._url, "it ends without the usage that was asked for")
        cached = self._usage.prompt_tokens_details
        return ResultEvent(
            id=self._id,
            model=self._model,
            text="".join(self._pieces),
            reasoning_content="".join(self._reasoning) or None,
            logprobs=self._logprobs,
            tool_calls=calls or None,
            # OpenAI and others say "stop" where the client has named the function.
            finish_reason="tool_calls" if calls and reason == "stop" else reason,
            usage=Usage(
                prompt_tokens=self._usage.prompt_tokens,
                completion_tokens=self._usage.completion_tokens,
                cached_tokens=cached.cached_tokens or None if cached else None,
            ),
            timing=Timing(
                queue_s=self._rounded_queue_s,
                # A text is empty where the model stops at once.
                first_token_s=self._total_s if self._first_token_s is None else self._first_token_s,
                total_s=self._total_s,
            ),
            system_fingerprint=self.fingerprint,
        )
