"""Files of pictures that clients send in. Pillow reads three formats of them, and only after their head has said that
they are not too large."""

from __future__ import annotations

import io
import warnings
from typing import Any

# They register their formats. Pillow would look for that of an unknown file in all its modules otherwise.
from PIL import Image, ImageChops, ImageOps, JpegImagePlugin, PngImagePlugin, WebPImagePlugin  # noqa: F401
from PIL.ExifTags import Base

from contract.base64_parts import decoded, file_text
from contract.limits import IMAGE_PIXELS, IMAGE_SIDE
from contract.models.description import Size
from contract.problems import ProblemError, invalid_field

FORMATS = ("PNG", "JPEG", "WEBP")

DRAFT = 2
"""A JPEG is decoded at the next eighth above so many times the size that it becomes: a photo takes little memory so."""

_SIDEWAYS = (5, 6, 7, 8)
"""Orientations of Exif with width and height changed over."""

# Pillow warns of what is a little beyond its own limit, which is larger than ours.
warnings.filterwarnings("error", category=Image.DecompressionBombWarning)


class PictureFile:
    """A file whose head has been read. Of an animation it is the first picture. `field` names it in problems."""

    def __init__(self, text: str, field: str) -> None:
        self._field = field
        try:
            self._image = Image.open(io.BytesIO(b"".join(decoded(file_text(text)))), formats=FORMATS)
        except (Image.DecompressionBombError, Image.DecompressionBombWarning):
            raise self._too_large() from None
        except Exception as error:  # whatever Pillow raises for damaged files
            raise self._unreadable(error) from None
        width, height = self._image.size
        if max(width, height) > IMAGE_SIDE or width * height > IMAGE_PIXELS:
            raise self._too_large()
        try:
            self._orientation = self._image.getexif().get(Base.Orientation, 1)  # decodes a PNG, where it may be last
        except Exception as error:
            raise self._unreadable(error) from None
        self.size: Size = (height, width) if self._sideways else (width, height)
        """As it is to be seen."""

    def picture(self, size: Size) -> Image.Image:
        """In RGB and of this size: what has another form loses its edges, and what is transparent is white."""
        image = self._fitted(size)
        if image.has_transparency_data:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        return image.convert("RGB")

    def mask(self, size: Size) -> Image.Image:
        """In grey and of this size. Where a part is transparent, that is white and the rest is black, as in OpenAI's
        masks."""
        image = self._fitted(size)
        if image.has_transparency_data:
            alpha = image.convert("RGBA").getchannel("A")
            lowest: Any = alpha.getextrema()[0]
            if lowest < 255:
                return ImageChops.invert(alpha)
        return image.convert("L")

    @property
    def _sideways(self) -> bool:
        return self._orientation in _SIDEWAYS

    def _fitted(self, size: Size) -> Image.Image:
        width, height = reversed(size) if self._sideways else size
        try:
            self._image.draft(None, (DRAFT * width, DRAFT * height))
            self._image.load()
            image: Image.Image = self._image
            if image.mode.startswith("I;16"):  # Pillow would cut off what is above 255
                image = image.point(lambda value: value / 256)
            if image.mode not in ("RGB", "RGBA", "L", "LA", "CMYK"):  # as those of palettes, whose numbers do not mix
                image = image.convert("RGBA" if image.has_transparency_data else "RGB")
            fitted = image if image.size == (width, height) else ImageOps.fit(image, (width, height))
            return ImageOps.exif_transpose(fitted)
        except Exception as error:
            raise self._unreadable(error) from None

    def _too_large(self) -> ProblemError:
        return invalid_field(
            self._field, f"may have sides of at most {IMAGE_SIDE} pixels, and at most {IMAGE_PIXELS} pixels together"
        )

    def _unreadable(self, error: Exception) -> ProblemError:
        return invalid_field(self._field, f"is no PNG, JPEG or WebP file that can be read ({type(error).__name__})")
