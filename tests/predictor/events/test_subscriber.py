"""The predictor as a Trigger's subscriber: what it does with events, and what it answers a broker."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import warnings
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest
from prometheus_client import REGISTRY

from contract import Problem, ProblemError, TextResult, problems
from contract.cloudevents import (
    ACCEPTED,
    CANCELLED,
    COMPLETED,
    EVENT_BYTES,
    EVENT_TYPES,
    EXPIRY,
    FAILED,
    MODEL,
    PROGRESS,
    REQUESTED,
    CloudEvent,
    now,
)
from predictor.engine.events import Reasoning, ToolCallPiece
from predictor.events.deduplication import Deduplicator
from predictor.events.reply_builder import ReplyBuilder
from predictor.events.subscriber import EventSubscriber
from tests.support.waiting import eventually
from tests.support.wire.instances import names_its_request
from wire.artifacts import Artifacts
from wire.cloudevents import BATCHED, STRUCTURED, Mode, read_events, write_batch, write_event

PREDICT = "/v1/models/poet:predict"
INFER = "/v2/models/poet/infer"
OTHERS = [row.name for row in EVENT_TYPES if row.name not in (REQUESTED, CANCELLED)]


def requested(data: object = None, **changes: Any) -> CloudEvent:
    """An event that asks for a text; `data` are a body of `POST /generate`, or bytes."""
    body = data if isinstance(data, bytes) else json.dumps(data or {"prompt": "月"}).encode()
    fields = {"id": "1", "source": "/test", "type": REQUESTED, "datacontenttype": "application/json", "data": body}
    return CloudEvent(**fields | changes)


def cancelled(subject: str) -> CloudEvent:
    return CloudEvent(id=f"{subject}-cancelled", source="/test", type=CANCELLED, subject=subject)


async def send(
    client: httpx2.AsyncClient, *events: CloudEvent, mode: Mode = "binary", path: str = "/"
) -> httpx2.Response:
    headers, content = write_batch(events) if mode == "batched" else write_event(events[0], mode)
    return await client.post(path, headers=headers, content=content)


def replies(answer: httpx2.Response) -> list[CloudEvent]:
    assert answer.status_code == 200, answer.text
    return read_events(answer.headers, answer.content).events


def reply(answer: httpx2.Response) -> CloudEvent:
    [event] = replies(answer)
    return event


def text(event: CloudEvent) -> str:
    assert event.type == COMPLETED, event.data
    return TextResult.model_validate_json(event.data or b"").text


def failure(answer: httpx2.Response) -> Problem:
    """The problem in the data of a failed reply."""
    event = reply(answer)
    assert event.type == FAILED
    assert event.datacontenttype == "application/json"
    return Problem.model_validate_json(event.data or b"")


def slug(problem: Problem) -> str:
    return problem.type.rpartition(":")[2]


def check_problem(answer: httpx2.Response, status: int, name: str) -> None:
    """It is a problem document, and no event."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert not [header for header in answer.headers if header.startswith("ce-")]
    assert slug(Problem.model_validate(answer.json())) == name
    assert names_its_request(answer)
    assert answer.headers.get("retry-after") == (None if status < 500 else str(answer.json()["retry_after"]))
    assert "Traceback" not in answer.text


# Replies


@pytest.mark.parametrize("path", ["/", PREDICT])
async def test_a_request_is_answered_with_its_result(client: httpx2.AsyncClient, engine: Any, path: str) -> None:
    engine.enqueue("床前", "明月光", prompt_tokens=3, completion_tokens=6, finish_reason="length")

    answer = await send(client, requested({"prompt": "月", "seed": 7, "stream": True}, subject="job-1"), path=path)

    event = reply(answer)
    assert (event.type, event.source, event.subject) == (COMPLETED, "urn:shangcai:model:poet", "job-1")
    assert event.extensions == {"causationid": "1"}
    assert answer.headers["content-type"] == event.datacontenttype == "application/json"
    assert event.time is not None
    assert abs(datetime.fromisoformat(event.time) - datetime.now(UTC)) < timedelta(minutes=5)
    result = json.loads(event.data or b"")
    timing = result.pop("timing")
    assert result == {
        "id": "job-1",
        "model": "poet",
        "kind": "text",
        "text": "床前明月光",
        "finish_reason": "length",
        "usage": {"prompt_tokens": 3, "completion_tokens": 6},
    }
    assert timing["queue_s"] == 0.25
    assert 0 < timing["first_token_s"] <= timing["total_s"] < 60
    [task] = engine.tasks
    assert task.prompt == ({"role": "user", "content": "月"},)
    assert task.sampling.seed == 7


