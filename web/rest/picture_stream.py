"""The events of an OpenAI-style image stream: the members that web reads.

`started`, `progress` and the members `seed`, `steps`, `step`, `image_index`, `understood` and `system_fingerprint` are
our own predictor's extensions: other runtimes leave them out.
"""

from __future__ import annotations

import binascii
import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError

from contract import PICTURES
from contract.base64_parts import decoded
from contract.fields import PictureFormat
from web.client.failures import unusable_event


def _base64(text: str) -> str:
    """Checked, and left as it is: the client gets it in base64, too. Checked in parts: a picture is large."""
    try:
        for _ in decoded(text):
            pass
    except binascii.Error as error:
        raise ValueError("is no base64") from error
    return text


FileText = Annotated[str, Field(min_length=1), AfterValidator(_base64)]
Index = Annotated[int, Field(ge=0, lt=PICTURES)]
_PIXELS = "[1-9][0-9]{0,4}x[1-9][0-9]{0,4}"
Pixels = Annotated[str, Field(pattern=f"^{_PIXELS}$")]


def _known(size: object) -> object:
    """Only the size of a finished picture is needed: of others OpenAI may say "auto", and runtimes what they like."""
    return size if isinstance(size, str) and re.fullmatch(_PIXELS, size) else None


class _StreamEvent(BaseModel):
    """Other members are ignored."""

    model_config = ConfigDict(allow_inf_nan=False)

    system_fingerprint: str | None = None


class Started(_StreamEvent):
    """The pictures have left the queue."""

    type: Literal["image_generation.started", "image_edit.started"]
    queue_s: float | None = Field(default=None, ge=0)


class Progress(_StreamEvent):
    """Some steps are done."""

    type: Literal["image_generation.progress", "image_edit.progress"]
    step: int = Field(ge=0)
    of: int = Field(ge=1)
    eta_s: float | None = Field(default=None, ge=0)


class PartialImage(_StreamEvent):
    """A preview."""

    type: Literal["image_generation.partial_image", "image_edit.partial_image"]
    b64_json: FileText
    output_format: PictureFormat
    size: Annotated[Pixels | None, BeforeValidator(_known)] = None
    image_index: Index | None = None
    step: int | None = Field(default=None, ge=0)


class Completed(_StreamEvent):
    """One picture."""

    type: Literal["image_generation.completed", "image_edit.completed"]
    b64_json: FileText
    output_format: PictureFormat
    size: Pixels
    image_index: Index | None = None
    seed: int | None = Field(default=None, ge=0)
    steps: int | None = Field(default=None, ge=1)
    understood: list[str] | None = None


PictureStreamEvent = Started | Progress | PartialImage | Completed

_EVENT: TypeAdapter[PictureStreamEvent] = TypeAdapter(Annotated[PictureStreamEvent, Field(discriminator="type")])


def parse_picture_event(url: str, data: bytes) -> PictureStreamEvent:
    """An event of the model server at `url`. Raises its problem where it is one, BAD_UPSTREAM where it is unusable."""
    try:
        return _EVENT.validate_json(data)
    except ValidationError:
        raise unusable_event(url, data) from None
