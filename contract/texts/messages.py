"""The turns of a conversation, in OpenAI's shape."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, field_validator, model_validator
from pydantic_core import from_json  # unlike json's, it bounds how deep a value may be

from contract.fields import StrictModel, only, text_or_list
from contract.limits import MESSAGES, TOOLS, RequestLimits


def _as_parts(value: object) -> object:
    if value is None:  # which an assistant may say
        return value
    return [{"type": "text", "text": value}] if isinstance(text_or_list(value), str) else value


class Part(StrictModel):
    """A piece of what somebody says: a text, or the words of a refusal."""

    members: ClassVar[dict[str, str]]
    """Where the words are, by the type."""

    text: str = ""
    refusal: str = ""
    prompt_cache_breakpoint: dict[str, Any] | None = None  # says what to cache, not what to read

    @model_validator(mode="before")
    @classmethod
    def _readable(cls, value: Any) -> Any:
        """What is no text would be left unread."""
        kind = value.get("type") if isinstance(value, dict) else None
        if isinstance(kind, str) and kind not in cls.members:
            raise ValueError(f"parts of the type {kind[:64]} are not read here; texts are: {', '.join(cls.members)}")
        if isinstance(kind, str) and cls.members[kind] not in value:
            raise ValueError(f"a part of the type {kind} needs the member {cls.members[kind]}")
        return value


def joined(parts: Sequence[Part]) -> str:
    """The text of all parts together."""
    return "".join(part.text or part.refusal for part in parts)


class ContentPart(Part):
    """A piece of a turn."""

    members: ClassVar = {"text": "text", "refusal": "refusal"}

    type: Literal["text", "refusal"]


def _json(text: str) -> str:
    try:
        from_json(text or "{}")
    except ValueError:
        raise ValueError("must be JSON, which the model's chat template writes its own way") from None
    return text


JsonText = Annotated[str, AfterValidator(_json)]


class FunctionCall(StrictModel):
    name: str
    arguments: JsonText
    parsed_arguments: Any = None  # the same once more, by openai's helpers


class MessageToolCall(StrictModel):
    """A call that an assistant has asked for."""

    id: str | None = None
    type: Literal["function"] = "function"
    function: FunctionCall
    custom: Annotated[Any, AfterValidator(only(None))] = None
    index: int | None = None  # of pieces of a stream that a client has put together


class ChatMessage(StrictModel):
    """A turn of any role, with all that an answer's message holds, so that a client can append it as it is."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Annotated[list[ContentPart] | None, BeforeValidator(_as_parts)] = Field(
        default=None, validate_default=True
    )
    name: str | None = None
    # An assistant's
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None  # the newer name of the same at vLLM
    tool_calls: list[MessageToolCall] | None = Field(default=None, max_length=TOOLS)
    annotations: list[dict[str, Any]] | None = None  # where the text cites pages; the text is the same without
    parsed: Any = None  # the text once more, by openai's helpers
    audio: Annotated[Any, AfterValidator(only(None))] = None
    function_call: Annotated[Any, AfterValidator(only(None))] = None
    # A tool's
    tool_call_id: str | None = None

    @field_validator("content")
    @classmethod
    def _present(cls, content: list[ContentPart] | None, info: ValidationInfo) -> list[ContentPart] | None:
        """Only an assistant may say nothing: it called tools, refused, or was cut while it was thinking."""
        if content is None and info.data.get("role", "assistant") != "assistant":
            raise ValueError("is required")
        return content

    @field_validator("refusal", "reasoning_content", "reasoning", "tool_calls")
    @classmethod
    def _of_an_assistant(cls, value: object, info: ValidationInfo) -> object:
        if value and info.data.get("role", "assistant") != "assistant":
            raise ValueError("belongs to the role assistant")
        return value

    @property
    def text(self) -> str:
        return joined(self.content or ()) or self.refusal or ""


def _length(message: ChatMessage) -> int:
    """Characters of all that a chat template may read."""
    calls = sum(len(call.function.name) + len(call.function.arguments) for call in message.tool_calls or ())
    return len(message.text) + len(message.reasoning_content or message.reasoning or "") + calls


def _not_too_long(messages: list[ChatMessage], info: ValidationInfo) -> list[ChatMessage]:
    """The turns together may be as long as a prompt."""
    if isinstance(info.context, RequestLimits):
        most = info.context.prompt_chars
        if sum(_length(message) for message in messages) > most:
            raise ValueError(f"should have at most {most} characters together")
    return messages


Messages = Annotated[list[ChatMessage], Field(min_length=1, max_length=MESSAGES), AfterValidator(_not_too_long)]
