"""What surrounds POST /generate: discovery, health, cross-origin requests, the log."""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable

import httpx2
import pytest
from pydantic import ValidationError

from web.settings import Settings

Web = Callable[..., httpx2.AsyncClient]


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
            "models": "/models",
            "openapi": "/openapi.json",
            "status": "/status",
            "warm": "/warm",
            "health": "/healthz",
            "readiness": "/readyz",
        },
    }


async def test_every_link_of_the_discovery_leads_somewhere(web: Web) -> None:
    client = web()
    for link in (await client.get("/")).json()["links"].values():
        response = await client.get(link)
        assert response.status_code != 404 or "no generation of this id" in response.text


@pytest.mark.parametrize("path", ["/", "/openapi.json"])
async def test_what_a_client_has_already_is_not_sent_again(web: Web, path: str) -> None:
    client = web()
    first = await client.get(path)
    tag = first.headers["etag"]
    for known in (tag, f'"other", {tag}', tag.removeprefix("W/"), "*"):
        again = await client.get(path, headers={"If-None-Match": known})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
        assert "content-type" not in again.headers
    assert (await client.get(path, headers={"If-None-Match": '"other"'})).content == first.content


async def test_behind_a_proxy_that_takes_a_prefix_off(web: Web, serve: Callable[..., Awaitable[str]]) -> None:
    """Every address that a client is told has it; the requests come without."""
    app = web(root_path="/kitchen")._transport
    assert isinstance(app, httpx2.ASGITransport)
    async with httpx2.AsyncClient(base_url=await serve(app.app, root_path="/kitchen"), trust_env=False) as client:
        discovery = (await client.get("/")).json()
        assert all(link.startswith("/kitchen/") for link in discovery["links"].values())
        assert (await client.get("/openapi.json")).json()["servers"] == [{"url": "/kitchen"}]
        job = await client.post("/generate", json={"prompt": "x"}, headers={"Prefer": "respond-async"})
        assert job.headers["location"] == f"/kitchen/generations/{job.json()['id']}"
        assert (await client.get(job.headers["location"].removeprefix("/kitchen"))).status_code == 200
        page = (await client.get("/", headers={"Accept": "text/html"})).text
        addresses = re.findall(r'(?:src|href|action)="([^"?]+)', page)
        assert [address for address in addresses if not address.startswith("/kitchen/")] == []
        assert 'data-root="/kitchen"' in page
        for address in addresses:
            assert (await client.get(address.removeprefix("/kitchen"))).status_code == 200
        assert (await client.get("/nowhere")).status_code == 404


@pytest.mark.parametrize("prefix", ["/", "kitchen", "/kitchen/", '/"x', "/a?b"])
def test_a_prefix_is_a_path(prefix: str) -> None:
    with pytest.raises(ValidationError, match="root_path"):
        Settings(models={"poet": "http://poet.test"}, root_path=prefix)


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


@pytest.mark.parametrize("header", ["authorization", "idempotency-key", "last-event-id", "prefer", "x-request-timeout"])
async def test_a_configured_origin_may_send_every_header_that_is_read(web: Web, header: str) -> None:
    headers = {**ORIGIN, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": header}
    client = web(cors_origins=["https://page.test"])
    response = await client.options("/generate", headers=headers)
    assert response.status_code == 200
    assert header in response.headers["access-control-allow-headers"].lower().split(", ")
    assert "access-control-allow-credentials" not in response.headers
    assert (await client.options("/generate", headers={**headers, "Origin": "https://evil.test"})).status_code == 400


async def test_a_configured_origin_may_send_credentials_where_that_is_set(web: Web) -> None:
    client = web(cors_origins=["https://page.test"], cors_credentials=True)
    preflight = {**ORIGIN, "Access-Control-Request-Method": "DELETE"}
    for response in (
        await client.options("/generations/x", headers=preflight),
        await client.post("/generate", json={"prompt": "x"}, headers=ORIGIN),
    ):
        assert response.headers["access-control-allow-credentials"] == "true"
        assert response.headers["access-control-allow-origin"] == "https://page.test"


@pytest.mark.parametrize("origins", [[], ["*"]])
def test_credentials_are_for_named_origins_only(origins: list[str]) -> None:
    with pytest.raises(ValidationError, match="cors_credentials: needs cors_origins, each by its name"):
        Settings(models={"poet": "http://poet.test"}, cors_origins=origins, cors_credentials=True)


@pytest.mark.parametrize("path", ["/", "/healthz", "/nowhere", "/generate", "/openapi.json", "/status"])
async def test_no_answer_is_taken_for_another_type(web: Web, path: str) -> None:
    assert (await web().get(path)).headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    ("peer", "forwarded", "logged"),
    [
        ("192.0.2.1", None, "192.0.2.1"),
        ("192.0.2.1", "203.0.113.9", "192.0.2.1"),  # anybody may say so
        ("10.0.0.1", "203.0.113.9", "203.0.113.9"),
        ("::ffff:10.0.0.1", "203.0.113.9, 10.0.0.2", "203.0.113.9"),
        ("10.0.0.1", "10.9.9.9, 203.0.113.9, 10.0.0.2", "203.0.113.9"),  # the first is the client's own
        ("10.0.0.1", "203.0.113.9:4711", "203.0.113.9"),
        ("10.0.0.1", "[2001:db8::1]:4711", "2001:db8::1"),
        ("10.0.0.1", "10.0.0.3", "10.0.0.3"),
        ("10.0.0.1", "evil\nline", "10.0.0.1"),
        ("10.0.0.1", "", "10.0.0.1"),
    ],
)
async def test_the_log_names_the_client(
    web: Web, caplog: pytest.LogCaptureFixture, peer: str, forwarded: str | None, logged: str
) -> None:
    caplog.set_level(logging.INFO, "wire.request_context")
    client = web(trusted_hops=["10.0.0.0/8"])
    transport = client._transport
    assert isinstance(transport, httpx2.ASGITransport)
    transport.client = (peer, 1)
    await client.get("/models", headers={} if forwarded is None else {"X-Forwarded-For": forwarded})
    assert f", client {logged}, caller default, request " in caplog.text


async def test_one_request_is_one_log_line(web: Web, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "wire.request_context")
    client = web()
    await client.post("/generate", json={"prompt": "secret"}, headers={"X-Request-Id": "order-66"})
    await client.get("/no%0Awhere")
    await client.get("/healthz")
    await client.get("/readyz")
    await client.get("/status")
    first, second = (record.getMessage() for record in caplog.records if record.name == "wire.request_context")
    assert first.startswith("POST '/generate' -> 200 in ")
    said = r"client 127\.0\.0\.1, caller default, model poet( \((\w+ [\d.]+ s(, )?)+\))?, request order-66"
    assert re.fullmatch(said, first.partition(" s, ")[2])
    assert second.startswith("GET '/no\\nwhere' -> 404 in ")
    assert "secret" not in caplog.text


async def test_openais_client_in_a_page_of_another_origin_may_send_its_headers(web: Web) -> None:
    sent = "authorization,content-type,x-stainless-arch,x-stainless-lang,x-stainless-os,x-stainless-package-version"
    sent += ",x-stainless-retry-count,x-stainless-runtime,x-stainless-runtime-version,x-stainless-timeout"
    asked = {
        "Origin": "https://page.test",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": sent,
    }
    answer = await web(cors_origins=["https://page.test"]).options("/v1/chat/completions", headers=asked)
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, "https://page.test")
