"""How many bytes of pictures this process holds at a time: of those that are being made, and of those that are being
read or sent."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from contract import PICTURE_SIDE, GenerationRequest, Kind, ProblemError, problems
from web.metrics import PICTURE_BYTES, PICTURE_MOST_BYTES

WAIT_SECONDS = 10.0
"""Longest that a request waits for room."""

RETRY_SECONDS = 5.0
"""Retry-After of one that found none."""

OTHER_BYTES = 1_048_576
"""What a result holds beside the bytes of its pictures, or as a text, at most."""

TEXT_BYTES = 33_554_432
"""Most that is read of a text's result."""

DEFAULT_PIXELS = 1_048_576
"""Of a picture whose size the request leaves to the model, until the model has made one."""

LARGER_PIXELS = 2
"""So many times its default may a picture have that is made from one that was sent in."""

_PIXEL_BYTES = 4
"""Of a picture that does not compress at all."""

_PNG_BYTES = 65_536
"""What a file may take beside its pixels."""


class PictureMemory:
    """Up to `most_bytes` of pictures in base64, which is how they come and are kept. Whoever needs more than is left
    waits, in the order in which they came; one that needs more than there is gets all of it."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._held = 0
        PICTURE_BYTES.set_function(lambda: self._held)
        PICTURE_MOST_BYTES.set(most_bytes)
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @asynccontextmanager
    async def held(self, size: int) -> AsyncGenerator[None]:
        """Around what takes so many bytes; OVERLOADED where they are not free for a while."""
        size = min(size, self._most_bytes)
        if size:
            await self._take(size)
        try:
            yield
        finally:
            self._held -= size
            self._let_in()

    async def _take(self, size: int) -> None:
        room: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((size, room))
        self._let_in()
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                await room
        except BaseException as error:
            if room.done() and not room.cancelled():
                self._held -= size
            self._waiting = deque(one for one in self._waiting if one[1] is not room)
            self._let_in()
            if not isinstance(error, TimeoutError):
                raise
            detail = f"Pictures take all of the {self._most_bytes / 2**20:.3g} MiB that are for them; no more are made."
            raise ProblemError(problems.OVERLOADED, detail, retry_after=RETRY_SECONDS) from None

    def _let_in(self) -> None:
        while self._waiting and self._held + self._waiting[0][0] <= self._most_bytes:
            size, room = self._waiting.popleft()
            if not room.done():
                self._held += size
                room.set_result(None)


def picture_bytes(request: GenerationRequest, pixels: int | None = None) -> int:
    """Most bytes in base64 of one picture of this request; of so many pixels where the request leaves that open, or of
    the largest there is."""
    if request.size is not None:
        width, height = map(int, request.size.split("x"))
        pixels = width * height
    return (_PIXEL_BYTES * (pixels or PICTURE_SIDE**2) + _PNG_BYTES) * 4 // 3


def sent_bytes(request: GenerationRequest) -> int:
    """Bytes in base64 of the pictures that a request sends in: as they came, and in what the model server is asked."""
    return 2 * sum(len(file) for file in (request.image, request.mask) if file is not None)


def result_bytes(request: GenerationRequest, kind: Kind) -> int:
    """Most bytes of a request's whole result, as JSON."""
    return TEXT_BYTES if kind == "text" else (request.n or 1) * picture_bytes(request) + OTHER_BYTES
