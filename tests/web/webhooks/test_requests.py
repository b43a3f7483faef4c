"""`webhook` in requests: which are refused, and what the job says of it; over REST and over events."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
from starlette.types import ASGIApp

from contract.cloudevents import JSON, CloudEvent
from tests.support.jobs import new_record, result
from tests.support.waiting import eventually
from tests.support.web.job_requests import ASYNC, Poet, ended, submit
from tests.support.web.webhook_receiver import SECRET, Receiver
from web.app import create_app
from web.callers.key_file import key_hash
from web.settings import Settings
from web.webhooks import deliveries as module
from wire.cloudevents import write_event

Web = Callable[..., httpx2.AsyncClient]
Opened = Callable[[ASGIApp], Awaitable[httpx2.AsyncClient]]
Receive = Callable[..., Awaitable[Receiver]]
Handler = Callable[[httpx2.Request], httpx2.Response]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "POLL_SECONDS", 0.02)


def refusal(answer: httpx2.Response) -> str:
    assert answer.status_code == 400, answer.text
    [error] = answer.json()["errors"]
    assert error["field"] == "webhook"
    return str(error["detail"])


def settings_of(receiver: Receiver, **settings: Any) -> Settings:
    fixed: Any = {"models": {"poet": "http://poet.test"}, "webhook_secret": SECRET, "grace_seconds": 1}
    return Settings(webhook_hosts=[receiver.host], **{**fixed, **settings})


@pytest.fixture
def poet(stream: Callable[..., bytes]) -> Poet:
    return Poet(stream("春", "天"))


async def test_webhooks_are_refused_where_no_host_is_allowed(web: Web) -> None:
    async with web() as client:
        body = {"prompt": "x", "webhook": "https://hooks.example.com/"}
        assert "WEBHOOK_HOSTS" in refusal(await client.post("/generate", json=body, headers=ASYNC))


@pytest.mark.parametrize("headers", [{}, {"Accept": "text/event-stream"}])
@pytest.mark.parametrize("dispatch", [{}, {"dispatch": "events", "k_sink": "http://sink.test"}])
async def test_only_jobs_have_one(web: Web, headers: dict[str, str], dispatch: dict[str, str]) -> None:
    hosts: Any = {"webhook_hosts": ["hooks.example.com"], "webhook_secret": SECRET}
    async with web(**hosts, **dispatch) as client:
        body = {"prompt": "x", "webhook": "https://hooks.example.com/"}
        assert "needs Prefer: respond-async" in refusal(await client.post("/generate", json=body, headers=headers))


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("https://elsewhere.example.com/", "must be on a host of WEBHOOK_HOSTS"),
        ("http://127.0.0.1/", "must be on a host"),
        ("https://ann@hooks.example.com/", "must not hold a user name"),
        ("https://hooks.example.com/" + 2_048 * "x", "at most 2048 characters"),
        ("", "at least 1 character"),
        (7, "valid string"),
    ],
)
async def test_addresses_that_are_refused(web: Web, url: Any, why: str) -> None:
    async with web(webhook_hosts=["hooks.example.com"], webhook_secret=SECRET) as client:
        answer = await client.post("/generate", json={"prompt": "x", "webhook": url}, headers=ASYNC)
        assert why in refusal(answer)


async def test_a_job_lists_what_was_delivered(opened: Opened, receiver: Receive, stream: Callable[..., bytes]) -> None:
    there = await receiver()
    asked: list[httpx2.Request] = []

    def poet(request: httpx2.Request) -> httpx2.Response:
        asked.append(request)
        return httpx2.Response(200, headers={"Content-Type": "text/event-stream"}, content=stream("春", "天"))

    settings = settings_of(there)
    client = await opened(create_app(settings, httpx2.MockTransport(poet)))
    location = await submit(client, {"prompt": "春", "webhook": there.url})
    assert (await client.get(location)).json()["webhook"]["url"] == there.url
    [received] = await there.has_received(1)
    event = received.verified()
    assert f"/generations/{event['subject']}" == location
    assert event["data"]["text"] == "春天"
    assert b"webhook" not in asked[0].content

    async def delivered() -> dict[str, Any] | None:
        webhook: dict[str, Any] = (await client.get(location)).json()["webhook"]
        return webhook if webhook["delivered"] else None

    webhook = await eventually(delivered, "it is delivered")
    assert webhook is not None
    [attempt] = webhook["deliveries"]
    assert (attempt["status"], sorted(attempt)) == (204, ["at", "status"])
    without = await submit(client, {"prompt": "春"})
    assert "webhook" not in await ended(client, without)


async def test_an_idempotency_key_has_one_webhook(opened: Opened, receiver: Receive) -> None:
    there = await receiver()
    settings = settings_of(there)
    client = await opened(create_app(settings, httpx2.MockTransport(lambda _: httpx2.Response(503))))
    keyed = {"Idempotency-Key": "k", **ASYNC}
    first = await client.post("/generate", json={"prompt": "x", "webhook": there.url}, headers=keyed)
    again = await client.post("/generate", json={"prompt": "x", "webhook": there.url}, headers=keyed)
    assert first.headers["location"] == again.headers["location"]
    other = await client.post("/generate", json={"prompt": "x", "webhook": there.url + "2"}, headers=keyed)
    assert other.status_code == 422


async def test_a_caller_without_a_secret_is_told(web: Web, tmp_path: Path) -> None:
    path = tmp_path / "callers"
    path.write_text(f"ann sha256:{key_hash('a')} webhook_secret={SECRET}\nbob sha256:{key_hash('b')}\n")
    settings: Any = {"callers": "keys", "callers_file": path, "webhook_hosts": ["hooks.example.com"]}
    async with web(**settings) as client:
        body = {"prompt": "x", "webhook": "https://hooks.example.com/"}
        answer = await client.post("/generate", json=body, headers=ASYNC | {"Authorization": "Bearer b"})
        assert "webhook_secret" in refusal(answer)
        answer = await client.post("/generate", json=body, headers=ASYNC | {"Authorization": "Bearer a"})
        assert answer.status_code == 202


async def test_the_end_of_a_job_over_events_is_delivered(opened: Opened, receiver: Receive) -> None:
    there = await receiver()
    sent: list[httpx2.Request] = []

    def sink(request: httpx2.Request) -> httpx2.Response:
        sent.append(request)
        return httpx2.Response(202)

    settings = settings_of(there, dispatch="events", k_sink="http://sink.test")
    client = await opened(create_app(settings, httpx2.MockTransport(sink)))
    location = await submit(client, {"prompt": "春", "webhook": there.url})
    await eventually(lambda: bool(sent), "the request is sent")
    assert "webhook" not in json.loads(sent[0].content)  # the address is nobody's business but web's
    job = location.rpartition("/")[2]
    event = CloudEvent(id="e", source="urn:predictor", type="ai.shangcai.generation.completed.v1", subject=job)
    data = result(new_record(job)).model_dump_json().encode()
    headers, body = write_event(event.model_copy(update={"datacontenttype": JSON, "data": data}))
    assert (await client.post("/events", content=body, headers=headers)).status_code == 204
    [received] = await there.has_received(1)
    delivered = received.verified()
    assert (delivered["subject"], delivered["data"]["text"]) == (job, "春天")


async def test_a_job_that_is_cancelled_says_so(opened: Opened, receiver: Receive) -> None:
    there = await receiver()
    settings = settings_of(there)
    client = await opened(create_app(settings, httpx2.MockTransport(lambda _: httpx2.Response(503))))
    location = await submit(client, {"prompt": "春", "webhook": there.url})
    await client.delete(location)
    [received] = await there.has_received(1)
    assert received.verified()["type"] == "ai.shangcai.generation.cancelled.v1"


async def test_a_job_that_is_waited_for_by_itself_has_one(opened: Opened, receiver: Receive, painter: Handler) -> None:
    there = await receiver()
    models: Any = {"models": {"painter": {"url": "http://painter.test", "kind": "image"}}}
    client = await opened(create_app(settings_of(there, **models), httpx2.MockTransport(painter)))
    answer = await client.post("/generate?images=url", json={"prompt": "cat", "webhook": there.url})
    assert answer.status_code == 200, answer.text
    [received] = await there.has_received(1)
    assert received.verified()["subject"] == answer.json()["id"]


async def test_a_response_in_the_background_has_one(opened: Opened, receiver: Receive, poet: Poet) -> None:
    there = await receiver()
    client = await opened(create_app(settings_of(there), httpx2.MockTransport(poet)))
    body = {"model": "poet", "input": "moon", "background": True, "webhook": there.url}
    made = (await client.post("/v1/responses", json=body)).json()
    assert made["webhook"] == {"url": there.url, "deliveries": [], "delivered": False}
    poet.finish.set()
    [received] = await there.has_received(1)
    event = received.verified()
    assert (f"resp_{event['subject']}", event["data"]["text"]) == (made["id"], "春天")

    async def delivered() -> bool:
        found = (await client.get(f"/v1/responses/{made['id']}")).json()
        return bool(found["webhook"]["delivered"])

    await eventually(delivered, "it is delivered")
    without = {"model": "poet", "input": "moon"}
    assert "webhook" not in (await client.post("/v1/responses", json=without)).json()


@pytest.mark.parametrize(
    ("path", "fields", "why"),
    [
        ("/v1/responses", {}, "needs background"),
        ("/v1/responses", {"background": False}, "needs background"),
        ("/v1/responses", {"background": True, "webhook": "https://elsewhere.test/"}, "must be on a host"),
        ("/v1/responses", {"background": True, "webhook": ""}, "at least 1 character"),
        ("/v1/images/generations", {}, "unknown field"),
        ("/v1/chat/completions", {}, "unknown field"),
    ],
)
async def test_openai_routes_that_refuse_one(web: Web, path: str, fields: dict[str, Any], why: str) -> None:
    prompts: dict[str, Any] = {
        "/v1/responses": {"input": "moon"},
        "/v1/images/generations": {"prompt": "cat"},
        "/v1/chat/completions": {"messages": [{"role": "user", "content": "moon"}]},
    }
    async with web(webhook_hosts=["hooks.example.com"], webhook_secret=SECRET) as client:
        body = {"model": "poet", "webhook": "https://hooks.example.com/", **prompts[path], **fields}
        assert why in refusal(await client.post(path, json=body))
