"""Files of pictures that clients send in: what becomes of them, and what is refused before it is decoded."""

from __future__ import annotations

import base64
import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from contract import ProblemError
from contract.limits import IMAGE_PIXELS, IMAGE_SIDE
from contract.request import Painting
from predictor.pictures.inputs.decoding import PictureFile
from predictor.pictures.inputs.source import read_source
from predictor.pictures.picture_sizes import PictureSizes


def encoded(image: Image.Image, form: str = "PNG", **options: Any) -> str:
    file = io.BytesIO()
    image.save(file, form, **options)
    return base64.b64encode(file.getvalue()).decode()


def halves(mode: str = "RGB", size: tuple[int, int] = (32, 16)) -> Image.Image:
    """Red on the left, blue on the right."""
    image = Image.new("RGB", size, "red")
    ImageDraw.Draw(image).rectangle((size[0] // 2, 0, *size), fill="blue")
    return image.convert(mode)


def colour(image: Image.Image, x: int, y: int) -> tuple[int, ...]:
    """To 16 levels, for what JPEG and WebP lose."""
    return tuple(round(value / 17) for value in image.convert("RGB").getpixel((x, y)))  # type: ignore[union-attr]


RED, BLUE = (15, 0, 0), (0, 0, 15)


@pytest.mark.parametrize(("form", "options"), [("PNG", {}), ("JPEG", {"quality": 95}), ("WEBP", {"lossless": True})])
def test_every_format_is_read_and_fitted(form: str, options: dict[str, Any]) -> None:
    file = PictureFile(encoded(halves(), form, **options), "image")
    assert file.size == (32, 16)
    image = file.picture((16, 8))
    assert (image.mode, image.size) == ("RGB", (16, 8))
    assert (colour(image, 2, 2), colour(image, 13, 6)) == (RED, BLUE)


def test_a_data_url_is_read_too() -> None:
    assert PictureFile("data:image/png;base64," + encoded(halves()), "image").size == (32, 16)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGBA", "LA", "I;16"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    image = Image.new("RGB", (32, 16), "white")
    image.paste((102, 102, 102), (0, 0, 16, 16))
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    elif mode == "1":
        image = image.convert("L").point(lambda value: 255 * (value > 128)).convert("1")
    else:
        image = image.convert(mode)
    read = PictureFile(encoded(image), "image").picture((32, 16))
    assert read.mode == "RGB"
    assert colour(read, 30, 8) == (15, 15, 15)
    assert colour(read, 2, 8) == ((0, 0, 0) if mode == "1" else (6, 6, 6))


def test_a_cmyk_jpeg_becomes_rgb() -> None:
    read = PictureFile(encoded(halves("CMYK"), "JPEG", quality=95), "image").picture((32, 16))
    assert (read.mode, colour(read, 2, 2)) == ("RGB", RED)


def test_what_is_transparent_is_white_in_a_picture_and_to_be_painted_in_a_mask() -> None:
    image = halves("RGBA")
    image.paste((0, 0, 0, 0), (16, 0, 32, 16))
    file = encoded(image)
    assert colour(PictureFile(file, "image").picture((32, 16)), 30, 8) == (15, 15, 15)
    mask = PictureFile(file, "mask").mask((32, 16))
    assert (mask.mode, mask.getpixel((2, 8)), mask.getpixel((30, 8))) == ("L", 0, 255)


def test_a_mask_without_transparency_is_its_brightness() -> None:
    image = Image.new("RGBA", (32, 16), "black")
    image.paste("white", (16, 0, 32, 16))
    mask = PictureFile(encoded(image), "mask").mask((32, 16))
    assert (mask.mode, mask.getpixel((2, 8)), mask.getpixel((30, 8))) == ("L", 0, 255)


@pytest.mark.parametrize(("orientation", "size", "red"), [(1, (32, 16), (2, 2)), (3, (32, 16), (29, 13)),
                                                          (6, (16, 32), (13, 2)), (8, (16, 32), (2, 29))])  # fmt: skip
def test_it_is_turned_as_its_exif_says(orientation: int, size: tuple[int, int], red: tuple[int, int]) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = PictureFile(encoded(halves(), "JPEG", quality=95, exif=exif), "image")
    assert file.size == size
    image = file.picture(size)
    assert image.size == size
    assert colour(image, *red) == RED


def test_another_form_loses_its_edges_and_is_not_stretched() -> None:
    image = Image.new("RGB", (64, 16), "white")
    ImageDraw.Draw(image).rectangle((24, 0, 39, 15), fill="red")  # a square in the middle
    read = PictureFile(encoded(image), "image").picture((16, 16))
    assert {colour(read, x, y) for x in (1, 14) for y in (1, 14)} == {RED}


def test_of_an_animation_it_is_the_first_picture() -> None:
    frames = [Image.new("RGB", (8, 8), name) for name in ("red", "blue")]
    for form in ("WEBP", "PNG"):
        file = encoded(frames[0], form, save_all=True, append_images=frames[1:], lossless=True)
        assert colour(PictureFile(file, "image").picture((8, 8)), 4, 4) == RED


def png(width: int, height: int, data: bytes = b"", **chunks: bytes) -> str:
    """A head that says this, and hardly any data."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    more = b"".join(chunk(name.encode(), content) for name, content in chunks.items())
    file = b"\x89PNG\r\n\x1a\n" + head + more + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")
    return base64.b64encode(file).decode()


@pytest.mark.parametrize(
    ("width", "height"),
    [
        (IMAGE_SIDE + 1, 1),
        (1, IMAGE_SIDE + 1),
        (4_096, IMAGE_PIXELS // 4_096 + 1),
        (9_500, 9_500),  # for which Pillow warns
        (65_535, 65_535),  # which Pillow refuses
        (2**31 - 1, 2**31 - 1),
    ],
)
def test_a_decompression_bomb_is_refused_by_its_head(width: int, height: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image.Image, "load", lambda *_: pytest.fail("it was decoded"))
    with pytest.raises(ProblemError) as caught:
        PictureFile(png(width, height), "mask")
    [error] = caught.value.problem.errors or []
    assert error.field == "mask"
    assert f"at most {IMAGE_SIDE} pixels, and at most {IMAGE_PIXELS} pixels together" in error.detail


BOMB = zlib.compress(b"\0" * 80_000_000, 9)
"""Of a text, or a colour profile."""


@pytest.mark.parametrize(
    "file",
    [
        "iVBORw0K",
        "/9j/",
        "UklGRg==",
        png(8, 8),
        encoded(halves())[:60],
        encoded(halves(size=(256, 256)), "JPEG", quality=95)[:400],
        encoded(halves(), "WEBP")[:60],
        base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"\0" * 64).decode(),
        base64.b64encode(b"RIFF\x10\0\0\0AVI LIST" + b"\0" * 64).decode(),
        png(8, 8, b"\0" * 72, zTXt=b"x\0\0" + BOMB),
        png(8, 8, b"\0" * 72, iTXt=b"x\0\1\0\0\0" + BOMB),
    ],
    ids=range(11),
)
def test_what_cannot_be_read_is_refused_by_name(file: str) -> None:
    with pytest.raises(ProblemError) as caught:
        PictureFile(file, "image").picture((8, 8))
    [error] = caught.value.problem.errors or []
    assert error.field == "image"
    assert "is no PNG, JPEG or WebP file that can be read" in error.detail


SIZES = PictureSizes(default=(64, 64), multiple=8, most_pixels=8_192, longest=512)


@pytest.mark.parametrize(
    ("of", "nearest"),
    [
        ((64, 64), (64, 64)),
        ((104, 72), (104, 72)),
        ((67, 61), (64, 64)),
        ((3, 3), (8, 8)),
        ((4_000, 3_000), (72, 56)),
        ((3_000, 4_000), (56, 72)),
        ((8_192, 1), (512, 8)),
        ((91, 90), (88, 88)),
        ((1, 8_192), (8, 512)),
        ((512, 16), (512, 16)),
    ],
)
def test_without_a_size_it_is_the_nearest_that_the_model_takes(of: tuple[int, int], nearest: tuple[int, int]) -> None:
    assert SIZES.nearest(of) == nearest
    assert SIZES.read("x".join(map(str, nearest))) == nearest


def test_of_named_sizes_it_is_the_one_of_the_nearest_form() -> None:
    sizes = PictureSizes(default=(64, 64), multiple=8, most_pixels=4_096, only=((64, 64), (80, 48), (48, 80)))
    assert [sizes.nearest(size) for size in ((100, 90), (160, 90), (1, 2))] == [(64, 64), (80, 48), (48, 80)]


def test_every_nearest_size_is_one_that_the_model_takes() -> None:
    for width in range(1, 200, 7):
        for height in (1, 5, 63, 64, 65, 130, 700, 5_000):
            size = SIZES.nearest((width, height))
            assert SIZES.read("x".join(map(str, size))) == size


def test_a_source_is_of_the_size_that_was_asked_for_or_else_its_own() -> None:
    image, mask = encoded(halves()), encoded(Image.new("L", (32, 16), 255))
    source = read_source(Painting(image=image, mask=mask), SIZES)
    assert source.mask is not None
    assert (source.image.size, source.mask.size, source.mask.mode) == ((32, 16), (32, 16), "L")
    assert read_source(Painting(image=image, size="16x16"), SIZES).image.size == (16, 16)


@pytest.mark.parametrize(("fields", "named"), [
    ({"size": "17x16"}, "size"),
    ({"mask": encoded(Image.new("L", (32, 17)))}, "mask"),
    ({"mask": png(8, 8)}, "mask"),
    ({"image": png(32, 16)}, "image"),
])  # fmt: skip
def test_what_does_not_fit_is_refused_by_name(fields: dict[str, str], named: str) -> None:
    with pytest.raises(ProblemError) as caught:
        read_source(Painting(**{"image": encoded(halves()), **fields}), SIZES)  # type: ignore[arg-type]
    assert [error.field for error in caught.value.problem.errors or []] == [named]
