"""ASGI middleware that stands between the socket and an application.

- The body is read whole, within a size and a time limit, before the application runs.
- The application is cancelled as soon as the client is gone. Starlette notices a closed connection only at its next
  send and KServe's routes not at all, so a generation would be computed to the end for nobody.
- An exception nobody handled becomes a problem document; its traceback goes to the log, never to the client.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from typing import Any

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from contract import problems
from contract.limits import BODY_BYTES, BODY_SECONDS
from contract.problems import ProblemError
from wire.problems import problem_response
from wire.sse import frame

log = logging.getLogger(__name__)

SEND_SECONDS = 30.0
"""Longest a client may refuse to take what is sent to it; then it counts as gone."""


LAST_SECONDS = 2.0
"""The end of a server's grace, in which what could not be finished is told so."""

REFUSED_BYTES = 33_554_432
"""Most that is read, and thrown away, of a body that has been refused."""


class Drain:
    """A server's end: `begin`, and some time later `end`, when the guards that have been given this tell it to what is
    still in flight."""

    def __init__(self) -> None:
        self.in_flight: set[asyncio.Future[Message]] = set()
        self._begun: float | None = None

    @property
    def seconds(self) -> float:
        """Since it has begun."""
        return 0.0 if self._begun is None else time.monotonic() - self._begun

    def begin(self) -> None:
        self._begun = time.monotonic()

    def end(self) -> None:
        for gone in self.in_flight:
            if not gone.done():
                gone.set_result({"type": _LEAVING})


_LEAVING = "shangcai.leaving"


class RequestGuard:
    """See the module; the limits bound what a client may send, how slowly it may send, and how slowly it may read.

    `respond` makes the answer to the request at a path out of a problem.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        body_bytes: int = BODY_BYTES,
        body_seconds: float = BODY_SECONDS,
        send_seconds: float = SEND_SECONDS,
        respond: Callable[[str, ProblemError], Response] = lambda _path, error: problem_response(error),
        leaving: Drain | None = None,
    ) -> None:
        self.app = app
        self.body_bytes = body_bytes
        self.body_seconds = body_seconds
        self.send_seconds = send_seconds
        self.respond = respond
        self.leaving = leaving or Drain()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        answering = answered = stalled = streaming = False
        gone: asyncio.Future[Message] = asyncio.get_running_loop().create_future()

        async def watched_send(message: Message) -> None:
            nonlocal answering, answered, stalled, streaming
            answering = True
            if message["type"] == "http.response.start":
                streaming = Headers(raw=message["headers"]).get("content-type", "").startswith("text/event-stream")
            try:
                async with asyncio.timeout(self.send_seconds):
                    await send(message)
            except TimeoutError:
                if not gone.done():
                    stalled = True
                    gone.set_result({"type": "http.disconnect"})
                await asyncio.Event().wait()  # until the application is cancelled
            answered = message["type"] == "http.response.body" and not message.get("more_body", False)

        try:
            body = await self._read_body(Headers(scope=scope), receive)
        except ProblemError as error:
            await self._refuse(error, scope, receive, send)
            return
        if body is None:
            log.info("499 %s %r: the client left within its body", scope["method"], scope["path"])
            return
        try:
            self.leaving.in_flight.add(gone)
            finished = await self._run(scope, body, receive, watched_send, gone)
            if finished or answered:  # servers report a disconnect after a whole answer, too
                return
            if gone.result()["type"] != _LEAVING:
                how = "reads no more" if stalled else "left"
                log.info("499 %s %r: the client %s", scope["method"], scope["path"], how)
                return
            problem = ProblemError(problems.UNAVAILABLE, "The server is shutting down.", retry_after=1)
            if streaming:
                last = frame(problem.problem.model_dump_json(exclude_none=True), "error")
                await watched_send({"type": "http.response.body", "body": last, "more_body": False})
                return
        except ProblemError as error:
            problem = error
        except Exception:
            log.exception("%s %r failed", scope["method"], scope["path"])
            problem = ProblemError(problems.INTERNAL, "Something went wrong on the server; its log says what.")
        finally:
            self.leaving.in_flight.discard(gone)
        if answering:
            # The status line is out: only a broken connection can still tell the client that this is not the end.
            raise RuntimeError(f"{scope['path']} failed after its answer had begun") from problem
        await self.respond(scope["path"], problem)(scope, receive, send)

    async def _refuse(self, problem: ProblemError, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a client that may still be sending its body, and close the connection when it stops.

        A connection that is closed over unread data is reset, and the reset destroys the answer on its way.
        """
        response = self.respond(scope["path"], problem)
        response.headers["Connection"] = "close"
        await send({"type": "http.response.start", "status": response.status_code, "headers": response.raw_headers})
        await send({"type": "http.response.body", "body": response.body, "more_body": True})
        left = REFUSED_BYTES
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.body_seconds):
                while left > 0 and (message := await receive()).get("more_body", False):
                    left -= len(message.get("body", b""))
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _read_body(self, headers: Headers, receive: Receive) -> bytes | None:
        """The whole body, or None when the client left while sending it."""
        announced = headers.get("content-length", "")
        if announced.isdecimal() and int(announced) > self.body_bytes:
            raise self._too_large()
        chunks: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(self.body_seconds):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return None
                    chunks.append(message.get("body", b""))
                    size += len(chunks[-1])
                    if size > self.body_bytes:
                        raise self._too_large()
                    if not message.get("more_body", False):
                        return b"".join(chunks)
        except TimeoutError:
            raise ProblemError(
                problems.BODY_TIMEOUT, f"The body did not arrive whole within {self.body_seconds:g} s."
            ) from None

    def _too_large(self) -> ProblemError:
        return ProblemError(problems.BODY_TOO_LARGE, f"A body may have at most {self.body_bytes} bytes.")

    async def _run(
        self, scope: Scope, body: bytes, receive: Receive, send: Send, gone: asyncio.Future[Message]
    ) -> bool:
        """Run the application until it has answered (True) or the client is `gone` (False)."""
        delivered = False
        watch = asyncio.create_task(_watch(receive, gone))

        async def replay() -> Message:
            nonlocal delivered
            if not delivered:
                delivered = True
                return {"type": "http.request", "body": body, "more_body": False}
            return await asyncio.shield(gone)

        answer = asyncio.ensure_future(self.app(scope, replay, send))
        ends: set[asyncio.Future[Any]] = {answer, gone}
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            finished = answer.done()
        finally:
            watch.cancel()
            answer.cancel()
            # The application's own clean-up (closing its stream frees the slot) belongs to this request.
            await asyncio.wait({answer, watch})
        if finished or not answer.cancelled():
            answer.result()
        return finished


async def _watch(receive: Receive, gone: asyncio.Future[Message]) -> None:
    while not gone.done():
        message = await receive()
        if message["type"] == "http.disconnect" and not gone.done():
            gone.set_result(message)
