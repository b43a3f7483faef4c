"""The items of a conversation: what the model is given, and what it has answered before."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag

from contract.fields import StrictModel, only, text_or_list
from contract.limits import MESSAGES
from contract.texts.messages import JsonText, Part

Status = Literal["in_progress", "completed", "incomplete"] | None


class TextPart(Part):
    """A piece of a message."""

    members: ClassVar = {"input_text": "text", "output_text": "text", "refusal": "refusal"}

    type: Literal["input_text", "output_text", "refusal"]
    # Of an answer that comes back; the text is the same without
    annotations: list[Any] | None = None
    logprobs: list[Any] | None = None
    parsed: Any = None


def _as_parts(value: object) -> object:
    return [{"type": "input_text", "text": value}] if isinstance(text_or_list(value), str) else value


Parts = Annotated[
    list[TextPart], BeforeValidator(_as_parts, json_schema_input_type=str | list[TextPart]), Field(max_length=MESSAGES)
]


class MessageItem(StrictModel):
    """What somebody has said, or the model before."""

    type: Literal["message"] = "message"
    role: Literal["user", "assistant", "system", "developer"]
    content: Parts
    id: str | None = None
    status: Status = None
    phase: str | None = None


class FunctionCallItem(StrictModel):
    """A call that the model has asked for."""

    type: Literal["function_call"]
    call_id: str
    name: str
    arguments: JsonText
    id: str | None = None
    status: Status = None
    namespace: Annotated[str | None, AfterValidator(only(None))] = None
    caller: Any = None
    parsed_arguments: Any = None  # the same once more, by openai's helpers


class FunctionOutputItem(StrictModel):
    """What a call has given."""

    type: Literal["function_call_output"]
    call_id: str
    output: Parts
    id: str | None = None
    status: Status = None
    name: str | None = None
    namespace: Annotated[str | None, AfterValidator(only(None))] = None
    caller: Any = None


class SummaryPart(StrictModel):
    type: Literal["summary_text"]
    text: str


class ReasoningPart(StrictModel):
    type: Literal["reasoning_text"]
    text: str


class ReasoningItem(StrictModel):
    """What the model has thought before it answered."""

    type: Literal["reasoning"]
    id: str | None = None
    summary: list[SummaryPart] = Field(default_factory=list, max_length=MESSAGES)
    content: list[ReasoningPart] | None = Field(default=None, max_length=MESSAGES)
    encrypted_content: Annotated[str | None, AfterValidator(only(None))] = None
    status: Status = None

    @property
    def text(self) -> str:
        return "".join(part.text for part in self.content or self.summary)


class ItemReference(StrictModel):
    """An item of an earlier response, by its id."""

    type: Literal["item_reference"] | None = None
    id: str = Field(max_length=128)


_TYPES = ("message", "function_call", "function_call_output", "reasoning", "item_reference")


def item_type(value: Any) -> str:
    if not isinstance(value, dict):
        known: str | None = getattr(value, "type", None)
        return known or ("item_reference" if isinstance(value, ItemReference) else "message")
    kind = value.get("type") or ("item_reference" if "id" in value and "role" not in value else "message")
    return str(kind)


def _known(value: Any) -> Any:
    if isinstance(value, dict) and (kind := item_type(value)) not in _TYPES:
        raise ValueError(f"items of the type {kind[:64]} are not taken here; allowed are {', '.join(_TYPES)}")
    return value


Item = (
    Annotated[MessageItem, Tag("message")]
    | Annotated[FunctionCallItem, Tag("function_call")]
    | Annotated[FunctionOutputItem, Tag("function_call_output")]
    | Annotated[ReasoningItem, Tag("reasoning")]
)
"""What a conversation is made of."""

KeptItem = Annotated[Item, Discriminator(item_type)]

InputItem = Annotated[
    Item | Annotated[ItemReference, Tag("item_reference")],
    Discriminator(item_type),
    BeforeValidator(_known),
]
"""What a request may hold of it."""


def _as_items(value: object) -> object:
    if not isinstance(value, str):
        return text_or_list(value)
    if not value.strip():
        raise ValueError("must contain more than white space")
    return [{"type": "message", "role": "user", "content": value}]


InputItems = Annotated[
    list[InputItem],
    Field(min_length=1, max_length=MESSAGES),
    BeforeValidator(
        _as_items,
        json_schema_input_type=str | Annotated[list[InputItem], Field(min_length=1, max_length=MESSAGES)],
    ),
]
