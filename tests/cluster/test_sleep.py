"""Scale to zero and back on a real cluster. All falls asleep, which takes minutes; then each test wakes a part."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from typing import Any

import httpx
import pytest

from tests.cluster.cluster import Cluster, wait_for
from tests.cluster.prompts import POEM

pytestmark = pytest.mark.slow

SLEEP_SECONDS = 1200.0
"""Twice the sum of Knative's retention period, stable window and grace period."""


def is_asleep(cluster: Cluster, service: str) -> bool:
    return not cluster.pods(service)


@pytest.fixture(scope="module")
def job(cluster: Cluster, web: httpx.Client) -> str:
    """The address of a job from before everything fell asleep."""
    web.post("/generate", json=POEM).raise_for_status()
    answer = web.post("/generate", json=POEM, headers={"Prefer": "respond-async"})
    assert answer.status_code == 202
    for service in ("web", "text-predictor"):
        assert cluster.pods(service)
        wait_for(partial(is_asleep, cluster, service), f"{service} is asleep", SLEEP_SECONDS, 5)
    location: str = answer.headers["location"]
    return location


def test_a_job_outlives_web(cluster: Cluster, web: httpx.Client, job: str, ended_job: Callable[..., Any]) -> None:
    assert not cluster.pods("web")
    ended = ended_job(web, job)
    assert ended["state"] == "completed"
    assert ended["result"]["text"].strip()
    assert not cluster.pods("text-predictor")  # the result was stored, and not generated again


def test_a_request_wakes_a_model_that_is_asleep(cluster: Cluster, web: httpx.Client, job: str) -> None:
    wait_for(partial(is_asleep, cluster, "text-predictor"), "text-predictor is asleep", SLEEP_SECONDS, 5)
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
