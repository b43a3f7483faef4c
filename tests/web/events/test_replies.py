"""What replies, progress and dead letters make of a job."""

from __future__ import annotations

import asyncio
import base64
import json
from pathlib import Path
from typing import Any

import httpx2
import pytest

from contract import Problem, ProblemError, problems
from contract.cloudevents import (
    ACCEPTED,
    COMPLETED,
    DATAREF,
    ERROR_CODE,
    ERROR_DATA,
    ERROR_DESTINATION,
    FAILED,
    PROGRESS,
    Acceptance,
    CloudEvent,
    GenerationProgress,
)
from contract.texts.tools import CalledFunction, ToolCall
from tests.support.events import (
    Events,
    Front,
    Sink,
    Slug,
    about,
    completed,
    deliver,
    ended,
    job_of,
    log_of,
    painting,
    poem,
    submit,
)
from tests.support.waiting import eventually
from wire.cloudevents import write_event


async def test_events_of_a_generation(front: Front, sink: Sink, events: Events) -> None:
    client = await front()
    waiting = asyncio.create_task(client.post("/generate", json={"prompt": "春", "stream": True}))
    [request] = await eventually(lambda: sink.events)
    job = request.subject
    for event in (
        about(job, ACCEPTED, Acceptance(model="poet", kind="text")),
        about(job, PROGRESS, GenerationProgress(model="poet", state="running", text="春眠")),
        about(job, PROGRESS, GenerationProgress(model="poet", state="running", text="春")),
        about(job, PROGRESS, GenerationProgress(model="poet", state="running", text="春眠")),
        about(job, PROGRESS, GenerationProgress(model="poet", state="running", text="春眠不觉")),
        about(None, PROGRESS, GenerationProgress(model="poet", state="loading", phase="ready")),
        completed(request),
    ):
        assert (await deliver(client, event)).status_code == 204
    found = events((await waiting).text)
    assert found[:2] == [("status", {"state": "queued", "position": 0}), ("status", {"state": "running"})]
    assert [data["text"] for name, data in found if name == "token"] == ["春眠", "不觉", "晓"]
    assert found[-1][0] == "result"
    assert found[-1][1]["id"] == job


async def test_calls_come_after_the_text_and_once(front: Front, sink: Sink, events: Events) -> None:
    client = await front()
    job = await submit(client)
    await eventually(lambda: sink.events)
    await deliver(client, about(job, PROGRESS, GenerationProgress(model="poet", state="running", text="春")))
    calls = [ToolCall(id=f"call_{number}", function=CalledFunction(name="rain", arguments="{}")) for number in range(2)]
    result = poem(job).model_copy(update={"tool_calls": calls, "finish_reason": "tool_calls"})
    for _ in range(2):
        await deliver(client, about(job, COMPLETED, result))

    found = events(await log_of(client, job))
    order = [name for name, _ in found if name != "status"]
    assert order == ["token", "token", "tool_call", "tool_call", "result"]
    told = [data for name, data in found if name == "tool_call"]
    assert told == [{"index": number, "id": f"call_{number}", "name": "rain", "arguments": "{}"} for number in range(2)]
    assert found[-1][1]["tool_calls"] == [call.model_dump() for call in calls]


async def test_reasoning_comes_before_the_text(front: Front, sink: Sink, events: Events) -> None:
    client = await front()
    job = await submit(client)
    await eventually(lambda: sink.events)
    for reasoning, text in (("hm", ""), ("hm, s", ""), ("hm", ""), ("hm, so", "春"), ("hm, so", "春眠")):
        progress = GenerationProgress(model="poet", state="running", text=text, reasoning_content=reasoning)
        await deliver(client, about(job, PROGRESS, progress))
    result = poem(job).model_copy(update={"reasoning_content": "hm, so"})
    await deliver(client, about(job, COMPLETED, result))

    found = [(name, data.get("text")) for name, data in events(await log_of(client, job))]
    assert [pair for pair in found if pair[0] in ("reasoning", "token")] == [
        ("reasoning", "hm"),
        ("reasoning", ", s"),
        ("reasoning", "o"),
        ("token", "春"),
        ("token", "眠"),
        ("token", "不觉晓"),
    ]
    assert (await ended(client, job))["result"]["reasoning_content"] == "hm, so"


