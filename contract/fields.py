"""Field types that the public request and the OpenAI routes share, so that one limit holds everywhere."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from contract.limits import MAX_TOKENS, PROMPT_CHARS, STOP_CHARS, STOP_SEQUENCES


class StrictModel(BaseModel):
    """Unknown fields, wrong types, NaN and infinities are errors; instances do not change."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("must contain more than white space")
    return text


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


PromptText = Annotated[str, Field(min_length=1, max_length=PROMPT_CHARS), AfterValidator(_not_blank)]
TokenLimit = Annotated[int, Field(ge=1, le=MAX_TOKENS)]
Temperature = Annotated[float, Field(ge=0, le=2)]
TopP = Annotated[float, Field(gt=0, le=1)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
StopSequence = Annotated[str, Field(min_length=1, max_length=STOP_CHARS)]
StopSequences = Annotated[
    list[StopSequence],
    Field(max_length=STOP_SEQUENCES),
    BeforeValidator(
        _as_list, json_schema_input_type=StopSequence | Annotated[list[StopSequence], Field(max_length=STOP_SEQUENCES)]
    ),
]