async def test_a_request_may_ask_for_reasoning(client: httpx2.AsyncClient, engine: Any) -> None:
    engine.enqueue(Reasoning("hm"), "月")

    answer = await send(client, requested({"prompt": "月", "thinking": True}))

    result = TextResult.model_validate_json(reply(answer).data or b"")
    assert (result.text, result.reasoning_content) == ("月", "hm")
    assert engine.tasks[0].thinking is True


async def test_a_request_may_be_a_conversation_with_tools(client: httpx2.AsyncClient, engine: Any) -> None:
    engine.enqueue(ToolCallPiece(0, "{}", "call_1", "ping"), finish_reason="tool_calls")
    tools = [{"type": "function", "function": {"name": "ping"}}]
    turns = [{"role": "user", "content": "月"}]

    answer = await send(client, requested({"messages": turns, "system": "短", "tools": tools}))

    result = TextResult.model_validate_json(reply(answer).data or b"")
    [call] = result.tool_calls or []
    assert (result.text, result.finish_reason, call.function.name) == ("", "tool_calls", "ping")
    [task] = engine.tasks
    assert task.prompt == ({"role": "system", "content": "短"}, {"role": "user", "content": "月"})
    assert [function.name for function in task.tools.callable] == ["ping"]


async def test_a_text_may_be_empty(client: httpx2.AsyncClient, engine: Any) -> None:
    engine.enqueue()

    assert text(reply(await send(client, requested()))) == ""


async def test_without_a_subject_the_id_is_the_subject(client: httpx2.AsyncClient, engine: Any) -> None:
    engine.enqueue("x")

    event = reply(await send(client, requested(id="a 1")))

    assert event.subject == "a 1"
    assert TextResult.model_validate_json(event.data or b"").id == "a 1"


async def test_traces_and_correlations_are_carried_over_and_nothing_else(
    client: httpx2.AsyncClient, engine: Any
) -> None:
    engine.enqueue("x")
    carried = {
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "tracestate": "a=1,b=%2",
        "correlationid": "月 %",
        "partitionkey": "k",
    }
    more = {"causationid": "0", "knativearrivaltime": now(), "other": "x"}

    event = reply(await send(client, requested(extensions=carried | more)))

    assert event.extensions == carried | {"causationid": "1"}


async def test_the_source_can_be_set(start_server: Any, engine: Any) -> None:
    served = await start_server(engine, lambda model: EventSubscriber(model, ReplyBuilder("/models/poet-2")))
    engine.enqueue("x")

    async with httpx2.AsyncClient(base_url=served.url) as client:
        assert reply(await send(client, requested())).source == "/models/poet-2"


# Modes


@pytest.mark.parametrize("time", [None, "2026-01-31T08:00:00Z"])
async def test_a_structured_request_gets_a_structured_reply(
    client: httpx2.AsyncClient, engine: Any, time: str | None
) -> None:
    engine.enqueue("春")

    answer = await send(client, requested(time=time), mode="structured", path=PREDICT)

    assert answer.headers["content-type"] == STRUCTURED
    assert answer.json()["data"]["text"] == "春"
    assert "data_base64" not in answer.json()
    assert reply(answer).type == COMPLETED


async def test_data_may_come_in_base64(client: httpx2.AsyncClient, engine: Any) -> None:
    engine.enqueue("春")
    data = base64.b64encode(b'{"prompt": "a"}').decode()
    event = {"specversion": "1.0", "id": "1", "source": "/test", "type": REQUESTED, "data_base64": data}

    answer = await client.post("/", json=event, headers={"Content-Type": f"{STRUCTURED}; charset=utf-8"})

    assert text(reply(answer)) == "春"


