"""The Python client against the real web: texts, pictures, streams, jobs, broken connections."""

from __future__ import annotations

import base64
import inspect
import json
from pathlib import Path
from typing import Any, get_args

import httpx2
import pytest

import shangcai
from contract import GenerationRequest
from contract.events import Event
from shangcai import (
    PictureResult,
    ProblemError,
    ReasoningEvent,
    StatusEvent,
    TextResult,
    TokenEvent,
    ToolCallEvent,
)
from shangcai.requests import request_body
from shangcai.results import EVENTS, read_event
from tests.support.waiting import wait_until
from tests.support.web.served_web import PICTURE, ServedWeb


def texts(events: Any) -> list[str]:
    return [event.text for event in events if isinstance(event, TokenEvent)]


def test_a_text(client: Any, served: ServedWeb) -> None:
    served.say("春", "雨", None)
    result = client.generate("春", max_tokens=9, seed=None)
    assert isinstance(result, TextResult)
    assert (result.text, result.model, result.finish_reason) == ("春雨", "poet", "stop")
    assert served.asked[0]["max_tokens"] == 9
    assert 0 < float(served.relay.headers("X-Request-Timeout")[0]) <= 600


def test_a_picture_is_a_file(client: Any, tmp_path: Path) -> None:
    result = client.generate("猫", kind="image")
    assert isinstance(result, PictureResult)
    assert result.images[0].content == PICTURE
    assert result.images[0].save(tmp_path / "cat.png").read_bytes() == PICTURE
    [*_, last] = client.stream("猫", kind="image")
    assert isinstance(last, PictureResult)
    assert last.images[0].content == PICTURE
    assert client.submit("猫", kind="image").wait().images[0].content == PICTURE


def test_a_stream(client: Any, served: ServedWeb) -> None:
    served.say("春", "雨", None)
    events = list(client.stream("春"))
    assert StatusEvent(state="running") in events
    assert texts(events) == ["春", "雨"]
    assert isinstance(events[-1], TextResult)


@pytest.mark.parametrize("resume", [False, True])
def test_leaving_a_stream_cancels_it(client: Any, served: ServedWeb, resume: bool) -> None:
    served.say("春")
    events = client.stream("春", resume=resume)
    assert next(event for event in events if isinstance(event, TokenEvent)).text == "春"
    assert served.running == 1
    events.close()
    wait_until(lambda: served.running == 0, "the slot is free")


@pytest.mark.usefixtures("no_pauses")
def test_a_stream_that_resumes_loses_and_doubles_nothing(client: Any, served: ServedWeb) -> None:
    served.say("one ")
    found = []
    for event in client.stream("count", resume=True):
        found.append(event)
        if isinstance(event, TokenEvent) and event.text == "one ":
            served.cut()
            served.say("two ")
        elif isinstance(event, TokenEvent) and event.text == "two ":
            served.cut()
            served.say("three", None)
    assert "".join(texts(found)) == found[-1].text == "one two three"
    assert len(served.asked) == 1
    assert len(served.relay.headers("Last-Event-ID")) == 2
    assert "DELETE" in served.relay.sent  # it is forgotten


def frames(*events: tuple[str, dict[str, Any]]) -> bytes:
    return b"".join(
        f"id: {number}-0\nevent: {name}\ndata: {json.dumps(data)}\n\n".encode()
        for number, (name, data) in enumerate(events, 1)
    )


def token(text: str, *logprobs: float) -> tuple[str, dict[str, Any]]:
    each = [{"token": "x", "logprob": logprob, "bytes": [120]} for logprob in logprobs]
    return "token", {"text": text, **({"logprobs": each} if logprobs else {})}


RUNNING, QUEUED = ("status", {"state": "running"}), ("status", {"state": "queued"})
CALL: dict[str, Any] = {"index": 0, "id": "call_1", "name": "now", "arguments": '{"in": '}


def begun_again(text: str, *events: tuple[str, dict[str, Any]]) -> Any:
    """A web whose job is begun again by another replica, in the middle of its second token."""

    def answer(request: httpx2.Request) -> httpx2.Response:
        if request.method == "POST":
            return httpx2.Response(202, json={"id": "a"})
        if request.method == "DELETE":
            return httpx2.Response(204)
        return httpx2.Response(200, content=frames(*events, ("result", result(text))))

    return answer


