"""Pictures as files."""

from __future__ import annotations

import io

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from contract.fields import PictureFormat
from predictor.engine.events import PictureFinished

MEDIA_TYPES: dict[PictureFormat, str] = {"png": "image/png", "jpeg": "image/jpeg", "webp": "image/webp"}

_QUALITY = 92


def encode(picture: Image.Image, form: PictureFormat, notes: dict[str, str] | None = None) -> bytes:
    """The file's bytes. `notes` go into a PNG's text chunks; the other formats have no place for them."""
    file = io.BytesIO()
    if form == "png":
        chunks = PngInfo()
        for name, text in (notes or {}).items():
            chunks.add_itxt(name, text)
        picture.save(file, "PNG", pnginfo=chunks)
    else:
        picture.convert("RGB").save(file, form.upper(), quality=_QUALITY)
    return file.getvalue()


def finished(painted: PictureFinished, form: PictureFormat, prompt: str, model: str) -> bytes:
    """The file of a finished picture; a PNG says what it was made from."""
    prompt = prompt.replace("\0", "")  # which a text chunk ends with
    notes = {"prompt": prompt, "model": model, "seed": str(painted.seed), "steps": str(painted.steps)}
    return encode(painted.image, form, notes)
