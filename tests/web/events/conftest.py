"""A sink, and web that dispatches to it by events."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest
from starlette.types import ASGIApp

from tests.support.events import App, Front, Opened, Sink
from web.app import create_app
from web.settings import Settings


@pytest.fixture
def sink() -> Sink:
    return Sink()


@pytest.fixture
def app(sink: Sink) -> App:
    """Makes a web that dispatches by events."""

    def make(**settings: Any) -> ASGIApp:
        models = {"poet": {"kind": "text"}, "painter": {"kind": "image"}}
        settings = {"models": models, "dispatch": "EVENTS", "k_sink": "http://sink.test/default", **settings}
        return create_app(Settings(**settings), httpx2.MockTransport(sink))

    return make


@pytest.fixture
def front(opened: Opened, app: App) -> Front:
    """Starts such a web, and gives a client of it."""

    async def start(**settings: Any) -> httpx2.AsyncClient:
        return await opened(app(**settings))

    return start
