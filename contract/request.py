"""What a client asks for: the body of `POST /generate`."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, field_validator
from pydantic_core import PydanticKnownError

from contract.fields import (
    Guidance,
    Mask,
    NegativePrompt,
    Omittable,
    PictureCount,
    PictureFile,
    PictureFormat,
    PictureSize,
    PreviewCount,
    PromptText,
    Seed,
    Steps,
    Strength,
    StrictModel,
    WebhookUrl,
)
from contract.limits import TEMPLATE_BYTES
from contract.problems import FieldError, ProblemError, field_problem, invalid_field, of_field
from contract.texts.messages import ChatMessage, Messages
from contract.texts.sampling import Sampling
from contract.texts.structure import GuidedChoice, GuidedRegex, ResponseFormat, TextFormat
from contract.texts.tools import ChosenTool, ToolChoice, Tools

Kind = Literal["text", "image"]
ReasoningEffort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]

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
"""Not a template's variables, but what transformers is told to do with it, which is the server's business."""


def _template_kwargs(kwargs: dict[str, Any]) -> dict[str, Any]:
    for name in kwargs:
        if name in OWN_TEMPLATE_KWARGS:
            raise ValueError(f"may not have {name}, which the server sets; it takes variables of the chat template")
    if len(json.dumps(kwargs)) > TEMPLATE_BYTES:
        raise ValueError(f"may have at most {TEMPLATE_BYTES} bytes")
    return kwargs


TemplateKwargs = Annotated[dict[str, Any], AfterValidator(_template_kwargs)]


class Writing(Sampling):
    """How to write, where the prompt goes through the model's chat template."""

    thinking: bool | None = Field(
        default=None,
        description="Whether a model that can reason does so before it answers; the deployment's choice when left out.",
    )
    reasoning_effort: ReasoningEffort | None = Field(
        default=None, description="How long a model that can reason is to do so, where its chat template knows that."
    )
    chat_template_kwargs: TemplateKwargs | None = Field(
        default=None, description="Further variables of the model's chat template."
    )
    response_format: ResponseFormat | None = Field(
        default=None, description="Hold the text to JSON, or to a JSON Schema, in OpenAI's shape."
    )
    guided_regex: GuidedRegex | None = Field(default=None, description="Hold the text to a regular expression.")
    guided_choice: GuidedChoice | None = Field(default=None, description="Hold the text to one of these.")
    tools: Tools | None = Field(default=None, description="Functions that the model may ask to call, as OpenAI's.")
    tool_choice: ToolChoice | None = Field(
        default=None,
        validate_default=True,
        description="Whether it may call one (auto), must (required or a function's name), or not (none).",
    )
    parallel_tool_calls: bool | None = Field(
        default=None, description="Whether it may call several at once; the model's choice when left out."
    )

    @field_validator("guided_regex", "guided_choice")
    @classmethod
    def _only_structure(cls, value: object, info: ValidationInfo) -> object:
        others = [name for name in ("response_format", "guided_regex") if _structures(info.data.get(name))]
        if value is not None and others and others != [info.field_name]:
            raise ValueError(f"may not stand beside {others[0]}: a text has one structure")
        return value

    @field_validator("tool_choice")
    @classmethod
    def _of_tools(cls, choice: ToolChoice | None, info: ValidationInfo) -> ToolChoice | None:
        names = {tool.function.name for tool in info.data.get("tools") or ()}
        if isinstance(choice, ChosenTool) and choice.function.name not in names:
            raise ValueError("must name one of the tools")
        if choice == "required" and not names:
            raise ValueError("needs tools")
        structure = [name for name in ("response_format", *_GUIDED) if _structures(info.data.get(name))]
        if structure and names and choice != "none":
            raise of_field("tools", f"may not stand beside {structure[0]}, unless tool_choice is none")
        return choice

    @property
    def thinks(self) -> bool | None:
        """Whether the model is to reason first, by `thinking`, the template's own switch, or the effort."""
        if self.thinking is not None:
            return self.thinking
        kwargs = self.chat_template_kwargs or {}
        switch = kwargs.get("enable_thinking", kwargs.get("thinking"))
        if isinstance(switch, bool):
            return switch
        return None if self.reasoning_effort is None else self.reasoning_effort not in ("none", "minimal")

    @property
    def offers_tools(self) -> bool:
        """Whether the model may call a function."""
        return bool(self.tools) and self.tool_choice != "none"


_GUIDED = ("guided_regex", "guided_choice")


def _structures(value: object) -> bool:
    return value is not None and not isinstance(value, TextFormat)


def _no_null(kind: Literal["string_type", "list_type"]) -> BeforeValidator:
    """A field that may be left out, but is no null where it stands. Its default is not validated."""

    def check(value: object) -> object:
        if value is None:
            raise PydanticKnownError(kind)
        return value

    return BeforeValidator(check)


class OptionalPrompt(StrictModel):
    """What stands before all other fields."""

    prompt: Annotated[PromptText | None, _no_null("string_type")] = Field(
        default=None,
        exclude_if=lambda value: value is None,
        description="What to write about, or what to paint, in any language.",
    )


