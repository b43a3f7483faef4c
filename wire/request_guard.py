"""ASGI middleware that stands between the socket and an application.

- The body is read whole, within a size and a time limit, before the application runs.
- The application is cancelled as soon as the client has left. Starlette notices a closed connection only at its next
  send and KServe's routes not at all, so a generation would be computed to the end for nobody.
- An exception that nobody has handled becomes a problem document; its traceback goes to the log, never to the client.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping
from enum import Enum, auto

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from contract import problems
from contract.limits import BODY_BYTES, BODY_BYTES_PER_SECOND, BODY_SECONDS, LARGE_BODIES_BYTES
from contract.problems import ProblemError
from wire.concurrency.first_of_two import finishes_first
from wire.drain import Drain
from wire.problems import problem_response
from wire.sse import RESUMABLE, frame
from wire.telemetry.facts import note_client_left

log = logging.getLogger(__name__)

REFUSED_BYTES = 33_554_432
"""Most that is read, and thrown away, of a body that has been refused."""


RETRY_SECONDS = 2.0
"""The Retry-After of a large body for which there is no room."""


class BrokenAnswerError(Exception):
    """An answer that has begun cannot be finished; the connection is to be closed. The log says why already."""


class RequestGuard:
    """See the module; the limits bound what a client may send, and how slowly. `path_bytes` are paths whose bodies
    have another limit than `body_bytes`. Bodies of more than BODY_BYTES have `large_bytes` together, each until its
    answer begins, and get time for what they have beyond that.

    `admit` may refuse a request by its header with a ProblemError, before anything of its body is kept. `respond` makes
    the response of a path and a problem. `drain` cuts off what a shutdown leaves no time for.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        admit: Callable[[Scope], Awaitable[None]] | None = None,
        body_bytes: int = BODY_BYTES,
        path_bytes: Mapping[str, int] | None = None,
        large_bytes: int = LARGE_BODIES_BYTES,
        body_seconds: float = BODY_SECONDS,
        respond: Callable[[str, ProblemError], Response] = lambda _path, error: problem_response(error),
        drain: Drain | None = None,
    ) -> None:
        self.app = app
        self.admit = admit
        self.body_bytes = body_bytes
        self.path_bytes = path_bytes or {}
        self.large_bodies = _LargeBodies(large_bytes)
        self.body_seconds = body_seconds
        self.respond = respond
        self.drain = drain or Drain()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        with self.large_bodies.room() as room:
            await self._serve(scope, receive, send, room)

    async def _serve(self, scope: Scope, receive: Receive, send: Send, room: _Room) -> None:
        try:
            if self.admit is not None:
                await self.admit(scope)
            path = scope["path"].removeprefix(scope.get("root_path", ""))
            most = self.path_bytes.get(path, self.body_bytes)
            body = await self._read_body(Headers(scope=scope), receive, most, room)
        except ProblemError as error:
            await self._refuse(error, scope, receive, send, room)
            return
        if body is None:
            note_client_left()
            return
        request = _GuardedRequest(scope, body, receive, send, room, self.respond)
        with self.drain.request(request.cut_off):
            problem = await request.run(self.app)
        if problem is None:
            return
        if request.answer is not _Answer.NOT_BEGUN:
            # The status line is out: only a broken connection can still tell the client that this is not the end.
            raise BrokenAnswerError(f"{scope['path']} failed after its answer had begun") from problem
        await self.respond(scope["path"], problem)(scope, receive, send)

    async def _refuse(self, problem: ProblemError, scope: Scope, receive: Receive, send: Send, room: _Room) -> None:
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
                while left > 0 and not room.whole:
                    message = await receive()
                    room.whole = not message.get("more_body", False)
                    left -= len(message.get("body", b""))
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _read_body(self, headers: Headers, receive: Receive, most: int, room: _Room) -> bytes | None:
        """The whole body, of `most` bytes at most; or None when the client left while sending it."""
        announced = headers.get("content-length", "")
        length = int(announced) if announced.isdecimal() else most
        if announced.isdecimal() and length > most:
            raise _too_large(most)
        chunks: list[bytes] = []
        size = 0
        seconds = self.body_seconds
        begun = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(seconds) as limit:
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return None
                    room.whole = not message.get("more_body", False)
                    chunks.append(message.get("body", b""))
                    size += len(chunks[-1])
                    if size > most:
                        raise _too_large(most)
                    if size > BODY_BYTES:
                        room.take(length)  # all of it: many that come at once would take all room and none be whole
                        seconds = self.body_seconds + (size - BODY_BYTES) / BODY_BYTES_PER_SECOND
                        limit.reschedule(begun + seconds)
                    if room.whole:
                        return b"".join(chunks)
        except TimeoutError:
            raise ProblemError(
                problems.BODY_TIMEOUT, f"The body did not arrive whole within {seconds:.3g} s."
            ) from None


