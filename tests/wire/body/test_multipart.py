"""Forms with files: read as clients write them, and refused with what is wrong with them."""

from __future__ import annotations

import base64
import logging
from typing import Any

import httpx2
import pytest
from starlette.requests import Request

from contract import ProblemError, problems
from contract.fields import PictureFile, Steps, StrictModel
from wire.body.multipart import NAME_CHARS, PART_HEADER_BYTES, PARTS, is_multipart, multipart_body, multipart_parts

PNG = b"\x89PNG\r\n\x1a\n\r\n--not the boundary--\r\n"


class Form(StrictModel):
    image: PictureFile
    prompt: str = ""
    steps: Steps | None = None
    strength: float | None = None
    stream: bool | None = None


def request_of(content: bytes, content_type: str = "multipart/form-data; boundary=b", **headers: str) -> Request:
    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": content, "more_body": False}

    fields = {"content-type": content_type, **headers}
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in fields.items()]
    return Request({"type": "http", "method": "POST", "path": "/", "headers": raw}, receive)


def written(data: dict[str, str] | None = None, **files: Any) -> Request:
    """By another implementation of the format."""
    request = httpx2.Request("POST", "http://x.test", data=data, files=files)
    return request_of(request.read(), request.headers["content-type"])


def part(name: str, value: str, *more: str) -> bytes:
    lines = ["--b", f'Content-Disposition: form-data; name="{name}"', *more, "", value, ""]
    return "\r\n".join(lines).encode()


END = b"--b--\r\n"


async def test_texts_become_numbers_and_files_base64() -> None:
    fields = {"prompt": "画一只猫", "steps": "7", "strength": "0.25", "stream": "true"}
    form = await multipart_body(written(fields, image=("cat.png", PNG, "image/png")), Form, ["image"])
    assert form.model_dump() == {
        "image": base64.b64encode(PNG).decode(),
        "prompt": "画一只猫",
        "steps": 7,
        "strength": 0.25,
        "stream": True,
    }


async def test_a_list_of_one_is_that_one() -> None:
    form = await multipart_body(written({}, **{"image[]": ("cat.png", PNG)}), Form, ["image"])
    assert base64.b64decode(form.image) == PNG


@pytest.mark.parametrize(
    ("content", "named", "detail"),
    [
        (part("prompt", "x"), "image", "is required"),
        (part("image", "GIF89a"), "image", "PNG, JPEG or WebP"),
        (part("image", "\u00ff"), "image", "PNG, JPEG or WebP"),
        (2 * part("prompt", "x"), "prompt", "once only"),
        (part("prompt[]", "x") + part("prompt", "y"), "prompt", "once only"),
        (part("tools", "x"), "tools", "unknown field"),
        (part("steps", "many"), "steps", "valid integer"),
        (part("strength", "nan"), "strength", "finite number"),
        (b'--b\r\nContent-Disposition: form-data; name="steps"; filename="x"\r\n\r\n1\r\n', "steps", "no file here"),
        (b'--b\r\nContent-Disposition: form-data; name="prompt"\r\n\r\n\xff\r\n', "prompt", "no UTF-8"),
        (part("prompt", "x" * 1_048_577), "prompt", "at most 1048576 bytes"),
    ],
    ids=lambda value: str(value)[:30],
)
async def test_what_is_wrong_is_named(content: bytes, named: str, detail: str) -> None:
    with pytest.raises(ProblemError) as caught:
        await multipart_body(request_of(content + END), Form, ["image"])
    errors = caught.value.problem.errors or []
    assert (named, True) in [(error.field, detail in error.detail) for error in errors]
    assert caught.value.kind is problems.INVALID_FIELD


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"x",
        part("prompt", "x"),
        b"--b\r\n\r\nx\r\n" + END,
        b"--b\r\nContent-Disposition: attachment; name=prompt\r\n\r\nx\r\n" + END,
        part("prompt", "x", "Content-Transfer-Encoding: base64") + END,
        part("x" * (NAME_CHARS + 1), "x") + END,
        part("prompt", "x") * (PARTS + 1) + END,
        part("prompt", "x", "X-Long: " + "x" * PART_HEADER_BYTES) + END,
        part("prompt", "x", *["X-More: x"] * 8) + END,
    ],
    ids=range(10),
)
async def test_what_is_no_form_is_a_malformed_body(content: bytes) -> None:
    with pytest.raises(ProblemError) as caught:
        await multipart_parts(request_of(content))
    assert caught.value.kind is problems.MALFORMED_BODY


@pytest.mark.parametrize("content_type", ["multipart/form-data", f"multipart/form-data; boundary={'x' * 300}"])
async def test_a_form_without_a_boundary_is_refused(content_type: str) -> None:
    with pytest.raises(ProblemError) as caught:
        await multipart_parts(request_of(b"", content_type))
    assert caught.value.kind is problems.MALFORMED_BODY


async def test_a_compressed_one_is_refused() -> None:
    with pytest.raises(ProblemError) as caught:
        await multipart_parts(request_of(END, content_encoding="gzip"))
    assert caught.value.kind is problems.UNSUPPORTED_MEDIA_TYPE


def test_it_is_known_by_its_media_type() -> None:
    assert is_multipart(request_of(b"", "Multipart/Form-Data; boundary=x"))
    assert not is_multipart(request_of(b"", "application/json"))


def test_its_parser_logs_no_pieces() -> None:
    assert not logging.getLogger("python_multipart.multipart").isEnabledFor(logging.INFO)
