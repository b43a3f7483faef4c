"""Nobody gets past the authentication without a caller's name, on any route."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.routing import Route

from web.app import create_app
from web.settings import Settings

Web = Callable[..., httpx2.AsyncClient]
Bearer = Callable[[str], dict[str, str]]
Slug = Callable[[httpx2.Response], str]

MODELS: Any = {"poet": "http://poet.test"}
OPEN = {
    ("GET", "/"),
    ("GET", "/healthz"),
    ("GET", "/readyz"),
    ("GET", "/openapi.json"),
    ("GET", "/generate.js"),
    ("GET", "/static/{digest}/{name}"),
    ("POST", "/events"),  # whose senders have proofs of their own
}
GATEWAY = "203.0.113.7"


def keyed_settings(path: Path) -> Settings:
    return Settings(models=MODELS, callers="keys", callers_file=path, callers_secret="a secret of the tests")


def routes(path: Path) -> set[tuple[str, str]]:
    """Every method and path of the application."""
    app: Any = create_app(keyed_settings(path))
    while not isinstance(app, Starlette):
        app = app.app
    return {
        (method, route.path.replace(":path", ""))
        for route in app.routes
        if isinstance(route, Route)
        for method in route.methods or ("GET", "POST", "PUT", "PATCH", "DELETE")
    }


async def test_every_route_but_the_open_ones_needs_a_caller(
    keyed: Web, key_file: Path, slug: Slug, bearer: Bearer
) -> None:
    client = keyed()
    every = routes(key_file)
    assert every > OPEN
    for method, path in sorted(every):
        answer = await client.request(method, path.format(id="x", digest="x", name="main.js", number=0, model="x"))
        if (method if method != "HEAD" else "GET", path) in OPEN:
            assert answer.status_code != 401, (method, path)
            continue
        assert answer.status_code == 401, (method, path)
        assert answer.headers["www-authenticate"] == "Bearer"
        if method != "HEAD":
            assert slug(answer) == "unauthorized"
        known = await client.request(method, path.format(id="x", number=0, model="x"), headers=bearer("alice"))
        assert known.status_code != 401, (method, path)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/nowhere"),
        ("GET", "/healthz/x"),
        ("GET", "/statics"),
        ("PUT", "/"),
        ("OPTIONS", "/generate"),
        ("DELETE", "/healthz"),
        ("GET", "//"),
    ],
)
async def test_what_is_not_named_as_open_needs_a_caller(keyed: Web, method: str, path: str) -> None:
    assert (await keyed().request(method, f"http://web.test{path}")).status_code == 401


@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "Bearer nobody's",
        "Basic YWxpY2U6eA==",
        "shangcai_alicealicealicealicealicealicealicealice",
        "Bearer \xe9",
    ],
)
async def test_anything_but_a_key_is_refused(keyed: Web, slug: Slug, authorization: str | None) -> None:
    headers = {} if authorization is None else {"Authorization": authorization.encode("latin-1")}
    answer = await keyed().post("/generate", json={"prompt": "x"}, headers=headers)  # type: ignore[arg-type]
    assert slug(answer) == "unauthorized"


async def test_nothing_is_read_of_the_body_of_somebody_unknown(key_file: Path) -> None:
    """Or whoever reaches the port could fill the memory with bodies."""
    app = create_app(keyed_settings(key_file))
    read: list[str] = []
    sent: list[Any] = []

    async def receive() -> Any:
        read.append("body" if sent else "body before the answer")
        return {"type": "http.request", "body": b"x" * 1_000, "more_body": len(read) < 10}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/generate", "headers": [], "client": ("127.0.0.1", 1)}
    await app({**scope, "query_string": b"", "scheme": "http", "server": ("web.test", 80)}, receive, send)
    assert sent[0]["status"] == 401
    assert (b"connection", b"close") in sent[0]["headers"]
    assert read == ["body"] * 10, "it is thrown away after the answer"


async def test_two_keys_are_none(keyed: Web, bearer: Bearer) -> None:
    headers = [*bearer("alice").items(), *bearer("bob").items()]
    assert (await keyed().get("/status", headers=headers)).status_code == 401


async def test_a_key_opens_everything(keyed: Web, bearer: Bearer) -> None:
    client = keyed()
    for name in ("alice", "bob"):
        assert (await client.post("/generate", json={"prompt": "x"}, headers=bearer(name))).status_code == 200
    lower = {"authorization": bearer("bob")["Authorization"].replace("Bearer", "bearer")}
    assert (await client.get("/status", headers=lower)).status_code == 200


async def test_a_preflight_needs_no_key_and_the_refusal_can_be_read(keyed: Web) -> None:
    client = keyed(cors_origins=["https://page.test"])
    origin = {"Origin": "https://page.test"}
    asked = {**origin, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}
    assert (await client.options("/generate", headers=asked)).status_code == 200
    refused = await client.post("/generate", json={"prompt": "x"}, headers=origin)
    assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (401, "https://page.test")


async def test_with_callers_off_a_key_is_not_looked_at(web: Web) -> None:
    client = web(callers="off")
    for headers in ({}, {"Authorization": "Bearer whatever"}):
        assert (await client.post("/generate", json={"prompt": "x"}, headers=headers)).status_code == 200


async def test_no_key_in_the_log(keyed: Web, bearer: Bearer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    client = keyed()
    for name in ("alice", "wrongwrongwrong"):
        await client.get("/status", headers=bearer(name))
    logged = caplog.text + repr([record.args for record in caplog.records if record.name.startswith(("web", "wire"))])
    assert "shangcai_" not in logged
    assert "wrongwrongwrong" not in logged


# A gateway's header


def through(client: httpx2.AsyncClient, peer: str) -> httpx2.AsyncClient:
    """The same application, seen by this peer."""
    transport: Any = client._transport
    return httpx2.AsyncClient(
        transport=httpx2.ASGITransport(transport.app, client=(peer, 1)), base_url="http://web.test"
    )


@pytest.mark.parametrize(
    ("peer", "headers", "status"),
    [
        (GATEWAY, [("X-Forwarded-User", "alice@example.com")], 200),
        (f"::ffff:{GATEWAY}", [("X-Forwarded-User", "alice")], 200),
        ("2001:db8::1", [("X-Forwarded-User", "alice")], 200),
        ("203.0.114.7", [("X-Forwarded-User", "alice")], 401),
        ("somewhere", [("X-Forwarded-User", "alice")], 401),
        (GATEWAY, [], 401),
        (GATEWAY, [("X-Forwarded-User", "")], 401),
        (GATEWAY, [("X-Forwarded-User", "alice"), ("X-Forwarded-User", "bob")], 401),
        (GATEWAY, [("X-Forwarded-User", "alice and bob")], 401),
        (GATEWAY, [("X-Forwarded-User", "default")], 401),
        (GATEWAY, [("X-Forwarded-User", "events")], 401),
        (GATEWAY, [("X-Other", "alice")], 401),
    ],
)
async def test_a_gateways_header(web: Web, peer: str, headers: list[tuple[str, str]], status: int) -> None:
    client = web(
        callers="header", trusted_hops=["203.0.113.0/24", "2001:db8::/32"], callers_secret="a secret of the tests"
    )
    assert (await through(client, peer).get("/status", headers=headers)).status_code == status


# The start


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"callers": "keys"}, "callers_file: is required where callers is keys"),
        ({"callers": "jwt", "callers_audience": "web"}, "callers_issuer: is required where callers is jwt"),
        ({"callers": "jwt", "callers_issuer": "https://x"}, "callers_audience: is required"),
        ({"callers": "header"}, "trusted_hops: is required where callers is header"),
        ({"callers": "header", "trusted_hops": ["10.0.0.0/8"], "callers_secret": "short"}, "callers_secret"),
        ({"callers": "everybody"}, "'off', 'keys'"),
        ({"callers": "header", "trusted_hops": ["10.0.0.0/8"], "callers_header": "X: y"}, "callers_header"),
    ],
)
def test_what_is_missing_is_named(settings: Any, named: str) -> None:
    with pytest.raises(ValidationError, match=named):
        Settings(models=MODELS, **settings)


def test_in_a_pod_somebody_must_choose(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    with pytest.raises(ValidationError, match="callers: is required in a pod: keys, jwt, header, or off"):
        Settings(models=MODELS)
    Settings(models=MODELS, callers="off")
