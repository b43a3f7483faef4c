"""Pictures as PNG, JPEG or WebP files."""

from __future__ import annotations

import asyncio
import base64
import io

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from contract.fields import PictureFormat
from contract.result import Picture
from predictor.engine.events import PictureFinished

MEDIA_TYPES: dict[PictureFormat, str] = {"png": "image/png", "jpeg": "image/jpeg", "webp": "image/webp"}

_QUALITY = 92


def encode(picture: Image.Image, form: PictureFormat, notes: dict[str, str] | None = None) -> bytes:
    """The bytes of a file. `notes` go into the text chunks of a PNG; the other formats have none."""
    file = io.BytesIO()
    if form == "png":
        chunks = PngInfo()
        for name, text in (notes or {}).items():
            chunks.add_itxt(name, text)
        picture.save(file, "PNG", pnginfo=chunks)
    else:
        picture.convert("RGB").save(file, form.upper(), quality=_QUALITY)
    return file.getvalue()


def encode_finished(picture: PictureFinished, form: PictureFormat, prompt: str, model: str) -> bytes:
    """The bytes of a finished picture's file; a PNG says what it was made from."""
    prompt = prompt.replace("\0", "")  # a NUL would end the text chunk
    notes = {"prompt": prompt, "model": model, "seed": str(picture.seed), "steps": str(picture.steps)}
    return encode(picture.image, form, notes)


async def encoded(picture: PictureFinished, form: PictureFormat, prompt: str, model: str) -> Picture:
    """The same as the contract's picture. Another thread encodes it: a large PNG is slow."""
    file = await asyncio.to_thread(encode_finished, picture, form, prompt, model)
    return Picture(
        data=base64.b64encode(file).decode(),
        media_type=MEDIA_TYPES[form],
        seed=picture.seed,
        width=picture.image.width,
        height=picture.image.height,
    )
