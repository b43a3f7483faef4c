"""Both clients in front of the real web; of the asynchronous one every call is waited for."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import httpx2
import pytest

from shangcai import AsyncClient, AsyncJob, Client
from tests.support.web.served_web import ServedWeb, served_web

MakeClient = Callable[..., Any]


class Blocking:
    """An AsyncClient or an AsyncJob, used like a Client or a Job."""

    def __init__(self, target: Any, runner: asyncio.Runner) -> None:
        self._target = target
        self._runner = runner

    def __getattr__(self, name: str) -> Any:
        member = getattr(self._target, name)
        return self._blocking(member) if callable(member) else member

    def _blocking(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            found = method(*args, **kwargs)
            if inspect.isasyncgen(found):
                return self._iterator(found)
            if inspect.isawaitable(found):
                found = self._runner.run(_awaited(found))
            return Blocking(found, self._runner) if isinstance(found, AsyncJob) else found

        return call

    def _iterator(self, events: Any) -> Iterator[Any]:
        try:
            while True:
                try:
                    yield self._runner.run(_awaited(anext(events)))
                except StopAsyncIteration:
                    return
        finally:
            self._runner.run(events.aclose())


async def _awaited(found: Any) -> Any:
    return await found


@pytest.fixture
def served() -> Iterator[ServedWeb]:
    with served_web() as served:
        yield served


@pytest.fixture(params=["sync", "async"])
def make_client(request: pytest.FixtureRequest) -> Iterator[MakeClient]:
    """Makes a client of either kind."""
    made: list[Any] = []
    with asyncio.Runner() as runner:

        def make(url: str, key: str | None = None, handler: Any = None, **options: Any) -> Any:
            transport = handler and httpx2.MockTransport(handler)
            if request.param == "sync":
                made.append(Client(url, key, transport=transport, **options))
            else:
                made.append(Blocking(AsyncClient(url, key, transport=transport, **options), runner))
            return made[-1]

        yield make
        for client in made:
            client.close()


@pytest.fixture
def client(make_client: MakeClient, served: ServedWeb) -> Any:
    return make_client(served.url)


@pytest.fixture
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is tried again is so at once."""
    monkeypatch.setattr("shangcai.attempts.PAUSE_SECONDS", 0.01)
