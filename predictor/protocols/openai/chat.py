"""OpenAI's chat completions: the body of a request, and the documents that answer it."""

from __future__ import annotations

import time
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, field_validator

from contract.fields import StrictModel, TokenLimit
from contract.limits import PROMPT_CHARS
from predictor.engine.events import TextFinished
from predictor.engine.generation import Completion
from predictor.engine.tasks import Message, TextTask
from predictor.protocols.openai.fields import TextRequest, only, totals

MESSAGES = 1_024
"""Most turns in one conversation."""


class TextPart(StrictModel):
    type: Literal["text"]
    text: str


class ChatMessage(StrictModel):
    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart]
    name: str | None = None

    @property
    def text(self) -> str:
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)


class ChatRequest(TextRequest):
    """Body of `POST /openai/v1/chat/completions`."""

    messages: list[ChatMessage] = Field(min_length=1, max_length=MESSAGES)
    max_completion_tokens: TokenLimit | None = None
    logprobs: Annotated[bool | None, AfterValidator(only(False))] = None
    metadata: dict[str, str] | None = None
    store: bool | None = None

    @field_validator("messages")
    @classmethod
    def _bounded(cls, messages: list[ChatMessage]) -> list[ChatMessage]:
        if sum(len(message.text) for message in messages) > PROMPT_CHARS:
            raise ValueError(f"may have at most {PROMPT_CHARS} characters together")
        return messages

    @property
    def task(self) -> TextTask:
        # Chat templates know "system"; OpenAI renamed that role for its newer models.
        turns = tuple(
            Message(role="system" if turn.role == "developer" else turn.role, content=turn.text)
            for turn in self.messages
        )
        return TextTask(turns, self.model_copy(update={"max_tokens": self.max_completion_tokens or self.max_tokens}))


class ChatDocuments:
    """The answer to one chat completion: a whole document, or chunks."""

    def __init__(self, id: str, model: str) -> None:
        self._head = {"id": f"chatcmpl-{id}", "created": int(time.time()), "model": model}

    def whole(self, completion: Completion) -> dict[str, Any]:
        message = {"role": "assistant", "content": completion.text, "refusal": None}
        reason = completion.end.finish_reason
        return {
            **self._head,
            "object": "chat.completion",
            "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": reason}],
            **totals(completion.end, completion.queue_s),
        }

    def first(self) -> dict[str, Any]:
        return self._chunk({"role": "assistant", "content": ""})

    def piece(self, text: str) -> dict[str, Any]:
        return self._chunk({"content": text})

    def last(self, end: TextFinished) -> dict[str, Any]:
        return self._chunk({}, end.finish_reason)

    def totals(self, end: TextFinished, queue_s: float) -> dict[str, Any]:
        return {**self._head, "object": "chat.completion.chunk", "choices": [], **totals(end, queue_s)}

    def _chunk(self, delta: dict[str, str], finish_reason: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return {**self._head, "object": "chat.completion.chunk", "choices": [choice]}
