"""web in front of a predictor that wants a token, over sockets: requests, jobs, events and cancellations."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any
from unittest import mock

import httpx2
import pytest
import uvicorn
from pydantic import SecretStr

from contract.callers import DEFAULT_CALLER
from predictor.protocols.access import Access, caller_of
from tests.support.scripted_engine import ScriptedEngine
from tests.support.serving import serving
from tests.support.waiting import eventually
from web.app import create_app
from web.settings import Settings
from wire.listener import listen

with mock.patch.object(sys, "argv", sys.argv[:1]):  # KServe reads them when it is imported
    from predictor.protocols.kserve_text import TextModel

TOKEN = "a-token-of-the-predictors"
ASYNC = {"Prefer": "respond-async"}

Start = Callable[..., Any]


class Recorder(TextModel):
    """Remembers whose tasks it was given."""

    def __init__(self, engine: ScriptedEngine) -> None:
        super().__init__("poet", engine)
        self.callers: list[str] = []

    async def submit(self, task: Any, headers: Any) -> Any:
        self.callers.append(caller_of(headers))
        return await super().submit(task, headers)


@asynccontextmanager
async def web(settings: Settings) -> AsyncIterator[httpx2.AsyncClient]:
    listener = listen("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(create_app(settings), log_config=None, lifespan="on", ws="none"))
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    await eventually(lambda: server.started)
    try:
        async with httpx2.AsyncClient(
            base_url=f"http://127.0.0.1:{listener.getsockname()[1]}", trust_env=False, timeout=60
        ) as client:
            yield client
    finally:
        server.should_exit = True
        await serving


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """Starts a predictor with the token and a web with these settings; gives the engine, its model and a client."""
    engine = ScriptedEngine()
    model = Recorder(engine)
    async with AsyncExitStack() as stack:
        _, url = await stack.enter_async_context(serving(model, access=Access(SecretStr(TOKEN))))
        engine.load_gate.set()
        await eventually(lambda: model.startup.ready)

        async def begin(**settings: Any) -> tuple[ScriptedEngine, Recorder, httpx2.AsyncClient]:
            known = {"models": {"poet": url}, "k_sink": url, "grace_seconds": 1}
            client = await stack.enter_async_context(web(Settings.model_validate({**known, **settings})))
            return engine, model, client

        yield begin


async def ended(client: httpx2.AsyncClient, job: str) -> dict[str, Any]:
    async def document() -> dict[str, Any] | None:
        found: dict[str, Any] = (await client.get(job)).json()
        return found if found["state"] not in ("queued", "running") else None

    found: dict[str, Any] | None = await eventually(document)
    assert found is not None
    return found


@pytest.mark.parametrize("dispatch", ["rest", "events"])
async def test_with_the_token_everything_is_as_without(start: Start, dispatch: str) -> None:
    engine, model, client = await start(dispatch=dispatch, predictor_token=TOKEN)
    for text in ("春", "夏"):
        engine.enqueue(text)
    answer = await client.post("/generate", json={"prompt": "x"})
    assert (answer.status_code, answer.json()["text"]) == (200, "春")
    job = await client.post("/generate", json={"prompt": "x"}, headers=ASYNC)
    assert (await ended(client, job.headers["location"]))["result"]["text"] == "夏"
    assert model.callers == [DEFAULT_CALLER] * 2


@pytest.mark.parametrize("dispatch", ["rest", "events"])
async def test_a_cancellation_reaches_its_job(start: Start, dispatch: str) -> None:
    engine, _, client = await start(dispatch=dispatch, predictor_token=TOKEN)
    engine.enqueue(asyncio.Event())
    job = (await client.post("/generate", json={"prompt": "x"}, headers=ASYNC)).headers["location"]
    await eventually(lambda: engine.generations)
    assert (await client.delete(job)).status_code == 200
    await eventually(lambda: engine.closed == [True])


@pytest.mark.parametrize("token", [None, "a-token-of-somebody-else"])
@pytest.mark.parametrize("dispatch", ["rest", "events"])
async def test_without_the_token_nothing_is_generated_and_the_job_ends(
    start: Start, dispatch: str, token: str | None
) -> None:
    engine, _, client = await start(dispatch=dispatch, predictor_token=token)
    job = (await client.post("/generate", json={"prompt": "x"}, headers=ASYNC)).headers["location"]
    document = await ended(client, job)
    assert document["state"] == "failed"
    assert document["error"]["status"] == 502, document
    assert not engine.tasks
    if dispatch == "rest":
        assert (await client.post("/generate", json={"prompt": "x"})).status_code == 502
