"""Events of texts as OpenAI's chunks. What a text waits for is said in comments, which its clients pass over."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from typing import Any

from contract import (
    LiveEvent,
    ReasoningEvent,
    ResultEvent,
    StatusEvent,
    TokenEvent,
    ToolCallEvent,
    Usage,
)
from contract.openai.text_documents import TextDocuments
from web.http.event_frames import chained, data_frame, status_frame
from wire.sse import frame


async def text_frames(
    first: tuple[int, LiveEvent],
    events: AsyncGenerator[tuple[int, LiveEvent]],
    documents: TextDocuments,
    count: int,
    *,
    with_usage: bool,
) -> AsyncGenerator[bytes]:
    """Of each of `count` texts its chunks; then totals if asked for, and [DONE]. The texts begin in their order, for
    OpenAI's client for Python takes the order in which it hears of them for their numbers."""
    told: list[_Told] = []
    for number in range(count):
        told.append(_Told(number, documents, told[-1] if told else None))
    usages: list[Usage] = []
    queue_s: float | None = None
    async for number, event in chained(first, events):
        for document in told[number].documents(event):
            yield document
        if isinstance(event, ResultEvent):
            usages.append(event.usage)
            queue_s = max(filter(None, (queue_s, event.timing.queue_s)), default=queue_s)
    if with_usage:
        yield data_frame(documents.totals(usages, queue_s))
    yield frame("[DONE]")


class _Told:
    """What the client has of one text. A backend need not tell pieces: the result holds all that was not told."""

    def __init__(self, index: int, documents: TextDocuments, before: _Told | None) -> None:
        """`before` is the text that begins before this one."""
        self._index = index
        self._before = before
        self._documents = documents
        self._begun = False
        self._text = self._reasoning = 0  # characters
        self._calls = 0

    def documents(self, event: LiveEvent) -> Iterator[bytes]:
        """The frames of an event, often one."""
        match event:
            case StatusEvent():
                yield status_frame(event)
                if event.state == "running":
                    yield from self._begin()
            case ReasoningEvent():
                yield from self._begin()
                self._reasoning += len(event.text)
                yield from _some(self._documents.reasoning(self._index, event.text))
            case TokenEvent():
                yield from self._begin()
                self._text += len(event.text)
                yield data_frame(self._documents.piece(self._index, event.text, event.logprobs))
            case ToolCallEvent():
                yield from self._begin()
                self._calls = max(self._calls, event.index + 1)
                yield from _some(self._documents.tool_call(self._index, event))
            case ResultEvent():
                yield from self._rest(event)
                self._documents.fingerprint = event.system_fingerprint
                yield data_frame(self._documents.last(self._index, event.finish_reason))

    def _begin(self) -> Iterator[bytes]:
        if not self._begun:
            self._begun = True
            if self._before is not None:
                yield from self._before._begin()
            yield data_frame(self._documents.first(self._index))

    def _rest(self, result: ResultEvent) -> Iterator[bytes]:
        yield from self._begin()
        if reasoning := (result.reasoning_content or "")[self._reasoning :]:
            yield from _some(self._documents.reasoning(self._index, reasoning))
        if text := result.text[self._text :]:
            logprobs = None if self._text else result.logprobs
            yield data_frame(self._documents.piece(self._index, text, logprobs))
        for number, call in list(enumerate(result.tool_calls or ()))[self._calls :]:
            whole = ToolCallEvent(index=number, id=call.id, name=call.function.name, arguments=call.function.arguments)
            yield from _some(self._documents.tool_call(self._index, whole))


def _some(document: dict[str, Any] | None) -> Iterator[bytes]:
    if document is not None:
        yield data_frame(document)
