"""What surrounds POST /generate: discovery, health, cross-origin requests, the log."""

from __future__ import annotations

import logging
from collections.abc import Callable

import httpx
import pytest

Web = Callable[..., httpx.AsyncClient]


async def test_discovery(web: Web) -> None:
    document = (await web().get("/")).json()
    assert document.pop("version")
    assert document == {
        "name": "shangcai",
        "models": [
            {"name": "poet", "kind": "text"},
            {"name": "novelist", "kind": "text"},
            {"name": "painter", "kind": "image"},
        ],
        "default_model": "poet",
        "links": {
            "generate": "/generate",
            "generations": "/generations",
            "generation": "/generations/{id}",
            "openapi": "/openapi.json",
            "status": "/status",
            "warm": "/warm",
            "health": "/healthz",
        },
    }


async def test_every_link_of_the_discovery_leads_somewhere(web: Web) -> None:
    client = web()
    for link in (await client.get("/")).json()["links"].values():
        response = await client.get(link)
        assert response.status_code != 404 or "no generation of this id" in response.text


async def test_health_asks_no_model_server(web: Web, seen: list[httpx.Request]) -> None:
    response = await web().get("/healthz")
    assert (response.status_code, response.json(), seen) == (200, {"status": "ok"}, [])


@pytest.mark.parametrize("path", ["/", "/healthz", "/nowhere", "/generate"])
async def test_every_response_has_the_request_id(web: Web, path: str) -> None:
    response = await web().get(path, headers={"X-Request-Id": "order-66"})
    assert response.headers["x-request-id"] == "order-66"


async def test_the_guards_own_answers_have_the_request_id(web: Web) -> None:
    response = await web(body_bytes=1).post("/generate", content=b"xx", headers={"X-Request-Id": "order-66"})
    assert (response.status_code, response.headers["x-request-id"]) == (413, "order-66")


ORIGIN = {"Origin": "https://page.test"}


async def test_no_other_origin_may_read_by_default(web: Web) -> None:
    response = await web().post("/generate", json={"prompt": "x"}, headers=ORIGIN)
    assert "access-control-allow-origin" not in response.headers


@pytest.mark.parametrize("body", [{"prompt": "x"}, {}], ids=["result", "problem"])
async def test_a_configured_origin_may_read(web: Web, body: dict[str, str]) -> None:
    response = await web(cors_origins=["https://page.test"]).post("/generate", json=body, headers=ORIGIN)
    assert response.headers["access-control-allow-origin"] == "https://page.test"
    assert {"X-Request-Id", "X-Seed"} <= set(response.headers["access-control-expose-headers"].split(", "))


async def test_a_configured_origin_may_read_the_guards_own_answers(web: Web) -> None:
    client = web(cors_origins=["https://page.test"], body_bytes=1)
    response = await client.post("/generate", content=b"xx", headers=ORIGIN)
    assert (response.status_code, response.headers["access-control-allow-origin"]) == (413, "https://page.test")


async def test_a_configured_origin_may_send_json(web: Web) -> None:
    headers = {
        **ORIGIN,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "content-type",
    }
    response = await web(cors_origins=["https://page.test"]).options("/generate", headers=headers)
    assert response.status_code == 200
    assert response.headers["access-control-allow-origin"] == "https://page.test"


async def test_one_request_is_one_log_line(web: Web, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "wire.request_context")
    client = web()
    await client.post("/generate", json={"prompt": "secret"}, headers={"X-Request-Id": "order-66"})
    await client.get("/no%0Awhere")
    await client.get("/healthz")
    first, second = (record.getMessage() for record in caplog.records if record.name == "wire.request_context")
    assert first.startswith("POST '/generate' -> 200 in ")
    assert first.endswith("request order-66")
    assert second.startswith("GET '/no\\nwhere' -> 404 in ")
    assert "secret" not in caplog.text
