"""What clients get through the ingress, web and the predictors, on a real cluster."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import httpx2
import pytest

from tests.cluster.asking import ask
from tests.cluster.cluster import Cluster
from tests.cluster.predictor_metrics import most_requests, running
from tests.cluster.prompts import CAT, POEM
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.serial]

MOST_AT_ONCE = 200
"""web takes 240 at once for a model (MAX_IN_FLIGHT and MAX_WAITING), and tells others to come again."""


def test_a_prompt_becomes_a_poem(web: httpx2.Client) -> None:
    result = web.post("/generate", json=POEM).raise_for_status().json()
    assert result["model"] == "text"
    assert result["text"].strip()


def test_a_prompt_becomes_a_picture(web: httpx2.Client) -> None:
    answer = web.post("/generate", json=CAT, headers={"Accept": "image/png"}).raise_for_status()
    assert answer.headers["content-type"] == "image/png"
    assert answer.content.startswith(b"\x89PNG")


def test_a_stream_arrives_while_it_is_written(web: httpx2.Client) -> None:
    web.post("/generate", json=POEM).raise_for_status()  # awake: what waits for a model is in pieces anyway
    events: list[tuple[str, Any]] = []
    pieces = 0
    with web.stream("POST", "/generate", json={**POEM, "stream": True}) as response:
        assert response.status_code == 200
        buffer = ""
        for text in response.iter_text():
            pieces += 1
            *blocks, buffer = (buffer + text).split("\n\n")
            for block in blocks:
                if block.startswith("event: "):
                    name, data = block.split("\n")[:2]
                    events.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    assert events[-1][0] == "result"
    assert "".join(data["text"] for name, data in events if name == "token") == events[-1][1]["text"]
    assert pieces > 3  # nothing on the way buffered it


def test_a_mistake_is_named(web: httpx2.Client) -> None:
    answer = web.post("/generate", json={**POEM, "tone": "sad"})
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/problem+json"
    assert [error["field"] for error in answer.json()["errors"]] == ["tone"]


def test_a_burst_is_answered_and_no_pod_has_more_than_its_slots(
    cluster: Cluster, web: httpx2.Client, slots: dict[str, int]
) -> None:
    web.post("/generate", json=POEM).raise_for_status()
    count = min(5 * slots["text"], MOST_AT_ONCE)
    with most_requests(cluster, "text-predictor") as most, ThreadPoolExecutor(count) as pool:
        answers = list(pool.map(lambda _: ask(web, POEM), range(count)))
    assert [answer.failure for answer in answers if answer.failure] == []
    assert most
    assert max(most.values()) >= min(2, slots["text"])  # it was a burst
    assert {pod: number for pod, number in most.items() if number > slots["text"]} == {}


def test_cancelling_ends_a_generation_and_frees_its_slot(
    cluster: Cluster, web: httpx2.Client, ended_job: Callable[[str], Any]
) -> None:
    web.post("/generate", json=CAT, headers={"Accept": "image/png"}).raise_for_status()  # awake
    with ExitStack() as stack:
        pods = [f"pod/{pod['metadata']['name']}" for pod in cluster.serving_pods("image-predictor")]
        urls = [stack.enter_context(cluster.forward(pod, 8080)) for pod in pods]
        assert urls

        def count() -> float:
            return sum(running(url) for url in urls)

        wait_until(lambda: count() == 0, "nothing else runs", 60, 0.1)
        long = {**CAT, "n": 8, "steps": 200}
        job = web.post("/generate", json=long, headers={"Prefer": "respond-async"})
        assert job.status_code == 202
        where = job.headers["location"]
        wait_until(count, "it runs", 60, 0.1)
        assert web.delete(where).json()["state"] == "cancelled"
        wait_until(lambda: count() == 0, "its slot is free", 20, 0.1)
    assert ended_job(where)["state"] == "cancelled"
