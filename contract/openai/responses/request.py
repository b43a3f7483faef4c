"""The body of `POST /v1/responses`.

Fields that clients send out of habit are accepted as long as they ask for what is done anyway. What would change the
answer in a way that this server does not know is refused by name.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from contract.fields import StrictModel, TokenLimit, WebhookUrl, only
from contract.limits import RequestLimits
from contract.openai.fields import SAMPLING, StreamOptions
from contract.openai.responses.conversation import turns_of
from contract.openai.responses.field_names import as_sent
from contract.openai.responses.items import InputItems, Item, ReasoningItem
from contract.problems import invalid_field, invalid_fields
from contract.request import GenerationRequest, ReasoningEffort
from contract.texts.sampling import Sampling
from contract.texts.structure import JsonObjectFormat, NamedSchema, TextFormat
from contract.texts.tools import FunctionName

METADATA, METADATA_NAME_CHARS, METADATA_CHARS = 16, 64, 512
"""Most pairs of a response's metadata, and how long their names and values may be (OpenAI's numbers)."""

LOGPROBS = "message.output_text.logprobs"


def _only_functions(value: Any) -> Any:
    kind = value.get("type") if isinstance(value, dict) else None
    if isinstance(kind, str) and kind != "function":
        raise ValueError(f"the type {kind[:64]} is not offered here; functions are, by the type function")
    return value


class FunctionTool(StrictModel):
    """A function that the model may ask its client to call."""

    type: Literal["function"]
    name: FunctionName
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None  # arguments are held to their schema in any case
    allowed_callers: Annotated[Any, AfterValidator(only(["direct"]))] = None
    defer_loading: Annotated[bool | None, AfterValidator(only(False))] = None
    output_schema: dict[str, Any] | None = None


class ChosenFunctionTool(StrictModel):
    """The one function that is to be called."""

    type: Literal["function"]
    name: FunctionName


class FlatSchemaFormat(NamedSchema):
    """JSON that its schema allows."""

    type: Literal["json_schema"]


class TextConfig(StrictModel):
    """What shape the text is to have."""

    format: Annotated[TextFormat | JsonObjectFormat | FlatSchemaFormat, Field(discriminator="type")] | None = None
    verbosity: Annotated[str | None, AfterValidator(only("medium"))] = None


class Reasoning(StrictModel):
    """How long the model is to think, where it can."""

    effort: ReasoningEffort | None = None
    summary: Annotated[str | None, AfterValidator(only("auto"))] = None
    generate_summary: Annotated[str | None, AfterValidator(only("auto"))] = None


Metadata = Annotated[
    dict[
        Annotated[str, Field(max_length=METADATA_NAME_CHARS)],
        Annotated[str, Field(max_length=METADATA_CHARS)],
    ],
    Field(max_length=METADATA),
]
ToolChoice = Annotated[
    Literal["none", "auto", "required"] | ChosenFunctionTool,
    BeforeValidator(_only_functions),
]


class ResponsesRequest(Sampling):
    """See the module. Beside OpenAI's fields it takes those of the sampling that `/generate` has."""

    model: str
    input: InputItems
    instructions: Annotated[str, Field(min_length=1)] | None = None
    previous_response_id: Annotated[str, Field(max_length=128)] | None = None
    max_output_tokens: TokenLimit | None = None
    reasoning: Reasoning | None = None
    text: TextConfig | None = None
    tools: list[Annotated[FunctionTool, BeforeValidator(_only_functions)]] | None = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    metadata: Metadata | None = None
    include: list[Literal["message.output_text.logprobs"]] | None = Field(default=None, max_length=8)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    store: bool | None = None
    background: bool | None = None
    webhook: WebhookUrl | None = None  # beyond OpenAI's
    # Accepted only where they ask for what is done anyway
    access_programs: Annotated[Any, AfterValidator(only(None))] = None
    background_options: Annotated[Any, AfterValidator(only(None))] = None
    context_management: Annotated[Any, AfterValidator(only(None, []))] = None
    conversation: Annotated[Any, AfterValidator(only(None))] = None
    image: Annotated[Any, AfterValidator(only(None))] = None
    max_tokens: Annotated[int | None, AfterValidator(only(None))] = None
    moderation: Annotated[Any, AfterValidator(only(None))] = None
    prompt: Annotated[Any, AfterValidator(only(None))] = None
    truncation: Annotated[str | None, AfterValidator(only("disabled"))] = None
    # Accepted whatever they say, because the text does not depend on them
    max_tool_calls: int | None = None  # of OpenAI's own tools
    prompt_cache_key: str | None = None
    prompt_cache_options: dict[str, Any] | None = None
    prompt_cache_retention: str | None = None
    safety_identifier: str | None = None
    service_tier: str | None = None
    user: str | None = None

    @field_validator("background")
    @classmethod
    def _stored(cls, background: bool | None, info: ValidationInfo) -> bool | None:
        if background and info.data.get("store") is False:
            raise ValueError("needs store: without it nothing is kept that could be asked for later")
        return background

    @field_validator("webhook")
    @classmethod
    def _of_background(cls, webhook: str | None, info: ValidationInfo) -> str | None:
        if webhook is not None and not info.data.get("background", True):
            raise ValueError("needs background: without it the client waits for the end itself")
        return webhook

    @property
    def is_stored(self) -> bool:
        return self.store is not False

    def generation(self, items: Sequence[Item], limits: RequestLimits) -> GenerationRequest:
        """What is generated after these items. INVALID_FIELD names the field of this body."""
        if all(isinstance(item, ReasoningItem) for item in items):
            raise invalid_field("input", "must be of messages, calls or their outputs, not of reasoning alone")
        asked = {
            "model": self.model,
            "messages": turns_of(items, self.instructions),
            **{name: getattr(self, name) for name in SAMPLING},
            "max_tokens": self.max_output_tokens,
            "top_logprobs": (self.top_logprobs or 0) if self._tells_logprobs else None,
            "reasoning_effort": self.reasoning and self.reasoning.effort,
            "response_format": self._response_format,
            "tools": None if self.tools is None else [_tool(tool) for tool in self.tools],
            "tool_choice": self._tool_choice,
            "parallel_tool_calls": self.parallel_tool_calls,
            "webhook": self.webhook,
        }
        given = {name: value for name, value in asked.items() if value is not None}
        try:
            return GenerationRequest.model_validate(given, context=limits)
        except ValidationError as error:
            raise as_sent(invalid_fields(error, GenerationRequest)) from None

    @property
    def _tells_logprobs(self) -> bool:
        return LOGPROBS in (self.include or ()) or bool(self.top_logprobs)

    @property
    def _response_format(self) -> dict[str, Any] | None:
        shape = None if self.text is None else self.text.format
        if isinstance(shape, FlatSchemaFormat):
            return {"type": "json_schema", "json_schema": shape.model_dump(exclude={"type"}, exclude_none=True)}
        return None if shape is None else shape.model_dump()

    @property
    def _tool_choice(self) -> Any:
        if isinstance(self.tool_choice, ChosenFunctionTool):
            return {"type": "function", "function": {"name": self.tool_choice.name}}
        return self.tool_choice


def _tool(tool: FunctionTool) -> dict[str, Any]:
    function = tool.model_dump(include={"name", "description", "parameters", "strict"}, exclude_none=True)
    return {"type": "function", "function": function}