async def test_a_batch_is_answered_with_a_batch_in_its_order(client: httpx2.AsyncClient, engine: Any) -> None:
    gate = asyncio.Event()
    engine.enqueue(gate, "first")
    engine.enqueue("second")
    asyncio.get_running_loop().call_later(0.05, gate.set)
    events = requested(id="1"), CloudEvent(id="2", source="/test", type=PROGRESS), requested(id="3")

    answer = await send(client, *events, mode="batched")

    assert answer.headers["content-type"] == BATCHED
    assert [(text(event), event.subject) for event in replies(answer)] == [("first", "1"), ("second", "3")]


async def test_a_batch_of_one_is_answered_with_a_batch_and_an_empty_one_with_nothing(
    client: httpx2.AsyncClient, engine: Any
) -> None:
    engine.enqueue("x")

    assert [text(event) for event in replies(await send(client, requested(), mode="batched"))] == ["x"]
    assert isinstance((await send(client, requested(), mode="batched")).json(), list)
    assert (await send(client, mode="batched")).status_code == 204


async def test_an_event_twice_in_a_batch_is_done_once(client: httpx2.AsyncClient, engine: Any) -> None:
    engine.enqueue("x")

    first, second = replies(await send(client, requested(), requested(), mode="batched"))

    assert first == second
    assert len(engine.tasks) == 1


@pytest.mark.parametrize("mode", ["binary", "structured"])
async def test_pythons_own_sdk_sends_and_reads(client: httpx2.AsyncClient, engine: Any, mode: str) -> None:
    with warnings.catch_warnings(action="ignore"):
        from cloudevents import conversion
        from cloudevents.http import CloudEvent as Event
        from cloudevents.http import from_http
    engine.enqueue("春")
    attributes = {"type": REQUESTED, "source": "/sdk", "subject": "job-1", "datacontenttype": "application/json"}
    write = conversion.to_binary if mode == "binary" else conversion.to_structured
    headers, content = write(Event(attributes, {"prompt": "a"}))

    answer = await client.post("/", headers=headers, content=content)

    event = from_http(dict(answer.headers), answer.content)
    assert (event["type"], event["subject"]) == (COMPLETED, "job-1")
    assert event.data["text"] == "春"


# What cannot be done


@pytest.mark.parametrize(
    ("data", "field"),
    [
        ({"prompt": ""}, "prompt"),
        ({"prompt": 5}, "prompt"),
        ({"max_tokens": 5}, "prompt"),
        ({"prompt": "a", "max_tokens": "5"}, "max_tokens"),
        ({"prompt": "a", "kind": "image"}, "kind"),
        ({"prompt": "a", "steps": 5}, "steps"),
        ({"prompt": "a", "previews": 1}, "previews"),
        ({"prompt": "a", "webhook": "https://hooks.example.com/"}, "webhook"),
        ([{"prompt": "a"}], "body"),
    ],
)
async def test_a_request_with_wrong_data_fails_for_good(
    client: httpx2.AsyncClient, engine: Any, data: Any, field: str
) -> None:
    answer = await send(client, requested(data))

    problem = failure(answer)
    assert (slug(problem), problem.status) == ("invalid-field", 400)
    assert [error.field for error in problem.errors or ()] == [field]
    assert reply(answer).extensions == {"causationid": "1"}
    assert engine.tasks == []


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"data": b"{"}, "malformed-body"),
        ({"data": None}, "invalid-field"),
        ({"data": b"prompt=a", "datacontenttype": "application/x-www-form-urlencoded"}, "unsupported-media-type"),
        ({"data": b"moon", "datacontenttype": "text/plain"}, "unsupported-media-type"),
    ],
    ids=["broken JSON", "no data", "form", "text"],
)
async def test_a_request_with_unreadable_data_fails_for_good(
    client: httpx2.AsyncClient, engine: Any, changes: dict[str, Any], name: str
) -> None:
    assert slug(failure(await send(client, requested().model_copy(update=changes)))) == name
    assert engine.tasks == []


async def test_the_model_and_the_kind_may_be_named(client: httpx2.AsyncClient, engine: Any) -> None:
    engine.enqueue("x")

    assert text(reply(await send(client, requested({"prompt": "a", "model": "poet", "kind": "text"})))) == "x"


async def test_a_request_for_another_model_fails_for_good(client: httpx2.AsyncClient, engine: Any) -> None:
    problem = failure(await send(client, requested({"prompt": "a", "model": "painter"})))

    assert slug(problem) == "unknown-model"
    assert "poet" in problem.detail
    assert engine.tasks == []