async def test_a_result_of_a_newer_predictor_is_read(front: Front, sink: Sink) -> None:
    client = await front()
    job = await submit(client)
    await eventually(lambda: sink.events)
    event = about(job, COMPLETED, poem(job))
    newer = json.loads(event.data or b"") | {"mood": "glad"}
    assert (await deliver(client, event.model_copy(update={"data": json.dumps(newer).encode()}))).status_code == 204
    assert (await ended(client, job))["result"]["text"] == "春眠不觉晓"


async def test_steps_only_go_forward(front: Front, sink: Sink, events: Events) -> None:
    client = await front()
    job = await submit(client, kind="image")
    [request] = await eventually(lambda: sink.events)
    for step in (2, 1, 2, 3):
        await deliver(
            client, about(job, PROGRESS, GenerationProgress(model="painter", state="running", step=step, of=4))
        )
    await deliver(client, completed(request))
    found = events(await log_of(client, job))
    assert [data["step"] for name, data in found if name == "progress"] == [2, 3]


async def test_the_last_piece_of_a_text_comes_with_the_result(front: Front, sink: Sink, events: Events) -> None:
    client = await front()
    job = await submit(client)
    [request] = await eventually(lambda: sink.events)
    await deliver(client, about(job, PROGRESS, GenerationProgress(model="poet", state="running", text="春眠")))
    await deliver(client, completed(request))
    found = events(await log_of(client, job))
    assert [data["text"] for name, data in found if name == "token"] == ["春眠", "不觉晓"]


async def test_a_picture_itself(front: Front, sink: Sink) -> None:
    sink.replies()
    answer = await (await front()).post("/generate", json={"prompt": "猫"}, headers={"Accept": "image/png"})
    assert (answer.status_code, answer.headers["content-type"], answer.content) == (200, "image/png", b"a picture")
    assert answer.headers["x-seed"] == "7"


async def test_a_failure_is_the_answer(front: Front, sink: Sink, slug: Slug) -> None:
    async def answer(event: CloudEvent) -> httpx2.Response:
        problem = ProblemError(problems.OUT_OF_MEMORY, "It does not fit.").problem
        headers, body = write_event(about(event.subject, FAILED, problem))
        return httpx2.Response(200, headers=headers, content=body)

    sink.answer = answer
    refused = await (await front()).post("/generate", json={"prompt": "春"})
    assert (refused.status_code, slug(refused)) == (413, "out-of-memory")


async def test_a_reply_to_one_replica_is_for_all(front: Front, sink: Sink, redis_url: str) -> None:
    one, other = [await front(store_url=redis_url) for _ in range(2)]
    waiting = asyncio.create_task(one.post("/generate", json={"prompt": "春"}))
    [request] = await eventually(lambda: sink.events)
    answers = await asyncio.gather(*(deliver(client, completed(request)) for client in (one, other) * 5))
    assert {answer.status_code for answer in answers} == {204}
    answer = await waiting
    assert (answer.status_code, answer.json()["text"]) == (200, "春眠不觉晓")
    assert len(sink.events) == 1


async def test_what_is_delivered_more_than_once_counts_once(front: Front, sink: Sink, events: Events) -> None:
    client = await front()
    job = await submit(client)
    [request] = await eventually(lambda: sink.events)
    failure = about(job, FAILED, ProblemError(problems.OUT_OF_MEMORY, "no").problem)
    for reply in (completed(request), completed(request), failure):
        assert (await deliver(client, reply)).status_code == 204
    assert (await job_of(client, job))["state"] == "completed"
    found = events(await log_of(client, job))
    assert [name for name, _ in found].count("result") == 1


async def test_a_request_on_its_way_changes_nothing(front: Front, sink: Sink) -> None:
    """A Trigger without a filter brings it here, too."""
    client = await front()
    job = await submit(client)
    [request] = await eventually(lambda: sink.events)
    assert (await deliver(client, request)).status_code == 204
    assert (await job_of(client, job))["state"] == "queued"


