"""OpenAI's pictures: the bodies of requests, with further fields that diffusion models take.

Fields that diffusers does not know are accepted as long as they ask for what is done anyway.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from contract.fields import (
    Guidance,
    Mask,
    NegativePrompt,
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
    only,
)
from contract.request import GenerationRequest, Painting

_PAINTING = ("negative_prompt", "size", "steps", "guidance", "n", "seed")


def _none_if_auto(value: object) -> object:
    """OpenAI's "auto" leaves the choice to the model, and so does None."""
    return None if value == "auto" else value


class ImagesRequest(StrictModel):
    """Body of `POST /v1/images/generations`."""

    model: str | None = None
    prompt: PromptText
    n: PictureCount | None = None
    size: Annotated[PictureSize | None, BeforeValidator(_none_if_auto)] = None
    output_format: PictureFormat | None = None
    stream: bool | None = None
    partial_images: PreviewCount | None = None
    response_format: Literal["b64_json", "url"] | None = None
    # Beyond OpenAI's
    negative_prompt: NegativePrompt | None = None
    steps: Steps | None = None
    guidance: Guidance | None = None
    seed: Seed | None = None
    progress: bool = Field(default=False, description="Whether a stream tells of every denoising step.")
    # Accepted only where they ask for what is done anyway
    quality: Annotated[str | None, AfterValidator(only("auto", "standard"))] = None
    background: Annotated[str | None, AfterValidator(only("auto", "opaque"))] = None
    moderation: Annotated[str | None, AfterValidator(only("auto"))] = None
    style: Annotated[str | None, AfterValidator(only(None))] = None
    output_compression: Annotated[int | None, AfterValidator(only(None))] = None
    complexity: Annotated[Any, AfterValidator(only(None))] = None
    frame_count: Annotated[Any, AfterValidator(only(None))] = None
    frame_duration_ms: Annotated[Any, AfterValidator(only(None))] = None
    svg: Annotated[Any, AfterValidator(only(None))] = None
    # Accepted whatever they say
    safety_identifier: str | None = None
    user: str | None = None

    @property
    def names(self) -> dict[str, str]:
        """What this body calls the fields of its request that have another name there."""
        return {"format": "output_format", "previews": "partial_images"}

    @property
    def painting(self) -> Painting:
        return Painting.model_validate({name: getattr(self, name) for name in _PAINTING})

    @property
    def previews(self) -> int:
        """How many of each picture."""
        return (self.partial_images or 0) if self.stream else 0

    @property
    def request(self) -> GenerationRequest:
        """The same of `POST /generate`."""
        request = GenerationRequest(kind="image", prompt=self.prompt, model=self.model, stream=bool(self.stream))
        painting = {**dict(self.painting), "format": self.output_format, "previews": self.previews or None}
        return request.model_copy(update=painting)  # all of which was checked already


class EditRequest(ImagesRequest):
    """Body of `POST /v1/images/edits`: JSON with the files in base64, or a form."""

    image: PictureFile
    mask: Mask | None = None
    strength: Strength | None = None  # beyond OpenAI's
    # Accepted only where they ask for what is done anyway
    input_fidelity: Annotated[str | None, AfterValidator(only("low"))] = None
    markup: Annotated[Any, AfterValidator(only(None))] = None

    @property
    def painting(self) -> Painting:
        files = {"image": self.image, "mask": self.mask, "strength": self.strength}
        return super().painting.model_copy(update=files)  # which were checked already, and are large