async def test_what_the_engine_will_never_do_fails_for_good(client: httpx2.AsyncClient, engine: Any) -> None:
    engine.refuse(problems.invalid_field("prompt", "has 9000 tokens"))
    engine.enqueue("so far", ProblemError(problems.OUT_OF_MEMORY, "The device has no memory for this request."))

    assert slug(failure(await send(client, requested(id="1")))) == "invalid-field"
    assert slug(failure(await send(client, requested(id="2")))) == "out-of-memory"


async def test_a_wrong_request_fails_while_the_model_loads(loading_client: httpx2.AsyncClient) -> None:
    assert slug(failure(await send(loading_client, requested({"prompt": ""})))) == "invalid-field"


# What may be done later


async def test_while_the_model_loads_the_broker_is_told_to_come_again(
    loading_server: Any, loading_client: httpx2.AsyncClient, engine: Any
) -> None:
    answer = await send(loading_client, requested())

    check_problem(answer, 503, "loading")
    assert answer.headers["retry-after"] == "1"
    engine.load_gate.set()
    await eventually(lambda: loading_server.model.startup.ready)
    engine.enqueue("x")
    assert text(reply(await send(loading_client, requested()))) == "x"


@pytest.mark.parametrize("mode", ["binary", "structured", "batched"])
async def test_a_full_engine_is_a_problem_with_the_time_to_come_again(
    client: httpx2.AsyncClient, engine: Any, mode: Mode
) -> None:
    engine.refuse(ProblemError(problems.OVERLOADED, "64 requests are waiting already.", retry_after=12.1))

    answer = await send(client, requested(), mode=mode)

    check_problem(answer, 503, "overloaded")
    assert answer.headers["retry-after"] == "13"


async def test_every_failure_that_may_pass_says_when_to_come_again(client: httpx2.AsyncClient, engine: Any) -> None:
    engine.enqueue("so far", ProblemError(problems.INTERNAL, "The model failed on this request."))
    engine.refuse(KeyError("secret detail"))

    check_problem(await send(client, requested()), 500, "internal")
    answer = await send(client, requested())
    check_problem(answer, 500, "internal")
    assert "secret" not in answer.text


async def test_in_a_batch_one_failure_that_may_pass_is_the_whole_answer_and_what_is_done_costs_nothing_again(
    client: httpx2.AsyncClient, engine: Any
) -> None:
    gate = asyncio.Event()
    engine.enqueue("done")
    engine.enqueue(gate, "running")
    engine.refuse(ProblemError(problems.OVERLOADED, "Full.", retry_after=5))
    batch = requested(id="1"), requested(id="2"), requested(id="3")

    check_problem(await send(client, *batch, mode="batched"), 503, "overloaded")

    gate.set()
    engine.enqueue("at last")
    answer = await send(client, *batch, mode="batched")
    assert [text(event) for event in replies(answer)] == ["done", "running", "at last"]
    assert len(engine.tasks) == 4


async def test_a_delivery_that_waits_when_the_server_ends_is_told_to_come_again(
    server: Any, client: httpx2.AsyncClient, engine: Any
) -> None:
    engine.enqueue(asyncio.Event())
    waiting = asyncio.create_task(send(client, requested()))
    await eventually(lambda: engine.generations)

    server.model.stop()

    check_problem(await waiting, 503, "unavailable")


# How long


async def test_the_expiry_bounds_the_task(client: httpx2.AsyncClient, engine: Any) -> None:
    times = [None, datetime.now(UTC) + timedelta(seconds=100), datetime.now(UTC) + timedelta(days=999)]
    for number, expiry in enumerate(times):
        engine.enqueue("x")
        extensions = {EXPIRY: expiry.isoformat()} if expiry else {}
        assert text(reply(await send(client, requested(id=str(number), extensions=extensions)))) == "x"

    without, soon, late = [task.seconds for task in engine.tasks]
    assert (without, late) == (600, 600)
    assert 40 < soon < 100


