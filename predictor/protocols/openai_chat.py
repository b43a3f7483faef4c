"""The OpenAI shapes that text is served in: request bodies with strict fields, and the documents that answer them.

Fields that clients send out of habit are taken as long as they ask for what is done anyway; anything that would change
the answer in a way this server does not know is refused by name.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, field_validator

from contract.fields import PromptText, StrictModel, TokenLimit
from contract.limits import PROMPT_CHARS
from contract.request import Sampling
from predictor.engine.events import TextFinished
from predictor.engine.generation import Completion
from predictor.engine.tasks import Message, TextTask

MESSAGES = 1_024
"""Most turns in one conversation."""


def only(*neutral: object) -> Callable[[object], object]:
    """A validator that lets through None and what is `neutral`: asking for it changes nothing."""

    def check(value: object) -> object:
        if value is not None and value not in neutral:
            raise ValueError(f"is not supported here; leave it out or send {neutral[0]!r}")
        return value

    return check


def _only_prompt(value: object) -> object:
    return value[0] if isinstance(value, list) and len(value) == 1 else value


class StreamOptions(StrictModel):
    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class _OpenAIRequest(Sampling):
    model: str
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: str | None = None
    n: Annotated[int | None, AfterValidator(only(1))] = None
    presence_penalty: Annotated[float | None, AfterValidator(only(0))] = None
    frequency_penalty: Annotated[float | None, AfterValidator(only(0))] = None
    logit_bias: Annotated[dict[str, float] | None, AfterValidator(only({}))] = None

    @property
    def streams_usage(self) -> bool:
        return bool(self.stream_options and self.stream_options.include_usage)


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


class ChatRequest(_OpenAIRequest):
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


class CompletionRequest(_OpenAIRequest):
    """Body of `POST /openai/v1/completions`: the prompt goes to the model as it is, without a chat template."""

    prompt: Annotated[PromptText, BeforeValidator(_only_prompt)]
    best_of: Annotated[int | None, AfterValidator(only(1))] = None
    echo: Annotated[bool | None, AfterValidator(only(False))] = None
    logprobs: Annotated[int | None, AfterValidator(only(None))] = None
    suffix: Annotated[str | None, AfterValidator(only(""))] = None

    @property
    def task(self) -> TextTask:
        return TextTask(self.prompt, self)


class ChatDocuments:
    """The documents of one chat completion."""

    def __init__(self, id: str, model: str) -> None:
        self._head = {"id": f"chatcmpl-{id}", "created": int(time.time()), "model": model}

    def whole(self, completion: Completion) -> dict[str, Any]:
        message = {"role": "assistant", "content": completion.text, "refusal": None}
        reason = completion.end.finish_reason
        return {
            **self._head,
            "object": "chat.completion",
            "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": reason}],
            **_totals(completion.end, completion.queue_s),
        }

    def first(self) -> dict[str, Any]:
        return self._chunk({"role": "assistant", "content": ""})

    def piece(self, text: str) -> dict[str, Any]:
        return self._chunk({"content": text})

    def last(self, end: TextFinished) -> dict[str, Any]:
        return self._chunk({}, end.finish_reason)

    def totals(self, end: TextFinished, queue_s: float) -> dict[str, Any]:
        return {**self._head, "object": "chat.completion.chunk", "choices": [], **_totals(end, queue_s)}

    def _chunk(self, delta: dict[str, str], finish_reason: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return {**self._head, "object": "chat.completion.chunk", "choices": [choice]}


class CompletionDocuments:
    """The documents of one plain completion; chunks and the whole have the same shape."""

    def __init__(self, id: str, model: str) -> None:
        self._head = {"id": f"cmpl-{id}", "object": "text_completion", "created": int(time.time()), "model": model}

    def whole(self, completion: Completion) -> dict[str, Any]:
        chunk = self._chunk(completion.text, completion.end.finish_reason)
        return chunk | _totals(completion.end, completion.queue_s)

    def first(self) -> dict[str, Any]:
        return self._chunk("")

    def piece(self, text: str) -> dict[str, Any]:
        return self._chunk(text)

    def last(self, end: TextFinished) -> dict[str, Any]:
        return self._chunk("", end.finish_reason)

    def totals(self, end: TextFinished, queue_s: float) -> dict[str, Any]:
        return {**self._head, "choices": [], **_totals(end, queue_s)}

    def _chunk(self, text: str, finish_reason: str | None = None) -> dict[str, Any]:
        return {
            **self._head,
            "choices": [{"index": 0, "text": text, "logprobs": None, "finish_reason": finish_reason}],
        }


def _totals(end: TextFinished, queue_s: float) -> dict[str, Any]:
    """Usage as OpenAI has it, and an extension that OpenAI's clients ignore: how long the request was queued."""
    usage = {
        "prompt_tokens": end.prompt_tokens,
        "completion_tokens": end.completion_tokens,
        "total_tokens": end.prompt_tokens + end.completion_tokens,
    }
    return {"usage": usage, "timing": {"queue_s": queue_s}}
