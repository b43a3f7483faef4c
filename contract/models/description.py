"""What a model says of itself: what it is good for, what it takes, and what it does where a request leaves a field out.

All of it may be absent: what is not known of a model is not said, and nothing is refused for it.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field

from contract.fields import Omittable, PictureSize, StrictModel
from contract.limits import PICTURE_SIDE, STEPS
from contract.problems import FieldError, field_problem, invalid_field
from contract.request import GenerationRequest, Kind

DESCRIPTION_FILE = "description.json"
"""In a model's folder: what its files do not tell, such as what it is good for."""

DESCRIPTION_BYTES = 16_384
"""Most bytes of a description, as JSON."""

LANGUAGES, EXAMPLES, WORDS, LINE_CHARS = 64, 16, 1_024, 256

Size = tuple[int, int]
"""Width and height in pixels."""

Line = Annotated[str, Field(min_length=1, max_length=LINE_CHARS)]
Language = Annotated[str, Field(pattern="^[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8})*$")]
Count = Annotated[int, Field(ge=1)]


class SizeLimits(StrictModel):
    """Of pictures: those in `only`, or else sides that are multiples of `multiple`, at most `side` long, and of at most
    `pixels` together."""

    multiple: Count = 1
    side: Count = PICTURE_SIDE
    pixels: Count
    only: Omittable[list[PictureSize]] = None

    def read(self, text: str) -> Size:
        """A request's size, as in "512x512". Raises a ProblemError that says which ones there are."""
        width, height = map(int, text.split("x"))
        if self.only is not None:
            if f"{width}x{height}" not in self.only:
                raise invalid_field("size", "must be one of " + ", ".join(self.only))
        elif (
            width % self.multiple
            or height % self.multiple
            or max(width, height) > self.side
            or width * height > self.pixels
        ):
            longest = "" if self.side >= PICTURE_SIDE else f"at most {self.side}, "
            raise invalid_field(
                "size",
                f"width and height must be multiples of {self.multiple}, {longest}"
                f"with at most {self.pixels} pixels together",
            )
        return width, height


class ModelLimits(StrictModel):
    """What a request may ask of a model."""

    prompt_chars: Omittable[Count] = Field(default=None, description="Of the prompt; this server's own limit.")
    max_tokens: Omittable[Count] = Field(default=None, description="This server's own limit.")
    context_tokens: Omittable[Count] = Field(default=None, description="Of the prompt and the answer together.")
    steps: Omittable[Annotated[int, Field(ge=1, le=STEPS)]] = Field(default=None, description="Denoising steps.")
    size: Omittable[SizeLimits] = None


class FieldDefaults(StrictModel):
    """What is taken where a request leaves it out."""

    max_tokens: Omittable[int] = None
    temperature: Omittable[float] = None
    top_p: Omittable[float] = None
    size: Omittable[PictureSize] = None
    steps: Omittable[int] = None
    guidance: Omittable[float] = None


Refusable = Literal["negative_prompt", "guidance", "steps", "image", "mask"]

_PARTS = ("limits", "defaults")


class ModelDescription(StrictModel):
    """Texts are by their languages: whoever shows them chooses."""

    summary: Omittable[dict[Language, Line]] = Field(default=None, description="What it is good for, in one line.")
    languages: Omittable[Annotated[list[Language], Field(max_length=LANGUAGES)]] = Field(
        default=None, description="Of the prompts that it understands."
    )
    examples: Omittable[dict[Language, Annotated[list[Line], Field(max_length=EXAMPLES)]]] = Field(
        default=None, description="Prompts to try it with."
    )
    vocabulary: Omittable[dict[Language, Annotated[list[Line], Field(max_length=WORDS)]]] = Field(
        default=None, description="The things that it knows, where it knows no others: the same ones in each language."
    )
    conversations: Omittable[bool] = Field(default=None, description="Whether it is made to go on with `messages`.")
    license: Omittable[Line] = Field(default=None, description="An SPDX expression.")
    refuses: Omittable[list[Refusable]] = Field(
        default=None, description="Fields of a request of its kind that it does not take."
    )
    limits: Omittable[ModelLimits] = None
    defaults: Omittable[FieldDefaults] = None

    def check(self, request: GenerationRequest, model: str) -> None:
        """Raise an INVALID_FIELD as the model would, as far as this tells."""
        limits = self.limits or ModelLimits()
        refused = [field for field in self.refuses or () if getattr(request, field) is not None]
        if refused:
            raise field_problem([FieldError(field=field, detail=f"{model} does not take this") for field in refused])
        if request.size is not None and limits.size is not None and request.image is None:
            limits.size.read(request.size)
        if request.steps is not None and limits.steps is not None and request.steps > limits.steps:
            raise invalid_field("steps", f"must be at most {limits.steps}: {model} takes no more")

    def over(self, other: Self) -> Self:
        """This, and what `other` says where this says nothing."""
        merged = other.model_dump(exclude_none=True)
        for name, value in self.model_dump(exclude_none=True).items():
            merged[name] = {**merged.get(name, {}), **value} if name in _PARTS else value
        return type(self).model_validate(merged)


NOT_DESCRIBED = ModelDescription()


class DescribedModel(ModelDescription):
    """One entry of `GET /models`: a served model, and what is known of it."""

    name: str
    kind: Kind


class DescribedModels(StrictModel):
    """The document at `/models`, in the order in which the models are served."""

    models: list[DescribedModel]
    default_model: str = Field(description="What a request goes to that names none, says no kind and fits no other.")
