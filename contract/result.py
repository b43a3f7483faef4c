"""What a client gets."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from contract.fields import Omittable, StrictModel
from contract.texts.logprobs import TokenLogprob
from contract.texts.tools import ToolCall

FinishReason = Literal["stop", "length", "tool_calls"]

Fingerprint = Annotated[
    Omittable[str],
    Field(description="What decided the result beside the request: where it is equal, so is what a seed gives."),
]


class Usage(StrictModel):
    """Tokens read and written."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: Omittable[int] = Field(
        default=None, description="Of the prompt's, those that need not be computed again; absent where there are none."
    )


class Timing(StrictModel):
    """Seconds, as `web` saw them."""

    queue_s: float | None = Field(description="Wait for a slot; null when the runtime behind does not tell.")
    first_token_s: float = Field(description="From the arrival of the request to the first token.")
    total_s: float = Field(description="From the arrival of the request to the last token.")


class TextResult(StrictModel):
    """A finished text."""

    id: str
    model: str
    kind: Literal["text"] = "text"
    text: str
    reasoning_content: Omittable[str] = Field(
        default=None, description="What the model has thought before its answer; absent where it thought nothing."
    )
    tool_calls: Omittable[list[ToolCall]] = Field(
        default=None, description="The functions that it asks to call; absent where it calls none."
    )
    logprobs: Omittable[list[TokenLogprob]] = Field(
        default=None, description="How likely its tokens were, where `top_logprobs` asked for that."
    )
    finish_reason: FinishReason = Field(
        description="`stop`: the text is complete; `length`: max_tokens cut it; `tool_calls`: it calls functions."
    )
    usage: Usage
    timing: Timing
    system_fingerprint: Fingerprint = None


class Picture(StrictModel):
    """One picture, in a file format that browsers show."""

    data: str = Field(description="The file, in base64.")
    media_type: str
    seed: int | None = Field(
        description="Asked for with n = 1, it gives this picture again; null when the runtime behind does not tell."
    )
    width: int
    height: int


class LinkedPicture(StrictModel):
    """One picture by its address, where that was asked for. What is stored, or is an event, has files."""

    url: str = Field(description="Where its file is; whoever has the address can read it until it expires.")
    expires_at: str = Field(description="When that is, in RFC 3339 and UTC.")
    media_type: str
    seed: int | None = Field(
        description="Asked for with n = 1, it gives this picture again; null when the runtime behind does not tell."
    )
    width: int
    height: int


class PictureTiming(StrictModel):
    """Seconds, as `web` saw them."""

    queue_s: float | None = Field(description="Wait for a slot; null when the runtime behind does not tell.")
    total_s: float = Field(description="From the arrival of the request to the last picture.")


class PictureResult(StrictModel):
    """Finished pictures."""

    id: str
    model: str
    kind: Literal["image"] = "image"
    images: list[Picture] = Field(min_length=1)
    steps: int | None = Field(default=None, description="Denoising steps that were taken.")
    understood: list[str] | None = Field(
        default=None, description="The words of the prompt that the model knows; null when it reads any text."
    )
    timing: PictureTiming
    system_fingerprint: Fingerprint = None


Result = Annotated[TextResult | PictureResult, Field(discriminator="kind")]

RESULT: TypeAdapter[TextResult | PictureResult] = TypeAdapter(Result)
"""Validates the document of either kind."""


def result_of_any_version(document: str | bytes) -> TextResult | PictureResult:
    """See StrictModel.of_any_version."""
    return RESULT.validate_json(document, extra="ignore")
