"""OpenAI's chat completions: the body of a request."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, Field, ValidationInfo, field_validator

from contract.fields import TokenLimit, only
from contract.openai.fields import TextRequest
from contract.request import GenerationRequest, Writing
from contract.texts.messages import Messages

_WRITING = frozenset(Writing.model_fields) - frozenset(TextRequest.model_fields)


class ChatRequest(TextRequest, Writing):
    """Body of `POST /v1/chat/completions`."""

    messages: Messages
    max_completion_tokens: TokenLimit | None = None
    logprobs: bool | None = Field(default=None, validate_default=True)
    # Accepted only where they ask for what is done anyway
    modalities: Annotated[list[str] | None, AfterValidator(only(["text"]))] = None
    functions: Annotated[Any, AfterValidator(only([]))] = None
    function_call: Annotated[Any, AfterValidator(only("none", "auto"))] = None
    verbosity: Annotated[str | None, AfterValidator(only("medium"))] = None
    audio: Annotated[Any, AfterValidator(only(None))] = None
    moderation: Annotated[Any, AfterValidator(only(None))] = None
    prediction: Annotated[Any, AfterValidator(only(None))] = None
    web_search_options: Annotated[Any, AfterValidator(only(None))] = None
    # Accepted whatever they say, because the text does not depend on them
    metadata: dict[str, str] | None = None
    prompt_cache_key: str | None = None
    prompt_cache_options: dict[str, Any] | None = None
    prompt_cache_retention: str | None = None
    safety_identifier: str | None = None
    service_tier: str | None = None
    store: bool | None = None

    @field_validator("logprobs")
    @classmethod
    def _told(cls, logprobs: bool | None, info: ValidationInfo) -> bool | None:
        if info.data.get("top_logprobs") and not logprobs:
            raise ValueError("must be true where top_logprobs is given")
        return logprobs

    @property
    def names(self) -> dict[str, str]:
        limit = {} if self.max_completion_tokens is None else {"max_tokens": "max_completion_tokens"}
        if self.thinking is not None:
            return limit
        return limit | {"thinking": "reasoning_effort" if self.chat_template_kwargs is None else "chat_template_kwargs"}

    @property
    def requests(self) -> list[GenerationRequest]:
        fields = {name: getattr(self, name) for name in _WRITING}
        asked = {
            "messages": self.messages,
            "max_tokens": self.max_completion_tokens or self.max_tokens,
            "top_logprobs": (self.top_logprobs or 0) if self.logprobs else None,
        }
        return self._each(fields | asked)