@pytest.mark.parametrize("expiry", ["2020-01-31T08:00:00Z", "2020-01-31t08:00:00.5+08:00"])
async def test_a_request_that_has_expired_fails_at_once(
    loading_client: httpx2.AsyncClient, engine: Any, expiry: str
) -> None:
    problem = failure(await send(loading_client, requested(extensions={EXPIRY: expiry})))

    assert slug(problem) == "too-late"
    assert expiry in problem.detail
    assert engine.tasks == []


async def test_a_request_that_expires_while_it_runs_fails_for_good(client: httpx2.AsyncClient, engine: Any) -> None:
    engine.enqueue("so far", ProblemError(problems.TOO_LATE, "The request's time was over after 5 s."))

    assert slug(failure(await send(client, requested()))) == "too-late"


@pytest.mark.parametrize("expiry", ["tomorrow", "2999-01-31T08:00:00", "2999-13-31T08:00:00Z", "5", ""])
async def test_what_is_no_time_is_refused_by_name(client: httpx2.AsyncClient, engine: Any, expiry: str) -> None:
    problem = failure(await send(client, requested(extensions={EXPIRY: expiry}), mode="structured"))

    assert [error.field for error in problem.errors or ()] == [EXPIRY]
    assert engine.tasks == []


# Again and again


async def test_a_second_delivery_joins_the_running_one(client: httpx2.AsyncClient, engine: Any) -> None:
    gate = asyncio.Event()
    engine.enqueue("a", gate, "b")
    before = counted("shangcai_redeliveries_total", found="running")
    deliveries = [asyncio.create_task(send(client, requested())) for _ in range(3)]
    await eventually(lambda: counted("shangcai_redeliveries_total", found="running") == before + 2)

    gate.set()

    first, *others = [(answer.headers["ce-id"], answer.content) for answer in await asyncio.gather(*deliveries)]
    assert json.loads(first[1])["text"] == "ab"
    assert others == [first] * 2
    assert len(engine.tasks) == 1


async def test_a_delivery_after_the_end_gets_the_same_reply(client: httpx2.AsyncClient, engine: Any) -> None:
    engine.enqueue("x")
    before = counted("shangcai_redeliveries_total", found="done")

    first = await send(client, requested())
    again = await send(client, requested(), path=PREDICT)
    structured = await send(client, requested(), mode="structured")

    assert again.content == first.content
    assert reply(again) == reply(first) == reply(structured)
    assert counted("shangcai_redeliveries_total", found="done") == before + 2
    assert len(engine.tasks) == 1


async def test_a_failure_for_good_is_remembered_too(client: httpx2.AsyncClient, engine: Any) -> None:
    engine.refuse(problems.invalid_field("prompt", "has 9000 tokens"))

    first = await send(client, requested())

    assert reply(await send(client, requested())) == reply(first)
    assert len(engine.tasks) == 1


@pytest.mark.parametrize("changes", [{"id": "2"}, {"source": "/other"}])
async def test_another_id_or_source_is_another_request(
    client: httpx2.AsyncClient, engine: Any, changes: dict[str, str]
) -> None:
    engine.enqueue("x")
    engine.enqueue("y")

    first, other = reply(await send(client, requested())), reply(await send(client, requested(**changes)))

    assert (text(first), text(other)) == ("x", "y")
    assert first.id != other.id


async def test_a_reply_that_was_forgotten_comes_again_under_the_same_id(start_server: Any, engine: Any) -> None:
    served = await start_server(
        engine, lambda model: EventSubscriber(model, deduplicator=Deduplicator(reply_seconds=1e-9))
    )
    engine.enqueue("x")
    engine.enqueue("y")

    async with httpx2.AsyncClient(base_url=served.url) as client:
        first, again = reply(await send(client, requested())), reply(await send(client, requested()))

    assert (text(first), text(again)) == ("x", "y")
    assert (first.source, first.id) == (again.source, again.id)


async def test_a_generation_outlives_its_delivery(server: Any, client: httpx2.AsyncClient, engine: Any) -> None:
    gate = asyncio.Event()
    engine.enqueue("a", gate, "b")
    impatient = httpx2.AsyncClient(base_url=server.url)
    delivery = asyncio.create_task(send(impatient, requested()))
    await eventually(lambda: engine.generations)
    delivery.cancel()
    await asyncio.wait({delivery})
    await impatient.aclose()
    await eventually(lambda: not server.server.rest.requests.in_flight)

    assert engine.closed == [False]
    gate.set()
    assert text(reply(await send(client, requested()))) == "ab"
    assert len(engine.tasks) == 1


