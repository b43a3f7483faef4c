"""OpenAI's chat completions: the body of a request, and the documents that answer it."""

from __future__ import annotations

import json
import time
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from contract.fields import TokenLimit
from predictor.engine.events import TextFinished
from predictor.engine.generation import Completion
from predictor.engine.tasks import TextTask
from predictor.protocols.openai.fields import TextRequest, fingerprint_member, only, totals
from predictor.protocols.openai.messages import ChatMessage

MESSAGES = 1_024
"""Most turns in one conversation."""

ReasoningEffort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]


TEMPLATE_BYTES = 16_384
"""Most bytes of chat_template_kwargs, as JSON."""

OWN_TEMPLATE_KWARGS = frozenset(
    {
        "add_generation_prompt",
        "chat_template",
        "continue_final_message",
        "conversation",
        "conversations",
        "documents",
        "max_length",
        "messages",
        "padding",
        "return_assistant_tokens_mask",
        "return_dict",
        "return_tensors",
        "sanitize_control_tokens",
        "self",
        "tokenize",
        "tokenizer_kwargs",
        "tools",
        "truncation",
    }
)
"""Not a template's variables, but what transformers is told to do with it, which is this server's business."""


def _template_kwargs(kwargs: dict[str, Any] | None) -> dict[str, Any] | None:
    for name in kwargs or {}:
        if name in OWN_TEMPLATE_KWARGS:
            raise ValueError(f"may not have {name}, which the server sets; it takes variables of the chat template")
    if len(json.dumps(kwargs)) > TEMPLATE_BYTES:
        raise ValueError(f"may have at most {TEMPLATE_BYTES} bytes")
    return kwargs


class ChatRequest(TextRequest):
    """Body of `POST /openai/v1/chat/completions`."""

    messages: list[ChatMessage] = Field(min_length=1, max_length=MESSAGES)
    max_completion_tokens: TokenLimit | None = None
    reasoning_effort: ReasoningEffort | None = None
    chat_template_kwargs: Annotated[dict[str, Any] | None, AfterValidator(_template_kwargs)] = None  # vLLM's
    # Accepted only where they ask for what is done anyway
    logprobs: Annotated[bool | None, AfterValidator(only(False))] = None
    top_logprobs: Annotated[int | None, AfterValidator(only(0))] = None
    response_format: Annotated[Any, AfterValidator(only({"type": "text"}))] = None
    modalities: Annotated[list[str] | None, AfterValidator(only(["text"]))] = None
    tools: Annotated[Any, AfterValidator(only([]))] = None
    tool_choice: Annotated[Any, AfterValidator(only("none", "auto"))] = None
    functions: Annotated[Any, AfterValidator(only([]))] = None
    function_call: Annotated[Any, AfterValidator(only("none", "auto"))] = None
    verbosity: Annotated[str | None, AfterValidator(only("medium"))] = None
    audio: Annotated[Any, AfterValidator(only(None))] = None
    moderation: Annotated[Any, AfterValidator(only(None))] = None
    prediction: Annotated[Any, AfterValidator(only(None))] = None
    web_search_options: Annotated[Any, AfterValidator(only(None))] = None
    # Accepted whatever they say, because the text does not depend on them
    metadata: dict[str, str] | None = None
    parallel_tool_calls: bool | None = None
    prompt_cache_key: str | None = None
    prompt_cache_options: dict[str, Any] | None = None
    prompt_cache_retention: str | None = None
    safety_identifier: str | None = None
    service_tier: str | None = None
    store: bool | None = None

    @property
    def thinking(self) -> bool | None:
        """Whether the model is to reason first, by the template's own switch or by the effort."""
        kwargs = self.chat_template_kwargs or {}
        switch = kwargs.get("enable_thinking", kwargs.get("thinking"))
        if isinstance(switch, bool):
            return switch
        return None if self.reasoning_effort is None else self.reasoning_effort not in ("none", "minimal")

    @property
    def tasks(self) -> list[TextTask]:
        turns = tuple(message.as_turn for message in self.messages)
        effort = {} if self.reasoning_effort is None else {"reasoning_effort": self.reasoning_effort}
        template = effort | (self.chat_template_kwargs or {})
        sampling = self.model_copy(update={"max_tokens": self.max_completion_tokens or self.max_tokens})
        task = TextTask(turns, sampling, thinking=self.thinking, template=template, cache_salt=self.cache_salt)
        return [task]


class ChatDocuments:
    """The answer to one chat completion: a whole document, or chunks."""

    def __init__(self, id: str, model: str, fingerprint: str | None) -> None:
        head = {"id": f"chatcmpl-{id}", "created": int(time.time()), "model": model}
        self._head = {**head, **fingerprint_member(fingerprint)}

    def whole(self, completions: list[Completion]) -> dict[str, Any]:
        [completion] = completions
        message = {"role": "assistant", "content": completion.text, "refusal": None}
        if completion.reasoning:
            message["reasoning_content"] = completion.reasoning
        reason = completion.end.finish_reason
        return {
            **self._head,
            "object": "chat.completion",
            "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": reason}],
            **totals([completion.end], completion.queue_s),
        }

    def first(self, index: int) -> dict[str, Any]:
        return self._chunk(index, {"role": "assistant", "content": ""})

    def piece(self, index: int, text: str) -> dict[str, Any]:
        return self._chunk(index, {"content": text})

    def reasoning(self, index: int, text: str) -> dict[str, Any]:
        return self._chunk(index, {"reasoning_content": text})

    def last(self, index: int, end: TextFinished) -> dict[str, Any]:
        return self._chunk(index, {}, end.finish_reason)

    def totals(self, ends: list[TextFinished], queue_s: float) -> dict[str, Any]:
        return {**self._head, "object": "chat.completion.chunk", "choices": [], **totals(ends, queue_s)}

    def _chunk(self, index: int, delta: dict[str, str], finish_reason: str | None = None) -> dict[str, Any]:
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return {**self._head, "object": "chat.completion.chunk", "choices": [choice]}