# Invalid replies


@pytest.mark.parametrize("data", [b"", b"{}", b"no json", painting("x").model_dump_json().encode()])
async def test_an_invalid_result_ends_the_job(front: Front, sink: Sink, slug: Slug, data: bytes) -> None:
    client = await front()
    job = await submit(client)
    await eventually(lambda: sink.events)
    reply = about(job, COMPLETED).model_copy(update={"datacontenttype": "application/json", "data": data})
    headers, _ = write_event(reply)
    assert slug(await client.post("/events", headers=headers, content=data)) == "malformed-event"
    assert (await job_of(client, job))["error"]["type"].endswith("bad-upstream")


@pytest.mark.parametrize(
    ("data", "content_type"),
    [
        (b"", "application/json"),
        (b"{}", "application/json"),
        (b"no json", "application/json"),
        (b'{"type": "urn:x", "title": "x", "status": 42, "detail": "x"}', "application/json"),
        (b'{"type": "urn:x", "title": "x", "status": 200, "detail": "x"}', "application/json"),
        (b'{"type": "urn:x", "title": "x", "status": 400, "detail": "x"}', "text/plain"),
    ],
)
@pytest.mark.parametrize("delivered", [True, False])
async def test_an_invalid_failure_ends_the_job_all_the_same(
    front: Front, sink: Sink, slug: Slug, data: bytes, content_type: str, delivered: bool
) -> None:
    def reply(job: str | None) -> tuple[dict[str, str], bytes]:
        return write_event(about(job, FAILED).model_copy(update={"datacontenttype": content_type, "data": data}))

    async def answer(event: CloudEvent) -> httpx2.Response:
        headers, body = reply(event.subject)
        return httpx2.Response(200, headers=headers, content=body)

    sink.answer = sink.accepted if delivered else answer
    client = await front()
    job = await submit(client)
    await eventually(lambda: sink.events)
    if delivered:
        headers, body = reply(job)
        assert slug(await client.post("/events", headers=headers, content=body)) == "malformed-event"
    document = await ended(client, job)
    assert (document["state"], document["error"]["status"]) == ("failed", 502)
    assert document["error"]["type"].endswith("bad-upstream")


@pytest.mark.parametrize("status", [0, 101, 200, 204, 399, 600, 99_999])
async def test_a_failure_with_an_impossible_status_ends_the_job(
    front: Front, sink: Sink, slug: Slug, status: int
) -> None:
    client = await front()
    job = await submit(client)
    await eventually(lambda: sink.events)
    problem = Problem(type="about:blank", title="t", status=status, detail="d")
    assert slug(await deliver(client, about(job, FAILED, problem))) == "malformed-event"
    assert (await job_of(client, job))["error"]["type"].endswith("bad-upstream")


@pytest.mark.parametrize(
    "changes",
    [
        {"images": []},
        {"images": [{"data": "aGk"}]},
        {"images": [{"data": "***"}]},
        {"images": [{"data": ""}]},
        {"images": [{}, {}]},
        {"images": [{"media_type": "text/html"}]},
        {"images": [{"media_type": "image/png\r\nX-Evil: 1"}]},
        {"images": [{"media_type": "image/webp"}]},
    ],
)
async def test_invalid_pictures_end_the_job(front: Front, sink: Sink, slug: Slug, changes: dict[str, Any]) -> None:
    """They would be handed on as files, and in headers."""
    client = await front()
    job = await submit(client, kind="image")
    await eventually(lambda: sink.events)
    document = painting(job).model_dump()
    document["images"] = [{**document["images"][0], **image} for image in changes["images"]]
    data = json.dumps(document).encode()
    reply = about(job, COMPLETED).model_copy(update={"datacontenttype": "application/json", "data": data})
    assert slug(await deliver(client, reply)) == "malformed-event"
    assert (await job_of(client, job))["error"]["type"].endswith("bad-upstream")


# Dead letters


