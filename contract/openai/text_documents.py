"""Texts as the documents and chunks that OpenAI's text routes answer with."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from codecs import getincrementaldecoder
from collections.abc import Sequence
from typing import Any

from contract.events import ToolCallEvent
from contract.openai.fields import fingerprint_member, totals
from contract.result import FinishReason, TextResult, Usage
from contract.texts.logprobs import TokenLogprob


class TextDocuments(ABC):
    """The answer to one request: a whole document, or chunks. Choices are told apart by their index."""

    def __init__(self, id: str, model: str, fingerprint: str | None) -> None:
        self.id = id
        self._created = int(time.time())
        self._model = model
        self.fingerprint = fingerprint

    @abstractmethod
    def whole(self, results: Sequence[TextResult]) -> dict[str, Any]:
        """All texts in one document."""

    @abstractmethod
    def first(self, index: int) -> dict[str, Any]:
        """A chunk that says that a text has begun."""

    @abstractmethod
    def piece(self, index: int, text: str, logprobs: Sequence[TokenLogprob] | None = None) -> dict[str, Any]:
        """The next piece of a text, and how likely its tokens were."""

    def reasoning(self, index: int, text: str) -> dict[str, Any] | None:
        """The next piece of what the model thinks; None where the route does not tell it."""
        return None

    def tool_call(self, index: int, event: ToolCallEvent) -> dict[str, Any] | None:
        """The next piece of a call; None where the route knows none."""
        return None

    @abstractmethod
    def last(self, index: int, finish_reason: FinishReason) -> dict[str, Any]:
        """The end of a text."""

    @abstractmethod
    def totals(self, usages: Sequence[Usage], queue_s: float | None) -> dict[str, Any]:
        """The usage of all texts, after the last chunk."""

    def _head(self, prefix: str, kind: str) -> dict[str, Any]:
        head = {"id": f"{prefix}-{self.id}", "object": kind, "created": self._created, "model": self._model}
        return {**head, **fingerprint_member(self.fingerprint)}


class ChatDocuments(TextDocuments):
    """Of chat completions."""

    def whole(self, results: Sequence[TextResult]) -> dict[str, Any]:
        choices = [_chat_choice(index, result) for index, result in enumerate(results)]
        return {**self._head("chatcmpl", "chat.completion"), "choices": choices, **_totals_of(results)}

    def first(self, index: int) -> dict[str, Any]:
        return self._chunk(index, {"role": "assistant", "content": ""})

    def piece(self, index: int, text: str, logprobs: Sequence[TokenLogprob] | None = None) -> dict[str, Any]:
        return self._chunk(index, {"content": text}, logprobs=logprobs)

    def reasoning(self, index: int, text: str) -> dict[str, Any]:
        return self._chunk(index, {"reasoning_content": text})

    def tool_call(self, index: int, event: ToolCallEvent) -> dict[str, Any]:
        function: dict[str, Any] = {"arguments": event.arguments}
        call: dict[str, Any] = {"index": event.index, "function": function}
        if event.name is not None:
            function["name"] = event.name
            call |= {"id": event.id, "type": "function"}
        return self._chunk(index, {"tool_calls": [call]})

    def last(self, index: int, finish_reason: FinishReason) -> dict[str, Any]:
        return self._chunk(index, {}, finish_reason)

    def totals(self, usages: Sequence[Usage], queue_s: float | None) -> dict[str, Any]:
        return {**self._head("chatcmpl", "chat.completion.chunk"), "choices": [], **totals(usages, queue_s)}

    def _chunk(
        self,
        index: int,
        delta: dict[str, Any],
        finish_reason: str | None = None,
        logprobs: Sequence[TokenLogprob] | None = None,
    ) -> dict[str, Any]:
        choice = {"index": index, "delta": delta, "logprobs": _chat(logprobs), "finish_reason": finish_reason}
        return {**self._head("chatcmpl", "chat.completion.chunk"), "choices": [choice]}


class CompletionDocuments(TextDocuments):
    """Of plain completions: chunks are of the same shape as the whole."""

    def __init__(self, id: str, model: str, fingerprint: str | None) -> None:
        super().__init__(id, model, fingerprint)
        self._chars: dict[int, int] = {}  # sent of each text

    def whole(self, results: Sequence[TextResult]) -> dict[str, Any]:
        choices = [
            _choice(index, one.text, one.finish_reason, _plain(one.logprobs, 0)) for index, one in enumerate(results)
        ]
        return {**self._head("cmpl", "text_completion"), "choices": choices, **_totals_of(results)}

    def first(self, index: int) -> dict[str, Any]:
        return self._chunk(index, "")

    def piece(self, index: int, text: str, logprobs: Sequence[TokenLogprob] | None = None) -> dict[str, Any]:
        offset = self._chars.get(index, 0)
        self._chars[index] = offset + len(text)
        return self._chunk(index, text, logprobs=_plain(logprobs, offset))

    def last(self, index: int, finish_reason: FinishReason) -> dict[str, Any]:
        return self._chunk(index, "", finish_reason)

    def totals(self, usages: Sequence[Usage], queue_s: float | None) -> dict[str, Any]:
        return {**self._head("cmpl", "text_completion"), "choices": [], **totals(usages, queue_s)}

    def _chunk(
        self, index: int, text: str, finish_reason: str | None = None, logprobs: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        return {
            **self._head("cmpl", "text_completion"),
            "choices": [_choice(index, text, finish_reason, logprobs)],
        }


def _totals_of(results: Sequence[TextResult]) -> dict[str, Any]:
    waits = [result.timing.queue_s for result in results if result.timing.queue_s is not None]
    return totals([result.usage for result in results], max(waits, default=None))


def _chat_choice(index: int, result: TextResult) -> dict[str, Any]:
    calls = [call.model_dump() for call in result.tool_calls or ()]
    content = result.text or (None if calls else "")
    message: dict[str, Any] = {"role": "assistant", "content": content, "refusal": None}
    if result.reasoning_content:
        message["reasoning_content"] = result.reasoning_content
    if calls:
        message["tool_calls"] = calls
    return {
        "index": index,
        "message": message,
        "logprobs": _chat(result.logprobs),
        "finish_reason": result.finish_reason,
    }


def _chat(logprobs: Sequence[TokenLogprob] | None) -> dict[str, Any] | None:
    if logprobs is None:
        return None
    return {"content": [one.model_dump() for one in logprobs], "refusal": None}


def _choice(index: int, text: str, finish_reason: str | None, logprobs: dict[str, Any] | None) -> dict[str, Any]:
    return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": finish_reason}


def _plain(logprobs: Sequence[TokenLogprob] | None, offset: int) -> dict[str, Any] | None:
    """In the older shape, of lists. `offset` is how many characters come before."""
    if logprobs is None:
        return None
    offsets = []
    characters = getincrementaldecoder("utf-8")("replace")  # of which some take several tokens
    for one in logprobs:
        offsets.append(offset)
        offset += len(characters.decode(bytes(one.bytes)))
    return {
        "tokens": [one.token for one in logprobs],
        "token_logprobs": [one.logprob for one in logprobs],
        "top_logprobs": [{other.token: other.logprob for other in one.top_logprobs} for one in logprobs],
        "text_offset": offsets,
    }
