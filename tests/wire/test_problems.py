"""Problems name the request that is answered with them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from typing import Any
from urllib.parse import unquote

import pytest
from starlette.types import Receive, Scope, Send

from contract import ProblemError, problems
from tests.support.waiting import eventually
from tests.support.wire.instances import PREFIX
from wire.drain import Drain
from wire.openai_problems import error_document
from wire.problems import problem_response, told_document, told_problem
from wire.request_context import RequestContextMiddleware
from wire.request_guard import RequestGuard
from wire.sse import EventStream, frame
from wire.telemetry.facts import Facts, gathered

Wire = Any  # of conftest, which cannot be imported

NAMED = {"X-Request-Id": "order-7"}


def full() -> ProblemError:
    return ProblemError(problems.OVERLOADED, "full", retry_after=2)


def test_the_instance_is_the_current_request() -> None:
    error = full()
    with gathered(Facts("order-7")) as facts:
        documents = [json.loads(bytes(problem_response(error).body)), told_document(error), error_document(error)]
        assert told_problem(error).instance == PREFIX + "order-7"
    assert [document["instance"] for document in documents] == [PREFIX + "order-7"] * 3
    assert facts.problem == "overloaded"
    assert "instance" not in error.document  # which may be stored


def test_a_problem_that_is_told_without_a_request_is_noted_all_the_same() -> None:
    with gathered(Facts("order-7")) as facts:
        response = problem_response(full(), full().document)
    assert "instance" not in json.loads(bytes(response.body))
    assert facts.problem == "overloaded"


def test_of_no_request_there_is_none() -> None:
    assert told_problem(full()) == full().problem
    assert "instance" not in told_document(full())


def test_one_error_that_two_requests_get_names_each() -> None:
    error = full()
    told = []
    for name in ("a", "b"):
        with gathered(Facts(name)):
            told.append(told_problem(error).instance)
    assert told == [PREFIX + "a", PREFIX + "b"]


@pytest.mark.parametrize(
    ("request_id", "encoded"),
    [
        ("0af7651916cd43dd8448eb211c80319c", "0af7651916cd43dd8448eb211c80319c"),
        ("a-b._~!$&'()*+,;=:@/c", "a-b._~!$&'()*+,;=:@/c"),
        ('50%"<#?>[\\]^`{|}', "50%25%22%3C%23%3F%3E%5B%5C%5D%5E%60%7B%7C%7D"),
    ],
)
async def test_an_id_is_encoded_where_a_urn_needs_it(wire: Wire, request_id: str, encoded: str) -> None:
    async def app(_scope: Scope, _receive: Receive, _send: Send) -> None:
        raise full()

    wire.body(b"")
    await wire.run(RequestContextMiddleware(RequestGuard(app)), {"X-Request-Id": request_id})
    instance = json.loads(wire.answer)["instance"]
    assert instance == PREFIX + encoded
    assert unquote(instance.removeprefix(PREFIX)) == wire.headers["x-request-id"] == request_id


async def test_the_guards_problems_name_the_request(wire: Wire) -> None:
    async def broken(_scope: Scope, _receive: Receive, _send: Send) -> None:
        raise RuntimeError("secret")

    wire.body(b"")
    await wire.run(RequestContextMiddleware(RequestGuard(broken)), NAMED)
    document = json.loads(wire.answer)
    assert (document["status"], document["instance"]) == (500, PREFIX + "order-7")


async def test_a_body_that_is_too_large_names_the_request(wire: Wire) -> None:
    async def app(_scope: Scope, _receive: Receive, _send: Send) -> None:
        pytest.fail("the application ran")

    wire.body(b"x" * 11)
    await wire.run(RequestContextMiddleware(RequestGuard(app, body_bytes=10)), NAMED)
    document = json.loads(wire.answer)
    assert (document["status"], document["instance"]) == (413, PREFIX + "order-7")


async def test_the_error_of_a_stream_that_is_cut_off_names_the_request(wire: Wire) -> None:
    async def stream(scope: Scope, receive: Receive, send: Send) -> None:
        async def frames() -> AsyncGenerator[bytes]:
            yield frame("1", "token")
            await asyncio.Event().wait()

        await EventStream(frames())(scope, receive, send)

    drain = Drain()
    wire.body(b"")
    app = RequestContextMiddleware(RequestGuard(stream, drain=drain))
    running = asyncio.create_task(wire.run(app, NAMED))
    await eventually(lambda: b"token" in wire.answer)
    drain.end()
    await running
    assert json.loads(wire.answer.decode().rpartition("data: ")[2])["instance"] == PREFIX + "order-7"