async def test_a_failure_that_no_delivery_waits_for_logs_no_error(
    server: Any, client: httpx2.AsyncClient, engine: Any
) -> None:
    gate = asyncio.Event()
    engine.enqueue(gate, ProblemError(problems.INTERNAL, "The model failed on this request."))
    delivery = asyncio.create_task(send(client, requested()))
    await eventually(lambda: engine.generations)
    delivery.cancel()
    await eventually(lambda: not server.server.rest.requests.in_flight)
    gate.set()
    await eventually(lambda: engine.closed == [True])

    engine.enqueue("x")
    assert text(reply(await send(client, requested()))) == "x"


# Cancelling


async def test_cancelling_ends_what_runs_under_the_subject(client: httpx2.AsyncClient, engine: Any) -> None:
    gate = asyncio.Event()
    engine.enqueue("a", gate)
    engine.enqueue(gate, "other")
    running = asyncio.create_task(send(client, requested(id="1", subject="job-1")))
    other = asyncio.create_task(send(client, requested(id="2", subject="job-2")))
    await eventually(lambda: len(engine.generations) == 2)

    answer = await send(client, cancelled("job-1"))

    assert (answer.status_code, answer.content) == (204, b"")
    problem = failure(await running)
    assert (slug(problem), problem.status) == ("cancelled", 410)
    assert engine.closed == [True, False]
    gate.set()
    assert text(reply(await other)) == "other"
    assert slug(failure(await send(client, requested(id="1", subject="job-1")))) == "cancelled"
    assert len(engine.tasks) == 2


async def test_the_subject_of_a_request_without_one_is_its_id(client: httpx2.AsyncClient, engine: Any) -> None:
    engine.enqueue(asyncio.Event())
    running = asyncio.create_task(send(client, requested(id="7")))
    await eventually(lambda: engine.generations)

    await send(client, cancelled("7"))

    assert slug(failure(await running)) == "cancelled"


async def test_a_request_that_its_cancellation_overtook_is_not_begun(client: httpx2.AsyncClient, engine: Any) -> None:
    assert (await send(client, cancelled("job-1"))).status_code == 204

    assert slug(failure(await send(client, requested(subject="job-1")))) == "cancelled"
    assert engine.tasks == []


async def test_what_is_cancelled_must_be_named(client: httpx2.AsyncClient) -> None:
    answer = await send(client, CloudEvent(id="1", source="/test", type=CANCELLED))

    check_problem(answer, 400, "invalid-field")
    assert answer.json()["errors"][0]["field"] == "subject"


# What is not for us


@pytest.mark.parametrize("mode", ["binary", "structured", "batched"])
@pytest.mark.parametrize("kind", OTHERS)
async def test_what_predictors_send_is_taken_and_answered_with_nothing(
    client: httpx2.AsyncClient, engine: Any, kind: str, mode: Mode
) -> None:
    assert {COMPLETED, FAILED, ACCEPTED, PROGRESS} == set(OTHERS)

    answer = await send(client, requested(type=kind), mode=mode)

    assert (answer.status_code, answer.content) == (204, b"")
    assert engine.tasks == []


@pytest.mark.parametrize("kind", ["com.example.order", "ai.shangcai.generation.requested.v2", "t" * 2_000])
async def test_an_unknown_type_is_refused_by_name(client: httpx2.AsyncClient, engine: Any, kind: str) -> None:
    answer = await send(client, requested(id="1"), requested(id="2", type=kind), mode="batched")

    check_problem(answer, 400, "invalid-field")
    assert answer.json()["errors"][0]["field"] == "type"
    assert REQUESTED in answer.json()["detail"]
    assert len(answer.json()["detail"]) < 300
    assert engine.tasks == []


async def test_a_path_for_another_model_is_not_found(client: httpx2.AsyncClient, engine: Any) -> None:
    check_problem(await send(client, requested(), path="/v1/models/painter:predict"), 404, "unknown-model")
    assert engine.tasks == []


