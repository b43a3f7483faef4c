"""Model servers that die at a point of their answer."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass, field

import httpx2

Say = bytes | tuple[bytes, Exception] | Exception | httpx2.Response


@dataclass
class DyingServer:
    """Gives one answer after the other: a whole stream, the beginning of one and how the connection breaks, how it is
    refused, or a response. The last one is given again and again."""

    answers: list[Say]
    asked: list[httpx2.Request] = field(default_factory=list)

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        if request.method == "GET":  # whether it is ready
            return httpx2.Response(200)
        answer = self.answers[min(len(self.asked), len(self.answers) - 1)]
        self.asked.append(request)
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, httpx2.Response):
            return answer
        said, end = answer if isinstance(answer, tuple) else (answer, None)

        async def content() -> AsyncGenerator[bytes]:
            yield said
            if end is not None:
                raise end

        return httpx2.Response(200, headers={"Content-Type": "text/event-stream"}, content=content())