def result(text: str) -> dict[str, Any]:
    usage, timing = {"prompt_tokens": 1, "completion_tokens": 2}, {"queue_s": None, "first_token_s": 0.1, "total_s": 1}
    document = {"id": "a", "model": "poet", "kind": "text", "text": text, "finish_reason": "stop"}
    return {**document, "reasoning_content": "Hmm.", "usage": usage, "timing": timing}


def test_a_job_that_is_begun_again_gives_its_text_once(make_client: Any) -> None:
    thought: Any = ("reasoning", {"text": "Hmm."})
    first = [RUNNING, thought, ("tool_call", CALL), token("春天", -1, -2)]
    second = [
        RUNNING,
        thought,
        ("tool_call", {**CALL, "arguments": '{"in": 1}'}),
        token("春", -1.1),
        token("天来", -2, -3),
    ]
    client = make_client("http://web.test", handler=begun_again("春天来了", *first, QUEUED, *second, token("了", -4)))
    events = list(client.stream("x", resume=True))
    assert texts(events) == ["春天", "来", "了"]
    numbers = [each.logprob for event in events if isinstance(event, TokenEvent) for each in event.logprobs or ()]
    assert numbers == [-1, -2, -3, -4]
    assert "".join(event.text for event in events if isinstance(event, ReasoningEvent)) == "Hmm."
    calls = [event for event in events if isinstance(event, ToolCallEvent)]
    assert calls == [ToolCallEvent(**CALL), ToolCallEvent(index=0, arguments="1}")]
    assert isinstance(events[-1], TextResult)
    assert texts(client.job("a").events()) == ["春天", "春", "天来", "了"]  # the whole log, in which `queued` says so


@pytest.mark.parametrize("second", [[token("秋")], []])
def test_a_job_that_goes_another_way_says_so(make_client: Any, second: list[Any]) -> None:
    events = [RUNNING, token("春天"), QUEUED, RUNNING, *second]
    client = make_client("http://web.test", handler=begun_again("秋", *events))
    with pytest.raises(ProblemError) as problem:
        list(client.stream("x", resume=True))
    assert problem.value.kind.slug == "diverged"
    assert client.job("a").wait().text == "秋"


def test_a_stream_that_breaks_off_says_so(client: Any, served: ServedWeb) -> None:
    served.say("one ")
    events = client.stream("count")
    assert next(event for event in events if isinstance(event, TokenEvent)).text == "one "
    served.cut()
    with pytest.raises(httpx2.TransportError):
        next(events)
    assert len(served.asked) == 1


def test_a_job(client: Any, served: ServedWeb) -> None:
    job = client.submit("春")
    wait_until(lambda: client.job(job.id).status().state == "running", "it runs")
    served.say("春", "雨", None)
    assert job.wait().text == "春雨"
    status = client.job(job.id).status()
    assert (status.state, status.result.text) == ("completed", "春雨")


def test_a_job_is_read_on_by_another_program(client: Any, served: ServedWeb) -> None:
    served.say("one ", "two ", None)
    job = client.submit("count")
    for event in job.events():
        if isinstance(event, TokenEvent):
            break
    later = client.job(job.id)
    assert texts(later.events(job.last_event_id)) == ["two "]
    *none, result = client.job(job.id).events(later.last_event_id)  # every event was read
    assert (none, result.text) == ([], "one two ")


def test_a_job_is_cancelled_then_forgotten(client: Any, served: ServedWeb) -> None:
    job = client.submit("春")
    wait_until(lambda: served.running == 1)
    job.cancel()
    wait_until(lambda: served.running == 0)
    with pytest.raises(ProblemError) as refused:
        job.wait()
    assert refused.value.kind.slug == "cancelled"
    with pytest.raises(ProblemError) as again:
        list(job.events(job.last_event_id))
    assert again.value.kind.slug == "cancelled"
    job.cancel()
    with pytest.raises(ProblemError) as forgotten:
        job.status()
    assert forgotten.value.problem.status == 404


@pytest.mark.usefixtures("no_pauses")
def test_a_submission_whose_answer_is_lost_makes_one_job(client: Any, served: ServedWeb) -> None:
    served.relay.lose = 2
    served.say("春", None)
    assert client.submit("春").wait().text == "春"
    keys = served.relay.headers("Idempotency-Key")
    assert len(keys) == 3
    assert len(set(keys)) == 1
    assert len(served.asked) == 1


def test_one_key_makes_one_job(client: Any, served: ServedWeb) -> None:
    served.say("春", None)
    first = client.submit("春", idempotency_key="a-key")
    first.wait()
    assert client.submit("春", idempotency_key="a-key").id == first.id
    with pytest.raises(ProblemError) as other:
        client.submit("秋", idempotency_key="a-key")
    assert other.value.kind.slug == "key-reused"


