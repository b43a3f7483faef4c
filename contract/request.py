"""What a client asks for: the body of `POST /generate`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from contract.fields import (
    Guidance,
    NegativePrompt,
    PictureCount,
    PictureFormat,
    PictureSize,
    PreviewCount,
    PromptText,
    Seed,
    Steps,
    StopSequences,
    StrictModel,
    Temperature,
    TokenLimit,
    TopP,
)
from contract.problems import FieldError, ProblemError, field_problem, invalid_field

Kind = Literal["text", "image"]


class Sampling(StrictModel):
    """How to write. What is left out takes the model's own default."""

    max_tokens: TokenLimit | None = Field(default=None, description="Stop after this many tokens.")
    temperature: Temperature | None = Field(default=None, description="0 always takes the likeliest token.")
    top_p: TopP | None = Field(default=None, description="Sample from the likeliest tokens of this total probability.")
    stop: StopSequences | None = Field(default=None, description="Stop before any of these texts (one or a list).")
    seed: Seed | None = Field(default=None, description="Same seed and same request: same result.")


class Writing(Sampling):
    """How to write, where the prompt goes through the model's chat template."""

    thinking: bool | None = Field(
        default=None,
        description="Whether a model that can reason does so before it answers; the deployment's choice when left out.",
    )


class TextPrompt(Writing):
    """One thing to write."""

    prompt: PromptText = Field(description="What to write about, in any language.")


class Painting(StrictModel):
    """How to paint. What is left out takes the model's own default."""

    negative_prompt: NegativePrompt | None = Field(default=None, description="What the picture is not to show.")
    size: PictureSize | None = Field(default=None, description="Width and height in pixels, such as 512x512.")
    steps: Steps | None = Field(default=None, description="Denoising steps: more take longer and look better.")
    guidance: Guidance | None = Field(default=None, description="How closely the picture keeps to the prompt.")
    n: PictureCount | None = Field(default=None, description="How many pictures; each has the next seed.")
    seed: Seed | None = Field(default=None, description="Same seed and same request: same result.")
    format: PictureFormat | None = Field(default=None, description="File format of the pictures; png when left out.")


class PicturePrompt(Painting):
    """One thing to paint."""

    prompt: PromptText = Field(description="What to paint, in any language.")


class GenerationRequest(TextPrompt, PicturePrompt):
    """One generation. Only `prompt` is required."""

    prompt: PromptText = Field(description="What to write about, or what to paint, in any language.")
    model: str | None = Field(default=None, description="Name of a served model; the first of its kind when left out.")
    kind: Kind | None = Field(default=None, description="To write or to paint; the model says when left out.")
    stream: bool = Field(default=False, description="Answer as server-sent events; false when left out.")
    previews: PreviewCount | None = Field(
        default=None, description="Small pictures on the way, in a stream; 0 when left out."
    )


class ModelChoice(StrictModel):
    """Which model is meant: the body of `POST /warm`."""

    model: str | None = Field(default=None, description="Name of a served model; the first of its kind when left out.")
    kind: Kind | None = Field(default=None, description="To write or to paint; the first served model when left out.")


TEXT_FIELDS = frozenset(Writing.model_fields) - frozenset(Painting.model_fields)
"""The fields of a request that only texts have."""

PICTURE_FIELDS = frozenset(Painting.model_fields) - frozenset(Writing.model_fields) | {"previews"}
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
    given = request.model_dump(exclude_none=True, include=set(_FOREIGN_FIELDS[kind]))
    if given:
        detail = f"the model {model} {MAKES[kind]} and does not take this"
        raise field_problem([FieldError(field=field, detail=detail) for field in given])
