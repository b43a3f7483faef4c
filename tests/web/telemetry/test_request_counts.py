"""Requests are counted by route, model, class of status and caller."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import httpx2
import pytest
from prometheus_client import REGISTRY
from starlette.types import Message

from tests.support.waiting import eventually
from tests.support.web.samples import Sample
from web.app import create_app
from web.metrics import CALLER_NAMES
from web.settings import Settings
from web.telemetry.name_limit import OTHER, NameLimit
from wire.telemetry.facts import Facts, gathered

Web = Callable[..., httpx2.AsyncClient]

HEADER = {"callers": "header", "trusted_hops": ["127.0.0.0/8"]}


def requests(route: str, status_class: str, model: str = "") -> Sample:
    return Sample("requests_total", route=route, model=model, status_class=status_class)


@pytest.mark.parametrize(
    ("method", "path", "route", "status_class"),
    [
        ("GET", "/status", "/status", "2xx"),
        ("GET", "/generations/unknown", "/generations/{id}", "4xx"),
        ("GET", "/generations/unknown/images/0", "/generations/{id}/images/{number}", "4xx"),
        ("GET", "/v1/models/a/b", "/v1/models/{model}", "4xx"),
        ("GET", "/v1/responses/resp_x/input_items", "/v1/responses/{id}/input_items", "4xx"),
        ("GET", "/generate", "/generate", "4xx"),
        ("GET", "/nowhere", OTHER, "4xx"),
        ("GET", "/status/", OTHER, "4xx"),
    ],
)
async def test_a_request_counts_for_its_route(web: Web, method: str, path: str, route: str, status_class: str) -> None:
    counted, others = requests(route, status_class), requests("/events", status_class)
    await web().request(method, path)
    assert (counted.grown, others.grown) == (1, 0)


async def test_below_a_prefix_routes_are_the_same() -> None:
    settings = Settings(models={"poet": {"url": "http://poet.test"}}, root_path="/shangcai")
    transport = httpx2.ASGITransport(create_app(settings), root_path="/shangcai")
    counted = requests("/status", "2xx")
    async with httpx2.AsyncClient(transport=transport, base_url="http://web.test") as client:
        assert (await client.get("/shangcai/status")).status_code == 200
    assert counted.grown == 1


async def test_probes_of_health_are_not_counted(web: Web) -> None:
    samples = [requests(route, status) for route in ("/healthz", "/readyz", OTHER) for status in ("2xx", "5xx")]
    for path in ("/healthz", "/readyz"):
        assert (await web().get(path)).status_code == 200
    assert [sample.grown for sample in samples] == [0] * 6


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/generate", {"prompt": "春", "model": "novelist"}),
        ("/v1/completions", {"prompt": "春", "model": "novelist"}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "春"}], "model": "novelist"}),
    ],
)
async def test_a_generation_counts_for_its_model(web: Web, path: str, body: dict[str, Any]) -> None:
    counted, others = requests(path, "2xx", "novelist"), requests(path, "2xx", "poet")
    with gathered(Facts("r")):
        assert (await web().post(path, json=body)).status_code == 200
    assert (counted.grown, others.grown) == (1, 0)


async def test_without_facts_a_request_is_counted_all_the_same(web: Web) -> None:
    samples = [requests("/generate", "2xx", model) for model in ("", "poet")]
    assert (await web().post("/generate", json={"prompt": "春"})).status_code == 200
    assert sum(sample.grown for sample in samples) == 1


async def test_an_answer_that_fails_is_a_5xx(web: Web) -> None:
    samples = [requests("/generate", "5xx", model) for model in ("", "poet")]
    client = web(lambda _: httpx2.Response(500))
    assert (await client.post("/generate", json={"prompt": "春"})).status_code == 502
    assert sum(sample.grown for sample in samples) == 1


async def test_a_client_that_leaves_before_the_answer_is_a_499() -> None:
    asked, left = asyncio.Event(), asyncio.Event()

    async def hang(_request: httpx2.Request) -> httpx2.Response:
        asked.set()
        await asyncio.Event().wait()
        raise AssertionError

    body: list[Message] = [{"type": "http.request", "body": b'{"prompt": "x"}', "more_body": False}]

    async def receive() -> Message:
        if body:
            return body.pop()
        await left.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        raise AssertionError(message)

    settings = Settings(models={"poet": {"url": "http://poet.test"}})
    app = create_app(settings, httpx2.MockTransport(hang))
    headers = [(b"content-type", b"application/json"), (b"content-length", b"15")]
    scope = {"type": "http", "method": "POST", "path": "/generate", "headers": headers, "query_string": b""}
    samples = {status: [requests("/generate", status, model) for model in ("", "poet")] for status in ("499", "5xx")}
    request = asyncio.ensure_future(app(scope, receive, send))
    await asked.wait()
    left.set()
    await eventually(request.done)
    assert sum(sample.grown for sample in samples["499"]) == 1
    assert sum(sample.grown for sample in samples["5xx"]) == 0


async def test_callers_are_counted_and_those_that_are_refused(web: Web) -> None:
    alice, bob = (Sample("caller_requests_total", caller=name) for name in ("alice", "bob"))
    refused = Sample("caller_refusals_total", caller="alice")
    client = web(**HEADER, caller_requests_per_minute=1, caller_requests_burst=1)
    statuses = [
        (await client.post("/generate", json={"prompt": "春"}, headers={"X-Forwarded-User": name})).status_code
        for name in ("alice", "bob", "alice")
    ]
    assert statuses == [200, 200, 429]
    assert (await client.get("/status")).status_code == 401  # which is nobody's
    assert (alice.grown, bob.grown, refused.grown) == (2, 1, 1)


async def test_callers_beyond_the_first_are_one(web: Web) -> None:
    client = web(**HEADER)
    others, last = Sample("caller_requests_total", caller=OTHER), Sample("caller_requests_total", caller="c51")
    for number in range(CALLER_NAMES + 2):
        await client.get("/status", headers={"X-Forwarded-User": f"c{number}"})
    await client.get("/status", headers={"X-Forwarded-User": "c0"})
    assert (others.grown, last.grown) == (2, 0)
    assert Sample("caller_requests_total", caller="c0").value >= 2


def test_the_first_names_stay() -> None:
    names = NameLimit(2)
    assert [names.label(name) for name in ("a", "b", "c", "a", "b", "d")] == ["a", "b", OTHER, "a", "b", OTHER]


async def test_failures_are_counted_from_zero(web: Web) -> None:
    """A rate does not see a counter whose first value is not 0."""
    async with web() as client:
        await client.get("/models")
    labels = {"route": "/models", "model": "", "status_class": "5xx"}
    assert REGISTRY.get_sample_value("shangcai_web_requests_total", labels) == 0
