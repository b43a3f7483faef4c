"""A model that is woken by hand, and web in front of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx2
import pytest
from starlette.types import ASGIApp

from tests.support.waking import SILENCE_SECONDS, Front, Model, Opened
from web.app import create_app
from web.settings import Settings


@pytest.fixture(autouse=True)
def quick(no_pending: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Silence is noticed here, and soon."""
    for module in ("rest.upstream", "readiness.probe"):
        monkeypatch.setattr(f"web.{module}.FIRST_STATUS_SECONDS", 0.05)
    for module in (
        "rest.upstream",
        "readiness.probe",
        "readiness.waiting_statuses",
        "readiness.state",
        "api.job_stream",
    ):
        monkeypatch.setattr(f"web.{module}.SILENCE_SECONDS", SILENCE_SECONDS)
    for pause in (
        "rest.upstream.FIRST_POLL_SECONDS",
        "readiness.probe.FIRST_POLL_SECONDS",
        "readiness.probe.POLL_SECONDS",
    ):
        monkeypatch.setattr(f"web.{pause}", 0.02)


@pytest.fixture
def model(stream: Callable[..., bytes]) -> Model:
    return Model(stream("春", "天"))


@pytest.fixture
def app(model: Model) -> Callable[..., ASGIApp]:
    """Makes a web in front of the model."""

    def make(**settings: Any) -> ASGIApp:
        models = {"poet": "http://poet.test", "painter": {"url": "http://painter.test", "kind": "image"}}
        settings = {"models": models, "grace_seconds": 1, **settings}
        return create_app(Settings(**settings), httpx2.MockTransport(model))

    return make


@pytest.fixture
def front(opened: Opened, app: Callable[..., ASGIApp]) -> Front:
    """Starts a web in front of the model, and gives a client of it."""

    async def start(**settings: Any) -> httpx2.AsyncClient:
        return await opened(app(**settings))

    return start
