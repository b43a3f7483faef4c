"""The metrics of an application as it runs."""

from __future__ import annotations

import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
from starlette.types import ASGIApp

from tests.support.waiting import eventually
from tests.support.web.job_requests import ASYNC, Poet, ended, submit
from tests.support.web.samples import Sample
from web.app import create_app
from web.settings import Settings
from web.telemetry import refreshed_metrics

StartRedis = Callable[..., "subprocess.Popen[bytes]"]
Opened = Callable[[ASGIApp], Awaitable[httpx2.AsyncClient]]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refreshed_metrics, "REFRESH_SECONDS", 0.02)


@pytest.fixture
def poet(stream: Callable[..., bytes]) -> Poet:
    return Poet(stream("春", "天"))


@pytest.fixture(params=["memory", "redis"])
def store(request: pytest.FixtureRequest) -> dict[str, Any]:
    return {} if request.param == "memory" else {"store_url": request.getfixturevalue("redis_url")}


def jobs(state: str) -> float:
    return Sample("jobs", model="poet", state=state).value


async def test_jobs_and_the_state_of_the_model_are_shown(opened: Opened, poet: Poet, store: dict[str, Any]) -> None:
    settings = Settings(models={"poet": {"url": "http://poet.test"}}, max_job_runs=1, grace_seconds=1, **store)
    client = await opened(create_app(settings, httpx2.MockTransport(poet)))
    running, ready = Sample("job_runs", model="poet"), Sample("model_state", model="poet", state="ready")
    before, oldest = running.value, Sample("oldest_job_queued_seconds", model="poet")
    first, second = await submit(client), await submit(client)
    await eventually(lambda: (jobs("running"), jobs("queued")) == (1, 1), "one runs, and one waits")
    assert (running.value, ready.value, oldest.value > 0) == (before + 1, 1, True)
    assert Sample("store_bytes").value > 0
    assert Sample("store_most_bytes").value == settings.store_bytes
    poet.finish.set()
    for job in (first, second):
        await ended(client, job)
    await eventually(lambda: (jobs("running"), jobs("queued"), oldest.value) == (0, 0, 0), "none is left")


async def test_web_goes_on_without_its_store(
    opened: Opened, poet: Poet, start_redis: StartRedis, closed_port: int, tmp_path: Path
) -> None:
    """What is shown then is what was known."""
    process = start_redis(closed_port, tmp_path)
    settings = Settings(
        models={"poet": {"url": "http://poet.test"}},
        store_url=f"redis://127.0.0.1:{closed_port}/0",
        store_patience_seconds=1,
        grace_seconds=1,
    )
    client = await opened(create_app(settings, httpx2.MockTransport(poet)))
    await submit(client)
    await eventually(lambda: jobs("running") + jobs("queued") == 1, "it is shown")
    errors = Sample("store_errors_total", command="HGET")
    process.kill()
    await eventually(lambda: errors.grown > 0, "the store was asked in vain")
    poet.finish.set()
    assert (await client.post("/generate", json={"prompt": "春"})).status_code == 200
    assert (await client.post("/generate", json={"prompt": "春"}, headers=ASYNC)).status_code == 503
    assert (await client.get("/readyz")).status_code == 200
    assert jobs("running") + jobs("queued") == 1
