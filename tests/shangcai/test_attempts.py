"""When a call is tried again, and what it raises when it is not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import httpx2
import pytest

from contract import Problem, ProblemError, ProblemType, problems
from contract.problems import MEDIA_TYPE, raised
from shangcai import TextResult
from shangcai.attempts import LONGEST_PAUSE_SECONDS, PAUSE_SECONDS, Attempts

MakeClient = Callable[..., Any]
URL = "http://web.test/prefix"
RESULT = {
    "id": "1",
    "model": "poet",
    "kind": "text",
    "text": "春",
    "finish_reason": "stop",
    "usage": {"prompt_tokens": 1, "completion_tokens": 1},
    "timing": {"queue_s": None, "first_token_s": 0.1, "total_s": 0.2},
}


def refusal(kind: ProblemType, retry_after: int | None) -> ProblemError:
    """Also one of 0 seconds, which our own servers do not send."""
    problem = Problem(type=kind.uri, title=kind.title, status=kind.status, detail="No.", retry_after=retry_after)
    return raised(problem)


def answer(error: ProblemError) -> httpx2.Response:
    return httpx2.Response(error.problem.status, json=error.document, headers={"Content-Type": MEDIA_TYPE})


def answers(
    *given: httpx2.Response | Exception,
) -> tuple[list[httpx2.Request], Callable[[httpx2.Request], httpx2.Response]]:
    """The requests that come, and a handler that answers them in this order."""
    seen: list[httpx2.Request] = []
    left: Iterator[httpx2.Response | Exception] = iter(given)

    def handle(request: httpx2.Request) -> httpx2.Response:
        seen.append(request)
        one = next(left)
        if isinstance(one, Exception):
            raise one
        return one

    return seen, handle


@pytest.mark.parametrize("kind", [problems.QUOTA_EXCEEDED, problems.OVERLOADED])
def test_what_is_refused_for_now_is_asked_for_again(make_client: MakeClient, kind: ProblemType) -> None:
    seen, handler = answers(answer(refusal(kind, 0)), answer(refusal(kind, 0)), httpx2.Response(200, json=RESULT))
    result = make_client(URL, "a-key", handler).generate("春")
    assert isinstance(result, TextResult)
    assert [str(request.url) for request in seen] == [f"{URL}/generate"] * 3
    assert {request.headers["authorization"] for request in seen} == {"Bearer a-key"}


def test_no_wait_is_longer_than_the_caller_has_time(make_client: MakeClient) -> None:
    seen, handler = answers(answer(refusal(problems.OVERLOADED, 30)))
    client = make_client(URL, handler=handler)
    with pytest.raises(ProblemError) as refused:
        client.generate("春", timeout=10)
    assert refused.value.problem.retry_after == 30
    assert 0 < float(seen[0].headers["x-request-timeout"]) <= 10


def test_a_generation_is_not_repeated_where_it_may_double(make_client: MakeClient) -> None:
    seen, handler = answers(httpx2.ReadError("broken"), answer(refusal(problems.BAD_UPSTREAM, None)))
    client = make_client(URL, handler=handler)
    with pytest.raises(httpx2.ReadError):
        client.generate("春")
    with pytest.raises(ProblemError):
        client.generate("春")
    assert len(seen) == 2


@pytest.mark.usefixtures("no_pauses")
def test_a_submission_is_repeated_until_its_server_counts_as_lost(
    make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[httpx2.Response | Exception] = [
        httpx2.ConnectError("refused"),
        httpx2.Response(502, text="<html>"),
        answer(refusal(problems.INTERNAL, None)),
    ]
    seen, handler = answers(*given, httpx2.Response(202, json={"id": "1"}), httpx2.ConnectError("refused"))
    client = make_client(URL, handler=handler)
    assert client.submit("春").id == "1"
    assert len({request.headers["idempotency-key"] for request in seen}) == 1
    assert "x-request-timeout" not in seen[0].headers  # it would be the job's
    monkeypatch.setattr("shangcai.attempts.LOST_SECONDS", 0.0)
    with pytest.raises(httpx2.ConnectError):
        client.submit("春")


def test_an_answer_of_another_server_is_a_problem_too(make_client: MakeClient) -> None:
    _, handler = answers(httpx2.Response(404, text="<html>nothing</html>"))
    with pytest.raises(ProblemError) as refused:
        make_client(URL, handler=handler).job("a/b").status()
    assert (refused.value.problem.type, refused.value.problem.status) == ("about:blank", 404)


def test_an_id_is_one_part_of_an_address(make_client: MakeClient) -> None:
    seen, handler = answers(httpx2.Response(404))
    with pytest.raises(ProblemError):
        make_client(URL, handler=handler).job("../x?y").status()
    assert seen[0].url.raw_path == b"/prefix/generations/..%2Fx%3Fy"


def test_an_event_has_a_largest_size(make_client: MakeClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shangcai.event_reader.EVENT_BYTES", 1_000)
    _, handler = answers(httpx2.Response(200, content=b"event: token\ndata: " + b"x" * 2_000))
    with pytest.raises(httpx2.DecodingError):
        list(make_client(URL, handler=handler).stream("春"))


def test_pauses_double_up_to_the_longest() -> None:
    attempts = Attempts(600, repeatable=True)
    pauses = [attempts.pause(httpx2.ReadError("broken")) for _ in range(6)]
    assert pauses == [PAUSE_SECONDS * 2**n for n in range(5)] + [LONGEST_PAUSE_SECONDS]
    attempts.note_answer()
    assert attempts.pause(httpx2.ReadError("broken")) == PAUSE_SECONDS


def test_time_that_is_over_is_a_timeout() -> None:
    over = Attempts(0, repeatable=True)
    with pytest.raises(TimeoutError):
        over.pause(httpx2.ReadTimeout("silence"))
    with pytest.raises(TimeoutError):
        over.note_answer()
    with pytest.raises(ProblemError):  # which says more
        over.pause(refusal(problems.OVERLOADED, 1))


@pytest.mark.parametrize("kind", [problems.NOT_IMPLEMENTED, problems.TOO_LATE, problems.UNAUTHORIZED])
def test_what_would_be_refused_again_is_not_tried_again(kind: ProblemType) -> None:
    with pytest.raises(ProblemError):
        Attempts(600, repeatable=True).pause(refusal(kind, None))
