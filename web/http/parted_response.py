"""Answers with pictures, sent in parts: whole, an answer would take their size once more, for as long as it is sent."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager

from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from contract import PictureResult
from contract.base64_parts import text_parts


class PartedResponse(StreamingResponse):
    """So many bytes, in parts. It needs a RequestGuard around it, which cancels it when the client has left."""

    def __init__(self, parts: Iterable[bytes], size: int, status: int = 200, *, headers: Mapping[str, str]) -> None:
        super().__init__(_content(parts), status, headers={**headers, "Content-Length": str(size)})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.stream_response(send)


class HeldResponse(Response):
    """What `make` makes, made and sent within `held`: the room that it takes in memory."""

    def __init__(self, held: AbstractAsyncContextManager[None], make: Callable[[], Awaitable[Response]]) -> None:
        super().__init__()
        self._held = held
        self._make = make

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._held:
            response = await self._make()
            await response(scope, receive, send)


async def _content(parts: Iterable[bytes]) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


def json_parts(document: str, files: Sequence[str], member: str = "data") -> tuple[Iterator[bytes], int]:
    """A JSON document without white space, and its size in bytes. Where there are `files`, in base64, each `member` of
    this name in it is empty and stands for one of them."""
    # Within a text quotes are escaped, so that this is a member.
    begin, *rest = document.split(f'"{member}":""') if files else [document]
    assert len(rest) == len(files)
    size = len(document.encode()) + sum(map(len, files))
    return _json_parts(begin, rest, files, member), size


def _json_parts(begin: str, rest: Sequence[str], files: Sequence[str], member: str) -> Iterator[bytes]:
    yield begin.encode()
    for file, after in zip(files, rest, strict=True):
        yield f'"{member}":"'.encode()
        yield from text_parts(file)
        yield b'"' + after.encode()


def without_files(result: PictureResult) -> PictureResult:
    """The result with empty `data`, for `json_parts`."""
    images = [picture.model_copy(update={"data": ""}) for picture in result.images]
    return result.model_copy(update={"images": images})
