"""`/generations/{id}`: what Prefer and Idempotency-Key make of an order, then watching, fetching and cancelling it."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from datetime import datetime
from typing import Any

import httpx
import pytest
from starlette.types import ASGIApp

from contract import Job
from web.app import create_app
from web.http.idempotency_key import KEY_CHARS
from web.settings import Settings

Connection = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
RawServer = Callable[[Connection], Awaitable[str]]
Handler = Callable[[httpx.Request], httpx.Response]
Stream = Callable[..., bytes]
Slug = Callable[[httpx.Response], str]
Serve = Callable[[ASGIApp], Awaitable[str]]
Opened = Callable[[ASGIApp], Awaitable[httpx.AsyncClient]]
Front = Callable[..., Awaitable[httpx.AsyncClient]]

LIMIT = 10.0
ORDER = {"prompt": "春"}
CAT = {"prompt": "猫", "kind": "image"}
ASYNC = {"Prefer": "respond-async"}
LIVE = {"Accept": "text/event-stream"}
PNG = {"Accept": "image/png"}
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
Event = tuple[str | None, str, Any]


class Poet:
    """A model server that sends the second half of its text when it is let `go` on."""

    def __init__(self, whole: bytes) -> None:
        self._whole = whole
        self.go = asyncio.Event()
        self.asked: list[httpx.Request] = []
        self.refusal: httpx.Response | None = None

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        if self.refusal is not None:
            return self.refusal
        return httpx.Response(200, headers={"Content-Type": "text/event-stream"}, content=self._content())

    async def _content(self) -> AsyncGenerator[bytes]:
        cut = self._whole.rindex(b"data", 0, self._whole.index("天".encode()))
        yield self._whole[:cut]
        await self.go.wait()
        yield self._whole[cut:]


@pytest.fixture
def poet(stream: Stream) -> Poet:
    return Poet(stream("春", "天"))


@pytest.fixture
async def front(serve: Serve, opened: Opened, poet: Poet, painter: Handler) -> AsyncGenerator[Front]:
    """Starts a web in front of the poet and the painter, and gives a client of it, which needs sockets to leave early
    or to read what comes before the end."""
    clients: list[httpx.AsyncClient] = []

    def answer(request: httpx.Request) -> httpx.Response:
        return painter(request) if request.url.host == "painter.test" else poet(request)

    async def start(*, sockets: bool = False, **settings: Any) -> httpx.AsyncClient:
        painter = {"url": "http://painter.test", "kind": "image"}
        models = {"poet": "http://poet.test", "novelist": "http://novelist.test", "painter": painter}
        app = create_app(Settings(**{"models": models, "grace_seconds": 1, **settings}), httpx.MockTransport(answer))
        if not sockets:
            return await opened(app)
        clients.append(httpx.AsyncClient(base_url=await serve(app), timeout=LIMIT, trust_env=False))
        return clients[-1]

    yield start
    poet.go.set()
    for client in clients:
        await client.aclose()


async def made(client: httpx.AsyncClient, order: dict[str, Any] = ORDER, key: str | None = None) -> str:
    """Where the job is that this order becomes."""
    keyed = {} if key is None else {"Idempotency-Key": key}
    answer = await client.post("/generate", json=order, headers=ASYNC | keyed)
    assert answer.status_code == 202, answer.text
    where: str = answer.headers["location"]
    return where


async def ended(client: httpx.AsyncClient, where: str) -> dict[str, Any]:
    async with asyncio.timeout(LIMIT):
        while True:
            document: dict[str, Any] = (await client.get(where)).json()
            if document["state"] in ("completed", "failed", "cancelled"):
                return document
            await asyncio.sleep(0.01)


async def until(holds: Callable[[], Any]) -> None:
    async with asyncio.timeout(LIMIT):
        while not holds():
            await asyncio.sleep(0.01)


def read(text: str) -> list[Event]:
    """Server-sent events as (id, name, data)."""
    blocks = [dict(line.split(": ", 1) for line in block.splitlines()) for block in text.split("\n\n") if block]
    return [(block.get("id"), block["event"], json.loads(block["data"])) for block in blocks]


async def watched(client: httpx.AsyncClient, where: str, after: str | None = None) -> list[Event]:
    answer = await client.get(where, headers=LIVE | ({} if after is None else {"Last-Event-ID": after}))
    assert answer.status_code == 200, answer.text
    return read(answer.text)


# Prefer


async def test_an_answer_that_may_come_later_says_where(front: Front, poet: Poet) -> None:
    client = await front()
    answer = await client.post("/generate", json=ORDER, headers=ASYNC)
    assert answer.status_code == 202
    document = answer.json()
    assert answer.headers["location"] == f"/generations/{document['id']}"
    assert answer.headers["preference-applied"] == "respond-async"
    assert answer.headers["cache-control"] == "no-store"
    assert int(answer.headers["retry-after"]) >= 1
    assert document["state"] in ("queued", "running")
    assert None not in document.values()
    Job.model_validate(document)
    poet.go.set()
    end = await ended(client, answer.headers["location"])
    assert (end["state"], end["model"], end["kind"]) == ("completed", "poet", "text")
    assert (end["result"]["text"], end["result"]["id"]) == ("春天", document["id"])
    assert "position" not in end
    assert "error" not in end
    assert end["created_at"] <= end["started_at"] <= end["ended_at"] < end["deadline_at"]


async def test_a_result_within_the_time_to_wait_is_the_answer(front: Front, poet: Poet) -> None:
    poet.go.set()
    client = await front()
    answer = await client.post("/generate", json=ORDER, headers={"Prefer": "respond-async, wait=10"})
    assert (answer.status_code, answer.json()["text"]) == (200, "春天")
    assert answer.headers["preference-applied"] == "respond-async, wait=10"
    assert "retry-after" not in answer.headers
    assert (await client.get(answer.headers["location"])).json()["result"] == answer.json()


async def test_a_picture_within_the_time_to_wait_is_the_answer(front: Front) -> None:
    answer = await (await front()).post("/generate", json=CAT, headers={"Prefer": "wait=10", **PNG})
    assert (answer.status_code, answer.content) == (200, b"picture 0")
    assert answer.headers["location"]


@pytest.mark.parametrize(("prefer", "least"), [("wait=1", 1.0), ("wait=0", 0.0), ("respond-async, wait=0", 0.0)])
async def test_nobody_waits_longer_than_asked(front: Front, prefer: str, least: float) -> None:
    client = await front()
    begun = time.monotonic()
    answer = await client.post("/generate", json=ORDER, headers={"Prefer": prefer})
    assert least <= time.monotonic() - begun < least + 1
    assert (answer.status_code, answer.headers["preference-applied"]) == (202, prefer)


@pytest.mark.parametrize("headers", [{}, {"Prefer": "wait=soon, return=minimal"}, {"Prefer": ""}])
async def test_without_a_wish_nothing_becomes_a_job(front: Front, poet: Poet, headers: dict[str, str]) -> None:
    poet.go.set()
    client = await front()
    answer = await client.post("/generate", json=ORDER, headers=headers)
    assert (answer.status_code, answer.json()["text"]) == (200, "春天")
    assert not {"location", "preference-applied"} & answer.headers.keys()
    assert (await client.get(f"/generations/{answer.json()['id']}")).status_code == 404
    assert "seed" not in json.loads(poet.asked[0].content)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        (ASYNC, 500),
        ({"Prefer": "wait=0"}, 100),
        ({**ASYNC, "X-Request-Timeout": "50"}, 50),
        ({**ASYNC, "X-Request-Timeout": "5000"}, 500),
    ],
)
async def test_a_job_may_take_longer_than_anybody_waits(front: Front, headers: dict[str, str], seconds: float) -> None:
    client = await front(job_seconds=500, generate_seconds=100)
    document = (await client.post("/generate", json=ORDER, headers=headers)).json()
    created, deadline = (datetime.fromisoformat(document[name]) for name in ("created_at", "deadline_at"))
    assert (deadline - created).total_seconds() == pytest.approx(seconds, abs=0.01)


async def test_what_is_wrong_with_an_order_is_said_at_once(front: Front, slug: Slug) -> None:
    client = await front()
    assert slug(await client.post("/generate", json={}, headers=ASYNC)) == "invalid-field"
    assert slug(await client.post("/generate", json={"prompt": "x", "model": "?"}, headers=ASYNC)) == "unknown-model"
    refused = await client.post("/generate", json=ORDER, headers={**ASYNC, "X-Request-Timeout": "0"})
    assert slug(refused) == "invalid-field"


async def test_more_jobs_than_are_allowed_are_told_when_to_come_again(front: Front, slug: Slug) -> None:
    client = await front(max_jobs=1)
    where = await made(client)
    refused = await client.post("/generate", json=ORDER, headers=ASYNC)
    assert (refused.status_code, slug(refused)) == (503, "overloaded")
    await client.delete(where)
    await made(client)


# Fetching


async def test_a_job_in_every_state(front: Front, poet: Poet) -> None:
    client = await front(max_job_runs=1)
    first, second, third = [await made(client) for _ in range(3)]
    await until(lambda: poet.asked)
    async with asyncio.timeout(LIMIT):
        while (running := await client.get(first)).json()["state"] != "running":
            await asyncio.sleep(0.01)
    assert {"position", "ended_at", "result", "error"} & running.json().keys() == set()
    assert running.headers["retry-after"]
    queued = await client.get(third)
    assert (queued.json()["state"], queued.json()["position"]) == ("queued", 2)
    assert "started_at" not in queued.json()
    cancelled = await client.delete(second)
    assert (cancelled.status_code, cancelled.json()["state"]) == (200, "cancelled")
    assert cancelled.json()["error"]["type"] == "urn:shangcai:problem:cancelled"
    assert "retry-after" not in cancelled.headers
    assert (await client.get(third)).json()["position"] == 1
    poet.go.set()
    for where in (first, third):
        completed = await ended(client, where)
        Job.model_validate_json(json.dumps(completed))
        assert completed["result"]["timing"]["queue_s"] is None  # which a result says


async def test_pictures_in_every_form(front: Front) -> None:
    client = await front()
    one, two = await made(client, CAT), await made(client, {**CAT, "n": 2, "format": "webp"})
    await ended(client, one)
    await ended(client, two)
    picture = await client.get(one, headers=PNG)
    assert (picture.status_code, picture.headers["content-type"], picture.content) == (200, "image/png", b"picture 0")
    assert picture.headers["x-seed"]
    parts = await client.get(two, headers={"Accept": "multipart/mixed, */*;q=0.1"})
    assert (parts.status_code, parts.headers["content-type"].partition(";")[0]) == (200, "multipart/mixed")
    assert parts.content.index(b"picture 0") < parts.content.index(b"picture 1")
    for accept in ("application/json", "*/*", ""):
        document = await client.get(one, headers={"Accept": accept})
        assert document.json()["state"] == "completed"


@pytest.mark.parametrize(
    ("order", "accept"),
    [
        (ORDER, "image/png"),
        (ORDER, "text/html"),
        (CAT, "image/webp"),
        ({**CAT, "format": "webp"}, "image/png"),
        ({**CAT, "n": 2}, "image/png"),
    ],
)
async def test_a_form_that_it_does_not_have_is_refused(
    front: Front, slug: Slug, order: dict[str, Any], accept: str
) -> None:
    client = await front()
    refused = await client.get(await made(client, order), headers={"Accept": accept})
    assert (refused.status_code, slug(refused)) == (406, "not-acceptable")
    assert "application/json" in refused.json()["detail"]


async def test_a_picture_that_is_not_there_yet_is_accepted_all_the_same(front: Front) -> None:
    client = await front(max_job_runs=1, models={"painter": {"url": "http://poet.test", "kind": "image"}})
    where = await made(client, CAT)
    answer = await client.get(where, headers=PNG)
    assert (answer.status_code, answer.headers["content-type"]) == (202, "application/json")
    assert answer.json()["state"] in ("queued", "running")
    assert answer.headers["retry-after"]
    await client.delete(where)


async def test_a_failure_is_told_in_every_form(front: Front, poet: Poet, slug: Slug) -> None:
    poet.refusal = httpx.Response(400, json={"error": {"message": "too long"}})
    client = await front(models={"poet": "http://poet.test", "painter": {"url": "http://poet.test", "kind": "image"}})
    where = await made(client, CAT)
    document = await ended(client, where)
    assert (document["state"], document["error"]["type"]) == ("failed", "urn:shangcai:problem:invalid-field")
    assert "result" not in document
    assert (await client.get(where)).status_code == 200  # the job is there
    picture = await client.get(where, headers=PNG)
    assert (picture.status_code, slug(picture)) == (400, "invalid-field")
    assert picture.json() == document["error"]
    _, name, data = (await watched(client, where))[-1]
    assert (name, data) == ("error", document["error"])
    waited = await client.post("/generate", json=ORDER, headers={"Prefer": "wait=10"})
    assert (waited.status_code, slug(waited)) == (400, "invalid-field")


async def test_a_cancelled_picture_is_gone(front: Front, slug: Slug) -> None:
    client = await front(models={"painter": {"url": "http://poet.test", "kind": "image"}})
    where = await made(client, CAT)
    await client.delete(where)
    gone = await client.get(where, headers=PNG)
    assert (gone.status_code, slug(gone)) == (410, "cancelled")
    assert [(name, data.get("type")) for _, name, data in await watched(client, where)][-1] == (
        "error",
        "urn:shangcai:problem:cancelled",
    )


@pytest.mark.parametrize("method", ["GET", "DELETE"])
@pytest.mark.parametrize("accept", ["application/json", "text/event-stream", "image/png"])
async def test_an_unknown_job_is_not_found(front: Front, slug: Slug, method: str, accept: str) -> None:
    client = await front()
    answer = await client.request(method, "/generations/unknown", headers={"Accept": accept})
    assert (answer.status_code, slug(answer)) == (404, "not-found")


async def test_a_job_takes_no_other_method(front: Front, slug: Slug) -> None:
    client = await front()
    answer = await client.put(await made(client), json={})
    assert (answer.status_code, slug(answer)) == (405, "method-not-allowed")


async def test_an_ended_job_is_forgotten(front: Front, slug: Slug) -> None:
    client = await front(job_keep_seconds=0.05)
    where = await made(client)
    await client.delete(where)
    async with asyncio.timeout(LIMIT):
        while (answer := await client.get(where)).status_code == 200:
            await asyncio.sleep(0.02)
    assert slug(answer) == "not-found"
    assert "0.05 s" in answer.json()["detail"]


# Watching


async def test_a_job_is_watched_from_its_beginning_whenever_one_comes(front: Front, poet: Poet) -> None:
    poet.go.set()
    client = await front()
    where = await made(client)
    result = (await ended(client, where))["result"]
    found = await watched(client, where)
    assert [(name, data) for _, name, data in found] == [
        ("status", {"state": "queued"}),
        ("status", {"state": "running"}),
        ("token", {"text": "春"}),
        ("token", {"text": "天"}),
        ("result", result),
    ]
    ids = [event_id for event_id, _, _ in found[1:]]
    assert None not in ids
    assert len(set(ids)) == 4
    assert await watched(client, where) == found
    for index, event_id in enumerate(ids[:-1]):
        assert await watched(client, where, event_id) == found[2 + index :]


async def test_who_has_seen_the_end_is_told_not_to_come_again(front: Front, poet: Poet) -> None:
    """An EventSource comes again after every end, unless the answer is a 204."""
    poet.go.set()
    client = await front()
    where = await made(client)
    await ended(client, where)
    last, name, _ = (await watched(client, where))[-1]
    assert name == "result"
    answer = await client.get(where, headers={**LIVE, "Last-Event-ID": last or ""})
    assert (answer.status_code, answer.content) == (204, b"")


async def test_each_event_is_sent_as_it_comes_and_what_was_missed_is_sent_again(front: Front, poet: Poet) -> None:
    client = await front(sockets=True)
    where = await made(client)

    async def first_token(text: AsyncGenerator[str]) -> str:
        block = ""
        async for piece in text:
            block += piece
            if '{"text":"春"}' in block:
                return [line.removeprefix("id: ") for line in block.splitlines() if line.startswith("id: ")][-1]
        raise AssertionError(block)

    async with asyncio.timeout(LIMIT), client.stream("GET", where, headers=LIVE) as answer:
        seen = await first_token(answer.aiter_text())  # type: ignore[arg-type]
    again = asyncio.create_task(watched(client, where, seen))
    await asyncio.sleep(0.05)
    assert not again.done()
    poet.go.set()
    assert [name for _, name, _ in await again] == ["token", "result"]
    assert (await client.get(where)).json()["state"] == "completed"  # leaving has not cancelled it


@pytest.mark.parametrize("given", ["", "x", "1", "1-", "-1", "1-2-3", "9" * 21 + "-1", "1 - 1"])
async def test_a_last_event_id_that_is_none_is_refused(front: Front, slug: Slug, given: str) -> None:
    client = await front()
    headers = {**LIVE, "Last-Event-ID": given}
    for answer in (
        await client.get(await made(client), headers=headers),
        await client.post("/generate", json=ORDER, headers={**ASYNC, **headers}),
    ):
        assert (answer.status_code, slug(answer)) == (400, "invalid-field")
        assert [error["field"] for error in answer.json()["errors"]] == ["Last-Event-ID"]


async def test_a_last_event_id_that_was_never_given_out_is_told_of_the_end(front: Front, poet: Poet) -> None:
    client = await front()
    watching = asyncio.create_task(watched(client, await made(client), "99999999999999-0"))
    await asyncio.sleep(0.05)
    poet.go.set()
    [(_, name, data)] = await watching
    assert (name, data["kind"]) == ("result", "text")


async def test_previews_and_steps_are_watched_too(front: Front) -> None:
    client = await front()
    where = await made(client, {**CAT, "previews": 1})
    names = [name for _, name, _ in await watched(client, where)]
    assert names == ["status", "status", "progress", "preview", "progress", "result"]


async def test_silence_is_filled_with_heartbeats(front: Front) -> None:
    client = await front(sockets=True, heartbeat_seconds=0.02)
    where = await made(client)
    async with asyncio.timeout(LIMIT), client.stream("GET", where, headers=LIVE) as answer:
        async for line in answer.aiter_lines():
            if line.startswith(": "):
                break


async def test_an_order_for_events_that_outlives_its_connection(front: Front, poet: Poet) -> None:
    client = await front(sockets=True)
    headers = {**LIVE, "Idempotency-Key": "k"}
    async with asyncio.timeout(LIMIT), client.stream("POST", "/generate", json=ORDER, headers=headers) as answer:
        assert (answer.status_code, answer.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
        where = answer.headers["location"]
        last = None
        async for line in answer.aiter_lines():
            last = line.removeprefix("id: ") if line.startswith("id: ") else last
            if "春" in line:
                break
    assert last is not None
    again = asyncio.create_task(client.post("/generate", json=ORDER, headers={**headers, "Last-Event-ID": last}))
    await asyncio.sleep(0.05)
    poet.go.set()
    assert [name for _, name, _ in read((await again).text)] == ["token", "result"]
    assert (await again).headers["location"] == where
    assert len(poet.asked) == 1


# Cancelling


async def test_what_is_deleted_stops_upstream(serve: Serve, raw_server: RawServer, stream: Stream) -> None:
    asked, left = asyncio.Event(), asyncio.Event()

    async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        data = stream("x", finish_reason=None, usage=None, done=False)
        writer.write(HEAD + b"%x\r\n%s\r\n" % (len(data), data))
        asked.set()
        assert await reader.read() == b""  # the end of the connection
        left.set()

    url = await serve(create_app(Settings(models={"poet": await raw_server(hold)})))
    async with httpx.AsyncClient(base_url=url, timeout=LIMIT, trust_env=False) as client:
        where = await made(client)
        await asyncio.wait_for(asked.wait(), LIMIT)
        assert (await client.delete(where)).json()["state"] == "cancelled"
        await asyncio.wait_for(left.wait(), 2)


async def test_deleting_again_changes_nothing(front: Front, poet: Poet) -> None:
    client = await front()
    where = await made(client)
    answers = [await client.delete(where) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200] * 3
    assert answers[0].json() == answers[2].json()
    poet.go.set()
    other = await made(client)
    completed = await ended(client, other)
    assert (await client.delete(other)).json() == completed


# Idempotency-Key


@pytest.mark.parametrize("key", ["x", "8e03978e-40d5-43dd-bc93-6894a57f9324", "!" * KEY_CHARS, '"', "a,b;c=d"])
async def test_a_key_is_taken_bare_or_in_quotes(front: Front, poet: Poet, key: str) -> None:
    client = await front()
    bare, quoted = [await made(client, key=given) for given in (key, f'"{key}"')]
    assert bare == quoted
    assert await made(client, key="another") != bare


@pytest.mark.parametrize("key", [b"", b'""', b"a b", b"\xc3\xa9", b"x" * (KEY_CHARS + 1), b"a\tb"])
async def test_a_key_that_is_none_is_refused(front: Front, poet: Poet, slug: Slug, key: bytes) -> None:
    client = await front()
    answer = await client.post("/generate", json=ORDER, headers={b"Idempotency-Key": key})
    assert (answer.status_code, slug(answer)) == (400, "invalid-field")
    assert [error["field"] for error in answer.json()["errors"]] == ["Idempotency-Key"]
    assert poet.asked == []


async def test_the_same_key_joins_what_is_running(front: Front, poet: Poet) -> None:
    client = await front()
    headers = {"Idempotency-Key": "k"}
    waiting = [asyncio.create_task(client.post("/generate", json=ORDER, headers=headers)) for _ in range(10)]
    where = await made(client, key="k")
    await until(lambda: poet.asked)
    poet.go.set()
    answers = [await task for task in waiting]
    assert {answer.status_code for answer in answers} == {200}
    assert {answer.headers["location"] for answer in answers} == {where}
    assert len({answer.text for answer in answers}) == 1
    assert len(poet.asked) == 1


@pytest.mark.parametrize("other", [{"prompt": "秋"}, {**ORDER, "seed": 1}, {**ORDER, "model": "novelist"}])
async def test_the_same_key_with_another_order_is_refused(front: Front, slug: Slug, other: dict[str, Any]) -> None:
    client = await front()
    await made(client, key="k")
    refused = await client.post("/generate", json=other, headers={"Idempotency-Key": "k"})
    assert (refused.status_code, slug(refused)) == (422, "key-reused")


async def test_who_leaves_picks_up_the_result_with_the_key(front: Front, poet: Poet) -> None:
    client = await front(sockets=True)
    headers = {"Idempotency-Key": "k"}
    with pytest.raises(httpx.ReadTimeout):
        await client.post("/generate", json=ORDER, headers=headers, timeout=0.3)
    assert len(poet.asked) == 1
    poet.go.set()
    first = await client.post("/generate", json=ORDER, headers=headers)
    again = await client.post("/generate", json=ORDER, headers=headers)
    assert (first.status_code, first.json()["text"]) == (200, "春天")
    assert again.json() == first.json()
    assert len(poet.asked) == 1


async def test_a_failure_is_the_same_with_the_same_key(front: Front, poet: Poet, slug: Slug) -> None:
    poet.refusal = httpx.Response(400, json={"error": "no"})
    client = await front()
    answers = [await client.post("/generate", json=ORDER, headers={"Idempotency-Key": "k"}) for _ in range(2)]
    assert [(answer.status_code, slug(answer)) for answer in answers] == [(400, "invalid-field")] * 2
    assert len(poet.asked) == 1


async def test_a_picture_is_picked_up_in_the_form_that_it_has(front: Front, slug: Slug) -> None:
    client = await front()
    headers = {"Idempotency-Key": "k"}
    for _ in range(2):
        answer = await client.post("/generate", json=CAT, headers={**headers, **PNG})
        assert (answer.headers["content-type"], answer.content) == ("image/png", b"picture 0")
    assert (await client.post("/generate", json=CAT, headers=headers)).json()["images"][0]["media_type"] == "image/png"
    other = await client.post("/generate", json=CAT, headers={**headers, "Accept": "image/webp"})
    assert (other.status_code, slug(other)) == (406, "not-acceptable")


# ReadinessBroadcast


async def test_a_job_of_one_replica_is_everywhere(front: Front, poet: Poet, redis_url: str) -> None:
    one, other = [await front(store_url=redis_url) for _ in range(2)]
    where = await made(one, key="k")
    watching = asyncio.create_task(watched(other, where))
    joining = asyncio.create_task(other.post("/generate", json=ORDER, headers={"Idempotency-Key": "k"}))
    await until(lambda: poet.asked)
    await asyncio.sleep(0.05)
    poet.go.set()
    names = [name for _, name, _ in await watching]
    assert names == ["status", "status", "token", "token", "result"]
    result = (await joining).json()
    assert [(await client.get(where)).json()["result"] for client in (one, other)] == [result, result]
    assert len(poet.asked) == 1


async def test_a_job_of_one_replica_is_cancelled_on_another(front: Front, poet: Poet, redis_url: str) -> None:
    one, other = [await front(store_url=redis_url) for _ in range(2)]
    where = await made(one)
    await until(lambda: poet.asked)
    watching = asyncio.create_task(watched(one, where))
    assert (await other.delete(where)).json()["state"] == "cancelled"
    assert (await watching)[-1][1] == "error"
    assert (await one.get(where)).json()["state"] == "cancelled"