@pytest.mark.parametrize("content_type", ["application/json", "text/plain"])
async def test_what_is_no_event_is_refused_at_the_root(client: httpx2.AsyncClient, content_type: str) -> None:
    answer = await client.post("/", content=b'{"prompt": "a"}', headers={"Content-Type": content_type})

    check_problem(answer, 400, "malformed-event")
    assert "ce-specversion" in answer.json()["detail"]


async def test_what_is_no_event_is_left_to_kserve(client: httpx2.AsyncClient, engine: Any) -> None:
    engine.enqueue("x")

    predicted = await client.post(PREDICT, json={"instances": [{"prompt": "a"}]})

    assert predicted.json()["predictions"][0]["text"] == "x"
    assert (await client.get("/")).json() == {"status": "alive"}
    assert (await client.get(PREDICT, headers={"ce-id": "1"})).status_code == 404


async def test_events_on_v2_are_left_to_kserve(client: httpx2.AsyncClient, engine: Any) -> None:
    engine.enqueue("x")
    tensor = {"name": "prompt", "datatype": "BYTES", "shape": [1], "data": ["a"]}
    headers = {"ce-specversion": "1.0", "ce-source": "test", "ce-type": "t", "ce-id": "1"}

    answer = await client.post(INFER, json={"inputs": [tensor]}, headers=headers)

    assert answer.status_code == 200, answer.text
    assert answer.headers["ce-type"] == "io.kserve.inference.response"


# What is no event at all


BINARY = {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "/test", "ce-type": REQUESTED}


def structured(**members: Any) -> bytes:
    whole = {"specversion": "1.0", "id": "1", "source": "/test", "type": REQUESTED, "data": {"prompt": "a"}}
    return json.dumps({name: value for name, value in (whole | members).items() if value is not None}).encode()


@pytest.mark.parametrize(
    ("headers", "content", "status", "named"),
    [
        ({**BINARY, "ce-specversion": ""}, b"{}", 400, "specversion"),
        ({**BINARY, "ce-specversion": "0.3"}, b"{}", 400, "specversion"),
        ({"ce-type": REQUESTED}, b"{}", 400, "specversion"),
        ({**BINARY, "ce-subject": "100%"}, b"{}", 400, "subject"),
        ({**BINARY, "ce-subject": "%FF"}, b"{}", 400, "subject"),
        ({**BINARY, "ce-time": "yesterday"}, b"{}", 400, "time"),
        ({"content-type": STRUCTURED}, b"{", 400, "JSON"),
        ({"content-type": STRUCTURED}, b"[]", 400, "object"),
        ({"content-type": STRUCTURED}, b"", 400, "JSON"),
        ({"content-type": STRUCTURED}, structured(specversion=None), 400, "specversion"),
        ({"content-type": STRUCTURED}, structured(specversion="2.0"), 400, "specversion"),
        ({"content-type": STRUCTURED}, structured(data_base64="e30="), 400, "data_base64"),
        ({"content-type": STRUCTURED}, structured(data=None, data_base64="!"), 400, "data_base64"),
        ({"content-type": BATCHED}, structured(), 400, "list"),
        ({"content-type": BATCHED}, b"[" + b",".join([structured()] * 17) + b"]", 400, "16"),
        ({"content-type": BATCHED}, b"[" + structured() + b"," + structured(id=None) + b"]", 400, "id"),
        ({"content-type": "application/cloudevents+xml"}, b"<event/>", 415, "structured"),
        ({"content-type": "application/cloudevents"}, structured(), 415, "structured"),
    ],
)
@pytest.mark.parametrize("path", ["/", PREDICT])
async def test_a_malformed_event_is_a_problem(
    client: httpx2.AsyncClient, engine: Any, headers: dict[str, str], content: bytes, status: int, named: str, path: str
) -> None:
    answer = await client.post(path, headers=headers, content=content)

    check_problem(answer, status, "malformed-event" if status == 400 else "unsupported-media-type")
    assert named in answer.json()["detail"] or status == 415
    assert engine.tasks == []


@pytest.mark.parametrize("mode", ["binary", "structured"])
async def test_ten_megabytes_are_too_much(client: httpx2.AsyncClient, mode: Mode) -> None:
    answer = await send(client, requested({"prompt": "a" * 10_485_760}), mode=mode)

    check_problem(answer, 413, "body-too-large")


# Large results


