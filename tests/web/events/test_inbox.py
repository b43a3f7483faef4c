"""`ROUTES=inbox`: events, waking and health, and nothing else."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest
from starlette.types import ASGIApp

from contract.cloudevents import COMPLETED, ERROR_CODE, REQUESTED
from tests.support.events import Front, Opened, Sink, Slug, about, deliver, job_of, poem, submit
from tests.support.waiting import eventually
from web.app import create_app
from web.settings import Settings
from wire.cloudevents import signed

TOKEN = "a-token-of-the-predictors"
SECRET = "a-secret-of-the-senders"
MODELS = {"poet": "http://poet.test"}
OTHERS = [
    ("GET", "/"),
    ("POST", "/"),
    ("POST", "/generate"),
    ("GET", "/generations"),
    ("GET", "/generations/x"),
    ("DELETE", "/generations/x"),
    ("GET", "/status"),
    ("GET", "/openapi.json"),
    ("GET", "/static/x/page.css"),
    ("POST", "/v1/chat/completions"),
]


def inbox(**settings: Any) -> ASGIApp:
    ready = httpx2.MockTransport(lambda _: httpx2.Response(200, json={}))
    return create_app(Settings(**{"models": MODELS, "routes": "inbox", **settings}), ready)


async def test_it_takes_events_wakes_models_and_says_that_it_lives(opened: Opened) -> None:
    client = await opened(inbox())
    assert (await client.get("/healthz")).status_code == 200
    assert (await deliver(client, about("x", COMPLETED))).status_code == 204
    assert (await client.post("/warm", json={"model": "poet"})).status_code == 200


@pytest.mark.parametrize(("method", "path"), OTHERS)
async def test_nothing_else_is_there(opened: Opened, slug: Slug, method: str, path: str) -> None:
    client = await opened(inbox())
    answer = await client.request(method, path, json={"prompt": "x"})
    assert (answer.status_code, slug(answer)) == (404, "not-found")


@pytest.mark.parametrize("path", ["/events", "/warm"])
async def test_both_ask_for_the_same_proof(opened: Opened, path: str) -> None:
    client = await opened(inbox(events_secret=SECRET))
    assert (await client.post(path)).status_code == 401
    assert (await client.post(path, headers={"Authorization": "Bearer x"})).status_code == 401
    proven = await client.post(path, headers={"Authorization": f"Bearer {SECRET}"})
    assert proven.status_code == (400 if path == "/events" else 200)  # there is no event in it
    assert (await client.get("/healthz")).status_code == 200


async def test_in_a_pod_it_says_nothing_of_callers_and_takes_nothing_by_itself(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    closed = await opened(inbox())
    assert (await closed.post("/warm")).status_code == 401
    client = await opened(inbox(events_open=True))
    assert (await client.post("/warm")).status_code == 200


# What is said about jobs


async def test_with_the_predictors_token_only_what_is_signed_is_believed(front: Front, sink: Sink, slug: Slug) -> None:
    client = await front(predictor_token=TOKEN)
    job = await submit(client)
    await eventually(lambda: sink.of(REQUESTED))
    result = about(job, COMPLETED, poem(job))
    unsigned = [result, signed(result, f"{TOKEN}x"), signed(about("another", COMPLETED, poem(job)), TOKEN)]
    stolen = unsigned[2].model_copy(update={"subject": job})
    for event in (*unsigned[:2], stolen):
        answer = await deliver(client, event)
        assert (answer.status_code, slug(answer)) == (401, "unauthorized")
    assert (await job_of(client, job))["state"] == "queued"
    assert (await deliver(client, signed(result, TOKEN))).status_code == 204
    assert (await job_of(client, job))["state"] == "completed"


async def test_the_dead_letter_of_webs_own_request_is_believed(front: Front, sink: Sink) -> None:
    client = await front(predictor_token=TOKEN)
    job = await submit(client)
    [request] = await eventually(lambda: sink.of(REQUESTED))
    letter = request.model_copy(update={"extensions": request.extensions | {ERROR_CODE: "503"}})
    assert (await deliver(client, letter)).status_code == 204
    assert (await job_of(client, job))["state"] == "failed"


async def test_a_delivery_that_proves_its_sender_needs_no_signature(front: Front, sink: Sink) -> None:
    client = await front(predictor_token=TOKEN, events_secret=SECRET)
    job = await submit(client)
    await eventually(lambda: sink.of(REQUESTED))
    client.headers["Authorization"] = f"Bearer {SECRET}"
    assert (await deliver(client, about(job, COMPLETED, poem(job)))).status_code == 204
    assert (await job_of(client, job))["state"] == "completed"