def test_what_is_not_allowed_is_named_before_it_is_sent(client: Any, served: ServedWeb) -> None:
    for call in (client.generate, client.stream, client.submit):
        with pytest.raises(ProblemError) as refused:
            call("春", max_tokens=0, tone="sad")
        problem = refused.value.problem
        assert (problem.status, problem.type) == (400, "urn:shangcai:problem:invalid-field")
        assert {error.field for error in problem.errors or ()} == {"max_tokens", "tone"}
    with pytest.raises(TypeError, match="stream"):
        client.generate("春", stream=True)
    assert served.relay.sent == ""


def test_a_picture_to_begin_with_is_bytes_or_base64() -> None:
    begin = b"\x89PNG\r\n\x1a\n" + bytes(range(256))  # in base64 with + and /
    written = base64.b64encode(begin).decode()
    for image in (begin, bytearray(begin), written):
        body = json.loads(request_body("猫", {"kind": "image", "image": image, "mask": image}))
        assert (body["image"], body["mask"]) == (written, written)


@pytest.mark.parametrize(
    ("field", "value"), [("prompt", "half \ud800"), ("prompt", b"\xff"), ("stop", ["\ud800"]), ("seed", object())]
)
def test_what_cannot_be_written_is_named(client: Any, field: str, value: Any) -> None:
    for call in (client.generate, client.stream, client.submit):
        with pytest.raises(ProblemError) as refused:
            call(**{"prompt": "春", field: value})
        [error] = refused.value.problem.errors or []
        assert (refused.value.kind.slug, error.field) == ("invalid-field", field)


@pytest.mark.parametrize("content", [b"<!doctype html>", b"[]", b'{"id": 7}', b"\xff", b"\xff\n\n", b""])
def test_an_answer_of_another_server_is_a_problem(make_client: Any, content: bytes) -> None:
    client = make_client("http://web.test", handler=lambda _: httpx2.Response(200, content=content))
    for call in (client.generate, client.submit, lambda _: client.job("a").status(), lambda _: client.models()):
        with pytest.raises(ProblemError, match="another server") as problem:
            call("春")
        assert (problem.value.problem.type, problem.value.problem.status) == ("about:blank", 502)
    with pytest.raises(httpx2.TransportError):
        list(client.stream("春"))


@pytest.mark.parametrize("event", [b"result", b"error"])
def test_an_end_that_is_none_is_a_problem(make_client: Any, event: bytes) -> None:
    content = b"event: %s\ndata: <html>\n\n" % event
    client = make_client("http://web.test", handler=lambda _: httpx2.Response(200, content=content))
    with pytest.raises(ProblemError, match="another server"):
        list(client.stream("春"))


def test_what_the_server_refuses_is_a_problem(client: Any) -> None:
    for call in (client.generate, client.submit, lambda *a, **b: list(client.stream(*a, **b))):
        with pytest.raises(ProblemError) as refused:
            call("春", model="nobody")
        assert refused.value.problem.status == 404
        assert refused.value.kind.slug == "unknown-model"


# What is derived from the contract


@pytest.mark.parametrize("kind", [shangcai.Client, shangcai.AsyncClient])
@pytest.mark.parametrize("name", ["generate", "stream", "submit"])
def test_every_field_of_a_request_is_a_keyword(kind: Any, name: str) -> None:
    """Also those that requests get later: all keywords are fields but for our own, none of which has a field's name."""
    parameters = inspect.signature(getattr(kind, name)).parameters
    assert parameters["fields"].kind is inspect.Parameter.VAR_KEYWORD
    assert set(parameters) & set(GenerationRequest.model_fields) == {"prompt"}


@pytest.mark.parametrize("kind", get_args(Event))
def test_every_event_of_the_contract_is_read(kind: Any) -> None:
    """Those that it gets later, too: none is dropped as one that is not known here."""
    if kind.event in ("result", "error"):
        with pytest.raises(ProblemError):
            read_event(kind.event, b"{}")
    else:
        assert kind.event in EVENTS


def test_what_a_later_version_says_is_ignored() -> None:
    assert read_event("token", json.dumps({"text": "x", "later": 1}).encode()) == TokenEvent(text="x")
    assert read_event("later", b"{}") is None
    assert read_event("status", b'{"state": "later"}') is None