def keeping(event_bytes: int, artifacts: Artifacts | None = None) -> Callable[[Any], EventSubscriber]:
    return lambda model: EventSubscriber(model, ReplyBuilder("/poet", event_bytes, artifacts))


@pytest.mark.parametrize("scheme", ["file", "memory"])
async def test_a_large_result_goes_to_the_artifacts(
    start_server: Any, engine: Any, tmp_path: Path, scheme: str
) -> None:
    artifacts = Artifacts(f"{scheme}://{tmp_path}/results/")
    served = await start_server(engine, keeping(1_000, artifacts))
    engine.enqueue("月" * 1_000)

    async with httpx2.AsyncClient(base_url=served.url) as client:
        answer = await send(client, requested(subject="job-1"))
        again = await send(client, requested(subject="job-1"))

    event = reply(answer)
    assert (event.type, event.data, event.datacontenttype) == (COMPLETED, None, "application/json")
    address = event.extensions["dataref"]
    folder, _, name = address.rpartition("/")
    assert folder == f"{scheme}://{tmp_path}/results"
    assert re.fullmatch(r"[0-9a-f]{64}\.json", name)
    result = TextResult.model_validate_json(await artifacts.get(address, 1_000_000))
    assert (result.id, result.text) == ("job-1", "月" * 1_000)
    assert reply(again) == event
    if scheme == "file":
        assert [file.name for file in (tmp_path / "results").iterdir()] == [name]


async def test_a_result_that_just_fits_travels_itself(start_server: Any, engine: Any) -> None:
    served = await start_server(engine, keeping(EVENT_BYTES))
    engine.enqueue("x" * 261_000)
    engine.enqueue("x" * 262_144)

    async with httpx2.AsyncClient(base_url=served.url) as client:
        assert len(text(reply(await send(client, requested(id="1"))))) == 261_000
        assert slug(failure(await send(client, requested(id="2")))) == "result-too-large"


async def test_without_artifacts_a_large_result_is_a_failure_that_says_what_helps(
    start_server: Any, engine: Any
) -> None:
    served = await start_server(engine, keeping(1_000))
    engine.enqueue("x" * 2_000)

    async with httpx2.AsyncClient(base_url=served.url) as client:
        problem = failure(await send(client, requested()))

    assert slug(problem) == "result-too-large"
    assert "1000" in problem.detail
    assert "ARTIFACTS_URL" in problem.detail
    assert "--event-bytes" in problem.detail


async def test_artifacts_that_cannot_be_written_are_tried_again_later(
    start_server: Any, engine: Any, tmp_path: Path
) -> None:
    (tmp_path / "results").write_text("a file in the place of the folder")
    served = await start_server(engine, keeping(1_000, Artifacts(f"file://{tmp_path}/results")))
    engine.enqueue("x" * 2_000)

    async with httpx2.AsyncClient(base_url=served.url) as client:
        check_problem(await send(client, requested()), 503, "unavailable")


# Metrics


def counted(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


async def test_events_are_counted_by_what_became_of_them(client: httpx2.AsyncClient, engine: Any) -> None:
    outcomes = ("completed", "failed", "retried", "ignored")
    before = [counted("shangcai_events_total", outcome=outcome) for outcome in outcomes]
    engine.enqueue("x")
    engine.refuse(ProblemError(problems.OVERLOADED, "Full."))

    await send(client, requested(id="1"))
    await send(client, requested(id="2"))
    await send(client, requested({"prompt": ""}, id="3"), requested({"prompt": ""}, id="4"), mode="batched")
    await send(client, requested(type=PROGRESS), requested(type=PROGRESS), cancelled("9"), mode="batched")

    after = [counted("shangcai_events_total", outcome=outcome) for outcome in outcomes]
    assert [late - early for early, late in zip(before, after, strict=True)] == [1, 2, 1, 3]


async def test_a_request_that_is_meant_for_another_model_is_left_alone(client: httpx2.AsyncClient, engine: Any) -> None:
    """Two predictors behind one broker, and Triggers that do not filter by model."""
    answer = await send(client, requested(extensions={MODEL: "painter"}))
    assert (answer.status_code, answer.content, engine.tasks) == (204, b"", [])
    engine.enqueue("春")
    assert text(reply(await send(client, requested(id="2", extensions={MODEL: "poet"})))) == "春"
