"""Our servers have the routes that probes and Knative request."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from unittest import mock

import httpx2
import pytest
from fastapi import FastAPI
from starlette.routing import Match

from predictor.engine.base import Engine
from tests.manifests.checks.references.events import PATHS
from tests.manifests.checks.references.workloads import PROBES
from web.app import create_app
from web.settings import Settings

with mock.patch.object(sys, "argv", sys.argv[:1]):  # KServe reads them when it is imported
    from predictor.protocols.kserve_text import TextModel
    from predictor.server.drain import Lifetime
    from predictor.server.model_server import PredictorServer

REQUESTS = {
    server: [*(("POST", path) for path in PATHS[server]), *(("GET", path) for path in PROBES[server].values())]
    for server in ("web", "predictor")
}


@pytest.fixture
def predictor() -> Iterator[FastAPI]:
    model = TextModel("text", mock.create_autospec(Engine, instance=True), request_seconds=1)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield PredictorServer(model, listener, Lifetime(grace_seconds=1)).rest.create_application()


def takes(app: FastAPI, method: str, path: str) -> bool:
    scope = {"type": "http", "method": method, "path": path, "headers": []}
    return any(route.matches(scope)[0] is Match.FULL for route in app.routes)


@pytest.mark.parametrize(("method", "path"), sorted(REQUESTS["predictor"]))
def test_the_predictor_has_the_routes_that_manifests_name(predictor: FastAPI, method: str, path: str) -> None:
    assert takes(predictor, method, path)
    assert not takes(predictor, method, f"{path}x")


@pytest.mark.parametrize(("method", "path"), sorted(REQUESTS["web"]))
async def test_web_has_the_routes_that_manifests_name(method: str, path: str) -> None:
    asleep = httpx2.MockTransport(lambda request: httpx2.Response(503))
    settings = {"models": {"text": "http://text.test"}, "routes": "inbox"}  # who is asked for all but /healthz
    app = create_app(Settings.model_validate(settings), asleep)
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://web.test") as client:
        assert (await client.request(method, f"{path}x")).status_code == 404
        assert (await client.request(method, path)).status_code not in (404, 405)
