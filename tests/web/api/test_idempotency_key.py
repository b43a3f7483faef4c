"""`POST /generate` with an Idempotency-Key: one job for all requests with the same key."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import httpx2
import pytest

from tests.support.waiting import eventually
from tests.support.web.job_requests import (
    CAT,
    PNG,
    REQUEST,
    Front,
    Poet,
    submit,
)
from web.http.idempotency_key import KEY_CHARS

Slug = Callable[[httpx2.Response], str]


@pytest.mark.parametrize("key", ["x", "8e03978e-40d5-43dd-bc93-6894a57f9324", "!" * KEY_CHARS, '"', "a,b;c=d"])
async def test_a_key_may_stand_in_quotes(front: Front, poet: Poet, key: str) -> None:
    client = await front()
    bare, quoted = [await submit(client, key=given) for given in (key, f'"{key}"')]
    assert bare == quoted
    assert await submit(client, key="another") != bare


@pytest.mark.parametrize("key", [b"", b'""', b"a b", b"\xc3\xa9", b"x" * (KEY_CHARS + 1), b"a\tb"])
async def test_an_invalid_key_is_refused(front: Front, poet: Poet, slug: Slug, key: bytes) -> None:
    client = await front()
    answer = await client.post("/generate", json=REQUEST, headers={b"Idempotency-Key": key})
    assert (answer.status_code, slug(answer)) == (400, "invalid-field")
    assert [error["field"] for error in answer.json()["errors"]] == ["Idempotency-Key"]
    assert poet.asked == []


async def test_the_same_key_joins_the_running_job(front: Front, poet: Poet) -> None:
    client = await front()
    headers = {"Idempotency-Key": "k"}
    waiting = [asyncio.create_task(client.post("/generate", json=REQUEST, headers=headers)) for _ in range(10)]
    location = await submit(client, key="k")
    await eventually(lambda: poet.asked)
    poet.finish.set()
    answers = [await task for task in waiting]
    assert {answer.status_code for answer in answers} == {200}
    assert {answer.headers["location"] for answer in answers} == {location}
    assert len({answer.text for answer in answers}) == 1
    assert len(poet.asked) == 1


@pytest.mark.parametrize("other", [{"prompt": "秋"}, {**REQUEST, "seed": 1}, {**REQUEST, "model": "novelist"}])
async def test_the_same_key_with_another_request_is_refused(front: Front, slug: Slug, other: dict[str, Any]) -> None:
    client = await front()
    await submit(client, key="k")
    refused = await client.post("/generate", json=other, headers={"Idempotency-Key": "k"})
    assert (refused.status_code, slug(refused)) == (422, "key-reused")


async def test_a_client_that_left_gets_the_result_with_the_key(front: Front, poet: Poet) -> None:
    client = await front(sockets=True)
    headers = {"Idempotency-Key": "k"}
    asking = asyncio.create_task(client.post("/generate", json=REQUEST, headers=headers))
    await eventually(lambda: poet.asked)
    asking.cancel()
    await asyncio.wait([asking])
    assert len(poet.asked) == 1
    poet.finish.set()
    first = await client.post("/generate", json=REQUEST, headers=headers)
    again = await client.post("/generate", json=REQUEST, headers=headers)
    assert (first.status_code, first.json()["text"]) == (200, "春天")
    assert again.json() == first.json()
    assert len(poet.asked) == 1


async def test_a_failure_is_the_same_with_the_same_key(front: Front, poet: Poet, slug: Slug) -> None:
    poet.refusal = httpx2.Response(400, json={"error": "no"})
    client = await front()
    answers = [await client.post("/generate", json=REQUEST, headers={"Idempotency-Key": "k"}) for _ in range(2)]
    assert [(answer.status_code, slug(answer)) for answer in answers] == [(400, "invalid-field")] * 2
    assert len(poet.asked) == 1


async def test_a_failure_that_may_have_passed_is_tried_again_with_the_same_key(
    front: Front, poet: Poet, slug: Slug
) -> None:
    poet.refusal = httpx2.Response(401)
    client = await front()
    keyed = {"Idempotency-Key": "k"}
    answer = await client.post("/generate", json=REQUEST, headers=keyed)
    assert (answer.status_code, slug(answer)) == (502, "refused-upstream")
    poet.refusal = None
    poet.finish.set()
    answer = await client.post("/generate", json=REQUEST, headers=keyed)
    assert (answer.status_code, answer.json()["text"]) == (200, "春天")
    assert (await client.get(answer.headers["location"])).json()["state"] == "completed"


async def test_a_picture_can_be_fetched_in_its_own_format_only(front: Front, slug: Slug) -> None:
    client = await front()
    headers = {"Idempotency-Key": "k"}
    for _ in range(2):
        answer = await client.post("/generate", json=CAT, headers={**headers, **PNG})
        assert (answer.headers["content-type"], answer.content) == ("image/png", b"picture 0")
    assert (await client.post("/generate", json=CAT, headers=headers)).json()["images"][0]["media_type"] == "image/png"
    other = await client.post("/generate", json=CAT, headers={**headers, "Accept": "image/webp"})
    assert (other.status_code, slug(other)) == (406, "not-acceptable")