class _LargeBodies:
    """Up to `most_bytes` of bodies at a time. Who keeps something of a body for longer than that counts it himself."""

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes = most_bytes
        self.held = 0

    @contextlib.contextmanager
    def room(self) -> Iterator[_Room]:
        """That one request may take; it is free again at the end at the latest."""
        room = _Room(self)
        try:
            yield room
        finally:
            room.free()


class _Room:
    """What the body of one request takes of _LargeBodies, and whether it has come to its end."""

    def __init__(self, bodies: _LargeBodies) -> None:
        self._bodies = bodies
        self.size = 0
        self.whole = False

    def free(self) -> None:
        self._bodies.held -= self.size
        self.size = 0

    def take(self, size: int) -> None:
        """So much, once; all there is for a body that is larger. OVERLOADED where that is not free."""
        if self.size:
            return
        size = min(size, self._bodies.most_bytes)
        if self._bodies.held + size > self._bodies.most_bytes:
            detail = f"Large bodies take all of the {self._bodies.most_bytes} bytes that are for them."
            raise ProblemError(problems.OVERLOADED, detail, retry_after=RETRY_SECONDS)
        self._bodies.held += size
        self.size = size


def _too_large(most: int) -> ProblemError:
    return ProblemError(problems.BODY_TOO_LARGE, f"A body may have at most {most} bytes.")


class _Answer(Enum):
    """How much of the answer has been sent."""

    NOT_BEGUN = auto()
    BEGUN = auto()
    EVENTS = auto()  # begun, and a stream of server-sent events
    WHOLE = auto()


class _Interruption(Enum):
    """Why an application is cancelled before it has finished."""

    CLIENT_LEFT = auto()
    DRAIN_ENDED = auto()


class _GuardedRequest:
    """One request whose body has been read, until its answer is sent or it is interrupted."""

    def __init__(
        self,
        scope: Scope,
        body: bytes,
        receive: Receive,
        send: Send,
        room: _Room,
        respond: Callable[[str, ProblemError], Response],
    ) -> None:
        self._room = room
        self._respond = respond
        self.answer = _Answer.NOT_BEGUN
        self._scope = scope
        self._body: bytes | None = body
        self._client_receive = receive
        self._client_send = send
        self._interruption: asyncio.Future[_Interruption] = asyncio.get_running_loop().create_future()

    def cut_off(self) -> None:
        """Cancel the application because the server shuts down."""
        self._interrupt(_Interruption.DRAIN_ENDED)

    async def run(self, app: ASGIApp) -> ProblemError | None:
        """Run the application; the problem that is left to answer with, if there is one."""
        watch = asyncio.create_task(self._watch_client())
        try:
            # The application's clean-up (closing its stream frees the slot) is awaited: it belongs to this request.
            finished = await finishes_first(app(self._scope, self._receive, self._send), self._interruption)
        except ProblemError as error:
            return error
        except Exception:
            log.exception("%s %r failed", self._scope["method"], self._scope["path"])
            return problems.internal()
        finally:
            watch.cancel()
            await asyncio.wait({watch})
        if finished or self.answer is _Answer.WHOLE:  # servers report a disconnect after a whole answer, too
            return None
        return await self._interrupted(self._interruption.result())

    async def _interrupted(self, interruption: _Interruption) -> ProblemError | None:
        if interruption is not _Interruption.DRAIN_ENDED:
            note_client_left()
            return None
        problem = ProblemError(problems.UNAVAILABLE, "The server is shutting down.", retry_after=1)
        if self.answer is not _Answer.EVENTS:
            return problem
        resumable = self._scope.get("state", {}).get(RESUMABLE, False)
        document = bytes(self._respond(self._scope["path"], problem).body)  # OpenAI's clients raise its `error` only
        last = b"" if resumable else frame([document], "error")
        await self._send({"type": "http.response.body", "body": last, "more_body": False})
        return None

    async def _receive(self) -> Message:
        """What the application receives: the whole body, and then that the request is interrupted."""
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        await asyncio.wait({self._interruption})
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            content_type = Headers(raw=message["headers"]).get("content-type", "")
            self._room.free()
            self.answer = _Answer.EVENTS if content_type.startswith("text/event-stream") else _Answer.BEGUN
        await self._client_send(message)
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            self.answer = _Answer.WHOLE

    async def _watch_client(self) -> None:
        while (await self._client_receive())["type"] != "http.disconnect":
            pass
        self._interrupt(_Interruption.CLIENT_LEFT)

    def _interrupt(self, why: _Interruption) -> None:
        if not self._interruption.done():
            self._interruption.set_result(why)
