"""What stands between the socket and an application: bounded bodies, clients that leave, mistakes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import Receive, Scope, Send

from contract import ProblemError, problems
from tests.support.waiting import eventually
from wire.drain import Drain
from wire.problems import problem_response
from wire.request_guard import BrokenAnswerError, RequestGuard
from wire.sse import EventStream, frame

Wire = Any  # of conftest, which cannot be imported


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    body = await Request(scope, receive).body()
    await PlainTextResponse(body)(scope, receive, send)


async def never_called(_scope: Scope, _receive: Receive, _send: Send) -> None:
    pytest.fail("the application ran")


def slug(wire: Wire) -> str:
    document = json.loads(wire.answer)
    assert document["status"] == wire.status
    assert wire.headers["content-type"] == problems.MEDIA_TYPE
    return str(document["type"].rpartition(":")[2])


async def test_a_body_arrives_whole(wire: Wire) -> None:
    wire.body(b"one ", more=True)
    wire.body(b"", more=True)
    wire.body(b"two")
    await wire.run(RequestGuard(echo))
    assert (wire.status, wire.answer) == (200, b"one two")


async def test_a_body_of_exactly_the_limit_is_taken(wire: Wire) -> None:
    wire.body(b"x" * 10)
    await wire.run(RequestGuard(echo, body_bytes=10), {"Content-Length": "10"})
    assert wire.answer == b"x" * 10


async def test_a_body_over_the_limit_is_refused_as_soon_as_it_is(wire: Wire) -> None:
    wire.body(b"x" * 6, more=True)
    wire.body(b"x" * 6, more=True)  # and no end
    await wire.run(RequestGuard(never_called, body_bytes=10, body_seconds=0.02))
    assert (wire.status, slug(wire), wire.headers["connection"]) == (413, "body-too-large", "close")


async def test_a_path_may_have_a_limit_of_its_own(wire: Wire) -> None:
    wire.body(b"x" * 11)
    await wire.run(RequestGuard(echo, body_bytes=10, path_bytes={"/x": 11}))
    assert wire.answer == b"x" * 11


@pytest.mark.parametrize("announced", ["11", "9" * 20])
async def test_an_announced_body_over_the_limit_is_not_even_read(wire: Wire, announced: str) -> None:
    await wire.run(RequestGuard(never_called, body_bytes=10, body_seconds=0.02), {"Content-Length": announced})
    assert slug(wire) == "body-too-large"


async def test_the_rest_of_a_refused_body_is_read_but_not_kept(wire: Wire) -> None:
    """Closing over unread data would reset the connection, and the answer with it."""
    wire.body(b"x" * 11, more=True)
    wire.body(b"x" * 11, more=True)
    wire.body(b"x")
    await wire.run(RequestGuard(never_called, body_bytes=10))
    assert slug(wire) == "body-too-large"
    assert wire.incoming.empty()


MEBIBYTE = 1_048_576


async def test_large_bodies_have_a_limit_together_and_a_small_one_always_passes(wire: Wire) -> None:
    """What one takes is free again once its answer begins."""
    answers: list[tuple[int, int]] = []

    async def another(size: int) -> None:
        other = type(wire)()
        other.body(b"x" * size)
        await other.run(guard, {"Content-Length": str(size)})
        answers.append((size, other.status))
        if other.status != 200:
            assert (slug(other), other.headers["retry-after"]) == ("overloaded", "2")

    async def meanwhile(scope: Scope, receive: Receive, send: Send) -> None:
        if not answers:
            answers.append((0, 0))
            await another(MEBIBYTE)
            await another(MEBIBYTE + 1)
        await echo(scope, receive, send)

    guard = RequestGuard(meanwhile, body_bytes=3 * MEBIBYTE, large_bytes=2 * MEBIBYTE + 2)
    wire.body(b"x" * (MEBIBYTE + 2))
    await wire.run(guard, {"Content-Length": str(MEBIBYTE + 2)})
    await another(3 * MEBIBYTE)  # more than there is, and alone
    assert answers[1:] == [(MEBIBYTE, 200), (MEBIBYTE + 1, 503), (3 * MEBIBYTE, 200)]


async def test_of_many_large_bodies_that_come_at_once_some_are_taken(wire: Wire) -> None:
    """Room for a whole body is taken once it is known to be large."""
    guard = RequestGuard(echo, body_bytes=3 * MEBIBYTE, large_bytes=2 * MEBIBYTE + 2)
    others = [type(wire)() for _ in range(4)]
    runs = [asyncio.create_task(other.run(guard, {"Content-Length": str(MEBIBYTE + 2)})) for other in others]
    for part in (MEBIBYTE, 1, 1):
        for other in others:
            other.body(b"x" * part, more=True)
        await eventually(lambda: all(other.incoming.empty() for other in others))
    for other in others:
        other.body(b"")
    await asyncio.gather(*runs)
    assert sorted(other.status for other in others) == [200, 503, 503, 503]


async def test_a_large_body_has_time_for_what_it_has_beyond_a_mebibyte(wire: Wire, slow_rate: None) -> None:
    """A client on a slow line can send a picture, and not one byte at a time."""
    wire.body(b"x" * (MEBIBYTE + 100), more=True)
    asyncio.get_running_loop().call_later(0.1, wire.body, b"x")
    await wire.run(RequestGuard(echo, body_bytes=2 * MEBIBYTE, body_seconds=0.02))
    assert wire.status == 200
    wire.sent.clear()
    wire.body(b"x" * (MEBIBYTE + 1), more=True)
    await wire.run(RequestGuard(never_called, body_bytes=2 * MEBIBYTE, body_seconds=0.02))
    assert slug(wire) == "body-timeout"


@pytest.fixture
def slow_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred bytes take ten seconds."""
    monkeypatch.setattr("wire.request_guard.BODY_BYTES_PER_SECOND", 10)