@pytest.mark.parametrize(
    ("extensions", "said"),
    [
        ({ERROR_CODE: "503", ERROR_DATA: "not base64"}, "503"),
        ({ERROR_DESTINATION: "http://sink"}, "does not say why"),
        (
            {
                ERROR_CODE: "503",
                ERROR_DATA: base64.b64encode(
                    ProblemError(problems.LOADING, "poet is loading.").problem.model_dump_json().encode()
                ).decode(),
            },
            "poet is loading.",
        ),
    ],
)
async def test_a_dead_request_ends_its_job(front: Front, sink: Sink, extensions: dict[str, str], said: str) -> None:
    client = await front()
    job = await submit(client)
    [request] = await eventually(lambda: sink.events)
    dead = request.model_copy(update={"extensions": request.extensions | extensions})
    assert (await deliver(client, dead)).status_code == 204
    document = await job_of(client, job)
    assert document["state"] == "failed"
    assert document["error"]["type"].endswith("undelivered")
    assert said in document["error"]["detail"]


async def test_a_dead_reply_is_a_reply(front: Front, sink: Sink) -> None:
    client = await front()
    job = await submit(client)
    [request] = await eventually(lambda: sink.events)
    reply = completed(request)
    dead = reply.model_copy(update={"extensions": reply.extensions | {ERROR_CODE: "500"}})
    assert (await deliver(client, dead)).status_code == 204
    assert (await job_of(client, job))["state"] == "completed"


async def test_dead_progress_is_no_end(front: Front, sink: Sink) -> None:
    client = await front()
    job = await submit(client)
    await eventually(lambda: sink.events)
    dead = about(job, PROGRESS, GenerationProgress(model="poet", state="running", text="春"), **{ERROR_CODE: "500"})
    assert (await deliver(client, dead)).status_code == 204
    assert (await job_of(client, job))["state"] == "running"


# Results outside of their event


async def test_a_result_that_lies_elsewhere(front: Front, sink: Sink, tmp_path: Path) -> None:
    client = await front(artifacts_url=tmp_path.as_uri())
    job = await submit(client)
    await eventually(lambda: sink.events)
    (tmp_path / "result.json").write_text(poem(job, "很长很长").model_dump_json())
    reply = about(job, COMPLETED, None, **{DATAREF: tmp_path.as_uri() + "/result.json"})
    assert (await deliver(client, reply)).status_code == 204
    assert (await job_of(client, job))["result"]["text"] == "很长很长"


@pytest.mark.parametrize("place", ["file:///etc/passwd", "http://169.254.169.254/x", "{}/../x", "{}x/y"])
async def test_a_reference_outside_of_the_artifacts_is_not_read(
    front: Front, sink: Sink, tmp_path: Path, slug: Slug, place: str
) -> None:
    client = await front(artifacts_url=tmp_path.as_uri())
    job = await submit(client)
    await eventually(lambda: sink.events)
    reply = about(job, COMPLETED, None, **{DATAREF: place.format(tmp_path.as_uri())})
    assert slug(await deliver(client, reply)) == "malformed-event"
    error = Problem.model_validate((await job_of(client, job))["error"])
    assert "outside" in error.detail
    assert error.status == 502  # the client has done nothing that it may not


async def test_without_artifacts_a_reference_is_a_clear_failure(front: Front, sink: Sink, slug: Slug) -> None:
    client = await front()
    job = await submit(client)
    await eventually(lambda: sink.events)
    assert slug(await deliver(client, about(job, COMPLETED, None, **{DATAREF: "s3://x/y"}))) == "malformed-event"
    assert "artifacts" in (await job_of(client, job))["error"]["detail"]


async def test_artifacts_that_cannot_be_read_are_asked_for_again(
    front: Front, sink: Sink, tmp_path: Path, slug: Slug
) -> None:
    client = await front(artifacts_url=tmp_path.as_uri())
    job = await submit(client)
    await eventually(lambda: sink.events)
    reply = about(job, COMPLETED, None, **{DATAREF: tmp_path.as_uri() + "/late.json"})
    assert slug(await deliver(client, reply)) == "unavailable"
    (tmp_path / "late.json").write_text(poem(job).model_dump_json())
    assert (await deliver(client, reply)).status_code == 204
    assert (await job_of(client, job))["state"] == "completed"
