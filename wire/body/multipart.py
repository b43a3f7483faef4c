"""Forms with files (multipart/form-data, RFC 7578), as OpenAI's clients send pictures.

The body is in memory already, within its limit: no part is written to a disk, as Starlette's own reader would.
"""

from __future__ import annotations

import base64
import logging
from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from contract import RequestLimits, problems
from contract.problems import ProblemError, invalid_field, invalid_fields
from wire.body.strict_json import whole_body

logging.getLogger("python_multipart").setLevel(logging.WARNING)  # it logs every piece of a form

Body = TypeVar("Body", bound=BaseModel)

MEDIA_TYPE = "multipart/form-data"

PARTS = 64
"""Most parts of a form."""

PART_HEADERS, PART_HEADER_BYTES = 8, 1_024
"""Most header fields of a part, and the longest of them."""

NAME_CHARS = 64
"""Longest name of a part."""

TEXT_BYTES = 1_048_576
"""Longest part that is no file."""


@dataclass(slots=True)
class Part:
    """One part. It is a file where it has a `filename`."""

    name: str = ""
    filename: str | None = None
    data: bytearray = field(default_factory=bytearray)


def is_multipart(http_request: Request) -> bool:
    """Whether the body says that it is such a form."""
    return http_request.headers.get("content-type", "").partition(";")[0].strip().lower() == MEDIA_TYPE


async def multipart_parts(http_request: Request) -> list[Part]:
    """The parts of the body, in their order. MALFORMED_BODY or INVALID_FIELD says what is wrong with it."""
    _, options = parse_options_header(http_request.headers.get("content-type"))
    boundary = options.get(b"boundary")
    if not boundary:
        raise _malformed("its Content-Type names no boundary")
    if http_request.headers.get("content-encoding", "identity").lower() != "identity":
        raise ProblemError(problems.UNSUPPORTED_MEDIA_TYPE, "The body is compressed; send it as it is.")
    form = _Form()
    try:
        parser = MultipartParser(
            boundary, form.callbacks, max_header_count=PART_HEADERS, max_header_size=PART_HEADER_BYTES
        )
        parser.write(await whole_body(http_request))
        parser.finalize()
    except FormParserError as error:
        raise _malformed(str(error)) from None
    if not form.whole:
        raise _malformed("its end is missing")
    return form.parts


async def multipart_body(
    http_request: Request, model: type[Body], files: Collection[str], limits: RequestLimits | None = None
) -> Body:
    """The form as `model`: numbers are read from their texts, and the parts named in `files` become base64. A part may
    be named as an element of a list (`image[]`), as long as there is one."""
    values: defaultdict[str, list[Any]] = defaultdict(list)
    for part in await multipart_parts(http_request):
        name = part.name.removesuffix("[]")
        if name in files:
            values[name].append(base64.b64encode(part.data).decode())
            continue
        if part.filename is not None:
            raise invalid_field(name, f"is no file here; files are {', '.join(files)}")
        if len(part.data) > TEXT_BYTES:
            raise invalid_field(name, f"may have at most {TEXT_BYTES} bytes")
        try:
            values[name].append(part.data.decode())
        except UnicodeDecodeError:
            raise invalid_field(name, "is no UTF-8") from None
    for name, given in values.items():
        if len(given) > 1:
            raise invalid_field(name, "is taken once only")
    try:
        # Texts are all that a form has: not strict.
        return model.model_validate({name: given[0] for name, given in values.items()}, strict=False, context=limits)
    except ValidationError as error:
        raise invalid_fields(error, model) from None


class _Form:
    """What the parser finds."""

    def __init__(self) -> None:
        self.parts: list[Part] = []
        self.whole = False
        self._header = bytearray()
        self._value = bytearray()
        self.callbacks: Any = {
            "on_part_begin": self._begin,
            "on_header_field": lambda data, start, end: self._header.extend(data[start:end]),
            "on_header_value": lambda data, start, end: self._value.extend(data[start:end]),
            "on_header_end": self._end_header,
            "on_headers_finished": self._check_name,
            "on_part_data": lambda data, start, end: self.parts[-1].data.extend(data[start:end]),
            "on_end": self._end,
        }

    def _begin(self) -> None:
        if len(self.parts) == PARTS:
            raise _malformed(f"it has more than {PARTS} parts")
        self.parts.append(Part())

    def _end_header(self) -> None:
        header, value = bytes(self._header).lower(), bytes(self._value)
        self._header.clear()
        self._value.clear()
        if header == b"content-disposition":
            kind, options = parse_options_header(value)
            if kind == b"form-data":
                part = self.parts[-1]
                part.name = options.get(b"name", b"").decode(errors="replace")
                part.filename = options[b"filename"].decode(errors="replace") if b"filename" in options else None
        elif header == b"content-transfer-encoding" and value.lower() not in (b"binary", b"8bit", b"7bit"):
            raise _malformed("a part of it has a Content-Transfer-Encoding")

    def _check_name(self) -> None:
        if not 1 <= len(self.parts[-1].name) <= NAME_CHARS:
            raise _malformed(f"a part of it has no name, or one of more than {NAME_CHARS} characters")

    def _end(self) -> None:
        self.whole = True


def _malformed(why: str) -> ProblemError:
    return ProblemError(problems.MALFORMED_BODY, f"The body is no form that can be read: {why}.")