async def test_a_slow_body_is_given_up(wire: Wire) -> None:
    wire.body(b"x", more=True)
    await wire.run(RequestGuard(never_called, body_seconds=0.02))
    assert (wire.status, slug(wire), wire.headers["connection"]) == (408, "body-timeout", "close")


async def test_a_client_that_leaves_within_its_body_gets_nothing(wire: Wire) -> None:
    wire.body(b"x", more=True)
    wire.leave()
    await wire.run(RequestGuard(never_called))
    assert wire.sent == []


async def test_a_client_that_leaves_cancels_the_application(wire: Wire) -> None:
    steps = []

    async def slow(_scope: Scope, _receive: Receive, _send: Send) -> None:
        wire.leave()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            steps.append("cleaned up")

    wire.body(b"")
    await wire.run(RequestGuard(slow))
    assert steps == ["cleaned up"]
    assert wire.sent == []


async def test_an_application_may_wait_for_the_disconnect(wire: Wire) -> None:
    seen = []

    async def listening(_scope: Scope, receive: Receive, _send: Send) -> None:
        seen.append((await receive())["type"])
        wire.leave()
        seen.append((await receive())["type"])

    wire.body(b"")
    await wire.run(RequestGuard(listening))
    assert seen[0] == "http.request"


async def test_a_guard_that_is_cancelled_cancels_the_application(wire: Wire) -> None:
    begun, steps = asyncio.Event(), []

    async def slow(_scope: Scope, _receive: Receive, _send: Send) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            steps.append("cleaned up")

    wire.body(b"")
    task = asyncio.create_task(wire.run(RequestGuard(slow)))
    await asyncio.wait_for(begun.wait(), 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert steps == ["cleaned up"]


async def test_an_exception_is_a_problem_and_is_logged(wire: Wire, caplog: pytest.LogCaptureFixture) -> None:
    async def broken(_scope: Scope, _receive: Receive, _send: Send) -> None:
        raise RuntimeError("secret")

    wire.body(b"")
    await wire.run(RequestGuard(broken))
    assert (wire.status, slug(wire)) == (500, "internal")
    assert b"secret" not in wire.answer
    assert "RuntimeError: secret" in caplog.text


async def test_an_unhandled_problem_is_the_answer(wire: Wire) -> None:
    async def full(_scope: Scope, _receive: Receive, _send: Send) -> None:
        raise ProblemError(problems.OVERLOADED, "full", retry_after=3)

    wire.body(b"")
    await wire.run(RequestGuard(full))
    assert (wire.status, slug(wire), wire.headers["retry-after"]) == (503, "overloaded", "3")


async def test_an_exception_within_the_answer_breaks_the_connection(wire: Wire) -> None:
    async def broken(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise RuntimeError("secret")

    wire.body(b"")
    with pytest.raises(match="after its answer had begun"):
        await wire.run(RequestGuard(broken))
    assert len(wire.sent) == 1


async def test_a_disconnect_after_the_whole_answer_is_not_logged(wire: Wire, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")

    async def lingering(scope: Scope, receive: Receive, send: Send) -> None:
        await echo(scope, receive, send)
        wire.leave()
        await asyncio.Event().wait()

    wire.body(b"x")
    await wire.run(RequestGuard(lingering))
    assert wire.answer == b"x"
    assert "499" not in caplog.text


async def test_what_is_not_http_passes() -> None:
    seen = []

    async def app(scope: Scope, _receive: Receive, _send: Send) -> None:
        seen.append(scope["type"])

    async def nothing(*_: object) -> Any:
        return {}

    await RequestGuard(app)({"type": "lifespan"}, nothing, nothing)
    assert seen == ["lifespan"]


async def begin_and_hang(_scope: Scope, _receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": b"half", "more_body": True})
    await asyncio.Event().wait()


async def stream_and_hang(scope: Scope, receive: Receive, send: Send) -> None:
    async def frames() -> AsyncGenerator[bytes]:
        yield frame("1", "token")
        await asyncio.Event().wait()

    await EventStream(frames())(scope, receive, send)


async def hang(_scope: Scope, _receive: Receive, _send: Send) -> None:
    await asyncio.Event().wait()


async def test_a_drain_that_ends_answers_with_a_problem(wire: Wire) -> None:
    drain = Drain()
    wire.body(b"")
    running = asyncio.create_task(wire.run(RequestGuard(hang, drain=drain)))
    await eventually(lambda: drain.in_flight)
    drain.end()
    await running
    assert (wire.status, slug(wire)) == (503, "unavailable")
    assert wire.headers["retry-after"] == "1"
    assert not drain.in_flight


async def test_a_drain_that_ends_ends_a_stream_with_an_error(wire: Wire) -> None:
    drain = Drain()
    wire.body(b"")
    running = asyncio.create_task(wire.run(RequestGuard(stream_and_hang, drain=drain)))
    await eventually(lambda: b"token" in wire.answer)
    drain.end()
    await running
    *_, last = wire.answer.decode().strip().split("\n\n")
    assert last.startswith("event: error\ndata: ")
    assert json.loads(last.partition("data: ")[2])["status"] == 503
    assert wire.sent[-1]["more_body"] is False


async def test_the_error_that_ends_a_stream_is_that_of_its_path(wire: Wire) -> None:
    """OpenAI's clients take a stream without it for whole."""

    def respond(path: str, error: ProblemError) -> Response:
        return problem_response(error, {**error.document, "error": {"at": path}})

    drain = Drain()
    wire.body(b"")
    running = asyncio.create_task(wire.run(RequestGuard(stream_and_hang, drain=drain, respond=respond)))
    await eventually(lambda: b"token" in wire.answer)
    drain.end()
    await running
    last = json.loads(wire.answer.decode().rpartition("data: ")[2])
    assert (last["status"], last["error"]) == (503, {"at": "/x"})


async def test_a_drain_that_ends_just_closes_a_stream_that_can_be_resumed(wire: Wire) -> None:
    """An error would be taken for its end, and the rest is found on another replica."""

    async def frames() -> AsyncGenerator[bytes]:
        yield frame("{}", "token")
        await asyncio.Event().wait()

    drain = Drain()
    wire.body(b"")
    running = asyncio.create_task(wire.run(RequestGuard(EventStream(frames(), resumable=True), drain=drain)))
    await eventually(lambda: b"token" in wire.answer)
    drain.end()
    await running
    assert wire.answer == frame("{}", "token")
    assert wire.sent[-1]["more_body"] is False


async def test_a_drain_that_ends_breaks_off_half_an_answer(wire: Wire) -> None:
    """Only a broken connection tells the client that it is half."""
    drain = Drain()
    wire.body(b"")
    running = asyncio.create_task(wire.run(RequestGuard(begin_and_hang, drain=drain)))
    await eventually(lambda: wire.answer == b"half")
    drain.end()
    with pytest.raises(BrokenAnswerError):
        await running


def test_the_clock_of_a_drain_starts_when_it_begins() -> None:
    drain = Drain()
    assert drain.seconds == 0
    drain.begin()
    assert drain.seconds > 0
