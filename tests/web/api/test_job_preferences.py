"""`POST /generate` with a Prefer header: the request becomes a job."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import datetime

import httpx2
import pytest

from contract import Job
from tests.support.web.job_requests import (
    ASYNC,
    CAT,
    LIMIT,
    PNG,
    REQUEST,
    Front,
    Poet,
    ended,
    submit,
)

Slug = Callable[[httpx2.Response], str]


async def test_respond_async_answers_202_with_the_jobs_location(front: Front, poet: Poet) -> None:
    client = await front()
    answer = await client.post("/generate", json=REQUEST, headers=ASYNC)
    assert answer.status_code == 202
    document = answer.json()
    assert answer.headers["location"] == f"/generations/{document['id']}"
    assert answer.headers["preference-applied"] == "respond-async"
    assert answer.headers["cache-control"] == "no-store"
    assert int(answer.headers["retry-after"]) >= 1
    assert document["state"] in ("queued", "running")
    assert None not in document.values()
    Job.model_validate(document)
    poet.finish.set()
    end = await ended(client, answer.headers["location"])
    assert (end["state"], end["model"], end["kind"]) == ("completed", "poet", "text")
    assert (end["result"]["text"], end["result"]["id"]) == ("春天", document["id"])
    assert "position" not in end
    assert "error" not in end
    assert end["created_at"] <= end["started_at"] <= end["ended_at"] < end["deadline_at"]


async def test_a_result_within_the_time_to_wait_is_the_answer(front: Front, poet: Poet) -> None:
    poet.finish.set()
    client = await front()
    answer = await client.post("/generate", json=REQUEST, headers={"Prefer": "respond-async, wait=10"})
    assert (answer.status_code, answer.json()["text"]) == (200, "春天")
    assert answer.headers["preference-applied"] == "respond-async, wait=10"
    assert "retry-after" not in answer.headers
    assert (await client.get(answer.headers["location"])).json()["result"] == answer.json()


async def test_a_wait_ends_with_what_a_request_may_take(front: Front) -> None:
    """Whatever is in front of web would cut a longer one off."""
    client = await front(generate_seconds=1)
    keyed = {"Idempotency-Key": "k"}
    answer = await client.post("/generate", json=REQUEST, headers={"Prefer": "respond-async, wait=3600", **keyed})
    assert (answer.status_code, answer.headers["preference-applied"]) == (202, "respond-async, wait=1")
    joined = await client.post("/generate", json=REQUEST, headers=keyed)
    assert (joined.status_code, joined.json()["id"]) == (202, answer.json()["id"])


async def test_a_picture_within_the_time_to_wait_is_the_answer(front: Front) -> None:
    answer = await (await front()).post("/generate", json=CAT, headers={"Prefer": "wait=10", **PNG})
    assert (answer.status_code, answer.content) == (200, b"picture 0")
    assert answer.headers["location"]


@pytest.mark.parametrize(("prefer", "least"), [("wait=1", 1.0), ("wait=0", 0.0), ("respond-async, wait=0", 0.0)])
async def test_the_answer_comes_when_the_time_to_wait_is_over(front: Front, prefer: str, least: float) -> None:
    client = await front()
    begun = time.monotonic()
    answer = await asyncio.wait_for(client.post("/generate", json=REQUEST, headers={"Prefer": prefer}), LIMIT)
    assert time.monotonic() - begun >= least
    assert (answer.status_code, answer.headers["preference-applied"]) == (202, prefer)


@pytest.mark.parametrize("headers", [{}, {"Prefer": "wait=soon, return=minimal"}, {"Prefer": ""}])
async def test_without_preferences_there_is_no_job(front: Front, poet: Poet, headers: dict[str, str]) -> None:
    poet.finish.set()
    client = await front()
    answer = await client.post("/generate", json=REQUEST, headers=headers)
    assert (answer.status_code, answer.json()["text"]) == (200, "春天")
    assert not {"location", "preference-applied"} & answer.headers.keys()
    assert (await client.get(f"/generations/{answer.json()['id']}")).status_code == 404


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        (ASYNC, 500),
        ({"Prefer": "wait=0"}, 100),
        ({**ASYNC, "X-Request-Timeout": "50"}, 50),
        ({**ASYNC, "X-Request-Timeout": "5000"}, 500),
    ],
)
async def test_the_deadline_of_a_job(front: Front, headers: dict[str, str], seconds: float) -> None:
    client = await front(job_seconds=500, generate_seconds=100)
    document = (await client.post("/generate", json=REQUEST, headers=headers)).json()
    created, deadline = (datetime.fromisoformat(document[name]) for name in ("created_at", "deadline_at"))
    assert (deadline - created).total_seconds() == pytest.approx(seconds, abs=0.01)


async def test_an_invalid_request_is_refused_at_once(front: Front, slug: Slug) -> None:
    client = await front()
    assert slug(await client.post("/generate", json={}, headers=ASYNC)) == "invalid-field"
    assert slug(await client.post("/generate", json={"prompt": "x", "model": "?"}, headers=ASYNC)) == "unknown-model"
    refused = await client.post("/generate", json=REQUEST, headers={**ASYNC, "X-Request-Timeout": "0"})
    assert slug(refused) == "invalid-field"


async def test_a_job_beyond_max_jobs_gets_a_retry_after(front: Front, slug: Slug) -> None:
    client = await front(max_jobs=1)
    location = await submit(client)
    refused = await client.post("/generate", json=REQUEST, headers=ASYNC)
    assert (refused.status_code, slug(refused)) == (503, "overloaded")
    await client.delete(location)
    await submit(client)
