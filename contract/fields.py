"""Field types that the public request and the OpenAI routes share, and so their limits. Those that a deployment sets
come as the context of a validation: contract.limits.RequestLimits."""

from __future__ import annotations

import binascii
import json
import re
from collections.abc import Callable
from typing import Annotated, Any, Literal, Self, TypeVar, cast

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)
from pydantic_core import PydanticKnownError

from contract.base64_parts import decoded, decoded_size, file_text
from contract.limits import (
    GUIDANCE,
    IMAGE_BYTES,
    IMAGE_CHARS,
    PICTURE_SIDE,
    PICTURES,
    PREVIEWS,
    STEPS,
    STOP_CHARS,
    STOP_SEQUENCES,
    WEBHOOK_CHARS,
    RequestLimits,
)

T = TypeVar("T")
Omittable = Annotated[T | None, Field(exclude_if=lambda value: value is None)]
"""What is not written where there is none, so that older readers, which do not know it, are not surprised."""


class StrictModel(BaseModel):
    """Unknown fields, wrong types, NaN and infinities are errors; instances do not change."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        frozen=True,
        allow_inf_nan=False,
        hide_input_in_errors=True,  # a traceback in the log would show the prompt
    )

    @classmethod
    def of_any_version(cls, document: str | bytes) -> Self:
        """From JSON that is stored, is an event, or is another version's answer: fields that are unknown here are
        ignored, on every level. Clients get to know of theirs by `model_validate_json`."""
        return cls.model_validate_json(document, extra="ignore")


def only(*neutral: object) -> Callable[[object], object]:
    """A validator that accepts None and the values `neutral`, which change nothing: clients send such out of habit."""

    def check(value: object) -> object:
        if value is not None and value not in neutral:
            raise ValueError(f"is not supported here; leave it out or send {json.dumps(neutral[0])}")
        return value

    return check


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("must contain more than white space")
    return text


def _not_too_long(text: str, info: ValidationInfo) -> str:
    if isinstance(info.context, RequestLimits) and len(text) > info.context.prompt_chars:
        raise PydanticKnownError("string_too_long", {"max_length": info.context.prompt_chars})
    return text


def _not_too_many(tokens: int, info: ValidationInfo) -> int:
    if isinstance(info.context, RequestLimits) and tokens > info.context.max_tokens:
        raise PydanticKnownError("less_than_equal", {"le": info.context.max_tokens})
    return tokens


def text_or_list(value: object) -> object:
    """For a field that takes either, before the text is made a list."""
    if not isinstance(value, str | list | tuple):
        raise ValueError("must be a text or a list")
    return value


def one_or_list(value: Any, several: ValidatorFunctionWrapHandler) -> Any:
    """A text stands for the list of it. What is wrong with it is wrong with the field, which has no place 0."""
    if not isinstance(text_or_list(value), str):
        return several(value)
    try:
        return several([value])
    except ValidationError as error:
        first = error.errors()[0]
        context = first.get("ctx", {})
        if first["type"] == "value_error":
            raise context["error"] from None
        raise PydanticKnownError(cast(Any, first["type"]), context) from None


def _size(text: str) -> str:
    sides = re.fullmatch(r"([0-9]{1,5})x([0-9]{1,5})", text)
    if sides is None or not all(1 <= int(side) <= PICTURE_SIDE for side in sides.groups()):
        raise ValueError(f"must be a width and a height such as 512x512, each from 1 to {PICTURE_SIDE}")
    return text


_FILE_HEADS = ("iVBORw0K", "/9j/", "UklG")
"""How PNG, JPEG and WebP files begin, in base64."""


def _picture_file(text: str) -> str:
    """Only the beginning is looked at, and that it is base64: whether it is a picture shows when it is decoded."""
    file = file_text(text)
    if decoded_size(file) > IMAGE_BYTES:
        raise ValueError(f"the file may have at most {IMAGE_BYTES} bytes")
    if not file.startswith(_FILE_HEADS):
        raise ValueError("must be a PNG, JPEG or WebP file in base64, or a data: URL of one")
    try:
        for _ in decoded(file):
            pass
    except binascii.Error:
        raise ValueError("is no base64") from None
    return text


def _beside_image(value: T, info: ValidationInfo) -> T:
    """`image` stands before it in the model; where it is wrong itself, that alone is told."""
    if "image" in info.data and info.data["image"] is None:
        raise ValueError("is taken beside image only")
    return value


PromptText = Annotated[str, Field(min_length=1), AfterValidator(_not_too_long), AfterValidator(_not_blank)]
TokenLimit = Annotated[int, Field(ge=1), AfterValidator(_not_too_many)]
Temperature = Annotated[float, Field(ge=0, le=2)]
TopP = Annotated[float, Field(gt=0, le=1)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
StopSequence = Annotated[str, Field(min_length=1, max_length=STOP_CHARS)]
StopSequences = Annotated[
    list[StopSequence],
    Field(max_length=STOP_SEQUENCES),
    WrapValidator(
        one_or_list,
        json_schema_input_type=StopSequence | Annotated[list[StopSequence], Field(max_length=STOP_SEQUENCES)],
    ),
]

PictureSize = Annotated[str, AfterValidator(_size), Field(json_schema_extra={"pattern": "^[0-9]{1,5}x[0-9]{1,5}$"})]
Steps = Annotated[int, Field(ge=1, le=STEPS)]
Guidance = Annotated[float, Field(ge=0, le=GUIDANCE)]
PictureCount = Annotated[int, Field(ge=1, le=PICTURES)]
PreviewCount = Annotated[int, Field(ge=0, le=PREVIEWS)]
PictureFormat = Literal["png", "jpeg", "webp"]
PictureFile = Annotated[
    str,
    AfterValidator(_picture_file),
    Field(
        json_schema_extra={
            "maxLength": IMAGE_CHARS,
            "pattern": f"^(data:image/[a-z]{{1,16}};base64,)?({'|'.join(_FILE_HEADS)})([A-Za-z0-9+/]{{4}})*"
            "([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$",
        }
    ),
]
Mask = Annotated[PictureFile, AfterValidator(_beside_image)]
Strength = Annotated[float, Field(gt=0, le=1), AfterValidator(_beside_image)]
NegativePrompt = Annotated[str, AfterValidator(_not_too_long)]
WebhookUrl = Annotated[str, Field(min_length=1, max_length=WEBHOOK_CHARS)]
"""Web says which it takes."""