class TextPrompt(Writing, OptionalPrompt):
    """One thing to write: a prompt, or a conversation to go on with."""

    messages: Annotated[Messages | None, _no_null("list_type")] = Field(
        default=None,
        exclude_if=lambda value: value is None,
        description="A conversation, in OpenAI's shape, which goes through the model's chat template; in place of the "
        "prompt.",
    )
    system: PromptText | None = Field(default=None, description="What the model is told before the conversation.")
    raw: bool | None = Field(
        default=None,
        validate_default=True,
        description="Whether the model goes on with the prompt as it is, without a chat template.",
    )

    @field_validator("messages")
    @classmethod
    def _one_prompt(cls, messages: Messages | None, info: ValidationInfo) -> Messages | None:
        if info.data.get("prompt") is not None:
            raise ValueError("may not stand beside prompt: send one of the two")
        return messages

    @field_validator("system")
    @classmethod
    def _one_system(cls, system: str | None, info: ValidationInfo) -> str | None:
        turns: list[ChatMessage] = info.data.get("messages") or []
        if system is not None and any(turn.role in ("system", "developer") for turn in turns):
            raise ValueError("may not stand beside a message of that role")
        return system

    @field_validator("raw")
    @classmethod
    def _with_prompt(cls, raw: bool | None, info: ValidationInfo) -> bool | None:
        """It comes last, and so it knows of the others."""
        if info.data.get("prompt", "") is None and info.data.get("messages", "") is None:
            raise of_field("prompt", "is required, or messages in its place")
        foreign = [name for name in _OF_TEMPLATES if info.data.get(name) is not None]
        if raw and foreign:
            raise ValueError(f"may not stand beside {foreign[0]}, which needs the chat template")
        return raw


_OF_TEMPLATES = ("messages", "system", "tools", "thinking", "reasoning_effort", "chat_template_kwargs")


class Painting(StrictModel):
    """How to paint. What is left out takes the model's own default."""

    negative_prompt: NegativePrompt | None = Field(default=None, description="What the picture is not to show.")
    size: PictureSize | None = Field(default=None, description="Width and height in pixels, such as 512x512.")
    steps: Steps | None = Field(default=None, description="Denoising steps: more take longer and look better.")
    guidance: Guidance | None = Field(default=None, description="How closely the picture keeps to the prompt.")
    n: PictureCount | None = Field(default=None, description="How many pictures; each has the next seed.")
    seed: Seed | None = Field(default=None, description="Same seed and same request: same result.")
    format: PictureFormat | None = Field(default=None, description="File format of the pictures; png when left out.")
    image: Omittable[PictureFile] = Field(
        default=None, repr=False, description="A picture to begin with: a PNG, JPEG or WebP file, in base64."
    )
    mask: Omittable[Mask] = Field(
        default=None,
        repr=False,
        description="Of the same size as `image`: what is white in it, or transparent, is painted anew, and nothing "
        "else.",
    )
    strength: Omittable[Strength] = Field(
        default=None,
        description="How much of `image` may change, and so which part of the steps is taken: 1 is all of it.",
    )


class PicturePrompt(Painting):
    """One thing to paint."""

    prompt: PromptText = Field(description="What to paint, in any language.")


class GenerationRequest(TextPrompt, Painting):
    """One generation. Only `prompt` is required, or `messages` in its place."""

    model: str | None = Field(
        default=None, description="Name of a served model; that of its kind which the prompt fits when left out."
    )
    kind: Kind | None = Field(default=None, description="To write or to paint; the model says when left out.")
    stream: bool = Field(default=False, description="Answer as server-sent events; false when left out.")
    previews: PreviewCount | None = Field(
        default=None, description="Small pictures on the way, in a stream; 0 when left out."
    )
    webhook: WebhookUrl | None = Field(
        default=None,
        description="Of a job, which Prefer: respond-async or an Idempotency-Key makes: where its end is posted to, as "
        "a signed CloudEvent; nowhere when left out.",
    )


class ModelChoice(StrictModel):
    """Which model is meant: the body of `POST /warm`."""

    model: str | None = Field(default=None, description="Name of a served model; its kind's default when left out.")
    kind: Kind | None = Field(default=None, description="To write or to paint; the first model's when left out.")


TEXT_FIELDS = frozenset(TextPrompt.model_fields) - frozenset(PicturePrompt.model_fields)
"""The fields of a request that only texts have."""

PICTURE_FIELDS = frozenset(PicturePrompt.model_fields) - frozenset(TextPrompt.model_fields) | {"previews"}
"""The fields of a request that only pictures have."""

MAKES: dict[Kind, str] = {"text": "writes texts", "image": "makes pictures"}

_FOREIGN_FIELDS: dict[Kind, frozenset[str]] = {"text": PICTURE_FIELDS, "image": TEXT_FIELDS}


def not_of_kind(model: str, kind: Kind) -> ProblemError:
    """INVALID_FIELD: the request asks for another kind than the model makes."""
    return invalid_field("kind", f"must be {kind} or left out: the model {model} {MAKES[kind]}")


def check_fits(request: GenerationRequest, model: str, kind: Kind) -> None:
    """Raise INVALID_FIELD when the request asks for another kind than the model makes, or has fields of the other
    kind."""
    if request.kind not in (None, kind):
        raise not_of_kind(model, kind)
    foreign = request.model_dump(exclude_none=True, include=set(_FOREIGN_FIELDS[kind]))
    if foreign:
        detail = f"the model {model} {MAKES[kind]} and does not take this"
        raise field_problem([FieldError(field=field, detail=detail) for field in foreign])
