"""Scale to zero and back on a real cluster. Once everything sleeps, after minutes, each test wakes what it is about."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

pytestmark = pytest.mark.slow

POEM = {"prompt": "写一首关于春雨的诗", "model": "text"}
SLEEP_SECONDS = 1200.0
"""Retention, window and grace of Knative, twice over."""


@pytest.fixture(scope="module")
def job(cluster: Any, web: httpx.Client, eventually: Callable[..., Any]) -> str:
    """A job that was made before everything fell asleep."""
    web.post("/generate", json=POEM).raise_for_status()
    answer = web.post("/generate", json=POEM, headers={"Prefer": "respond-async"})
    assert answer.status_code == 202
    for service in ("web", "text-predictor"):
        assert cluster.pods(service)
        eventually(lambda name=service: not cluster.pods(name), f"{service} sleeps", SLEEP_SECONDS, 5)
    location: str = answer.headers["location"]
    return location


def test_a_job_outlives_web(cluster: Any, web: httpx.Client, job: str, answered: Callable[..., Any]) -> None:
    assert not cluster.pods("web")
    ended = answered(web, job)
    assert ended["state"] == "completed"
    assert ended["result"]["text"].strip()
    assert not cluster.pods("text-predictor")  # it was kept, and not made again


def test_a_model_that_sleeps_is_woken_by_a_request(
    cluster: Any, web: httpx.Client, job: str, eventually: Callable[..., Any]
) -> None:
    eventually(lambda: not cluster.pods("text-predictor"), "text-predictor sleeps", SLEEP_SECONDS, 5)
    names = []
    with web.stream("POST", "/generate", json={**POEM, "stream": True}) as response:
        assert response.status_code == 200
        for line in response.iter_lines():
            if line.startswith("event: "):
                names.append(line.removeprefix("event: "))
            elif line.startswith("data: ") and names[-1] == "error":
                raise AssertionError(json.loads(line.removeprefix("data: ")))
    assert names[0] == "status"  # before the model was awake
    assert "token" in names
    assert names[-1] == "result"
    assert cluster.pods("text-predictor")
