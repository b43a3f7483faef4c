"""What clients get through the ingress, web and the predictors, on a real cluster."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import httpx
import pytest

from tests.cluster.cluster import Cluster, wait_for
from tests.cluster.prompts import CAT, POEM

pytestmark = pytest.mark.slow

RUNNING = "shangcai_num_requests_running"
WAITING = "shangcai_num_requests_waiting"


def gauge(metrics: str, name: str) -> float:
    return sum(float(line.rsplit(" ", 1)[1]) for line in metrics.splitlines() if line.startswith(name))


def test_a_prompt_becomes_a_poem(web: httpx.Client) -> None:
    result = web.post("/generate", json=POEM).raise_for_status().json()
    assert result["model"] == "text"
    assert result["text"].strip()


def test_a_prompt_becomes_a_picture(web: httpx.Client) -> None:
    answer = web.post("/generate", json=CAT, headers={"Accept": "image/png"}).raise_for_status()
    assert answer.headers["content-type"] == "image/png"
    assert answer.content.startswith(b"\x89PNG")


def test_a_stream_arrives_while_it_is_written(web: httpx.Client) -> None:
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


def test_a_mistake_is_named(web: httpx.Client) -> None:
    answer = web.post("/generate", json={**POEM, "tone": "sad"})
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/problem+json"
    assert [error["field"] for error in answer.json()["errors"]] == ["tone"]


def test_a_burst_is_answered_and_no_pod_has_more_than_its_slots(
    cluster: Cluster, web: httpx.Client, slots: dict[str, int]
) -> None:
    web.post("/generate", json=POEM).raise_for_status()
    most: dict[str, float] = {}
    over = threading.Event()

    def watch(pod: str, url: str) -> None:
        with httpx.Client(trust_env=False, timeout=10) as client:
            while not over.is_set():
                metrics = client.get(f"{url}/metrics").raise_for_status().text
                most[pod] = max(most.get(pod, 0), gauge(metrics, RUNNING) + gauge(metrics, WAITING))

    with ExitStack() as stack, ThreadPoolExecutor(5 * slots["text"] + 8) as pool:
        watchers = []
        for pod in cluster.pods("text-predictor"):
            name = pod["metadata"]["name"]
            watchers.append(pool.submit(watch, name, stack.enter_context(cluster.forward(f"pod/{name}", 8080))))
        try:
            answers = list(pool.map(lambda _: web.post("/generate", json=POEM), range(5 * slots["text"])))
        finally:
            over.set()
        for watcher in watchers:
            watcher.result(60)
    assert [answer.status_code for answer in answers] == [200] * len(answers)
    assert most
    for pod, number in most.items():
        assert 1 < number <= slots["text"], pod


def test_cancelling_ends_a_generation_and_frees_its_slot(
    cluster: Cluster, web: httpx.Client, ended_job: Callable[..., Any]
) -> None:
    web.post("/generate", json=CAT, headers={"Accept": "image/png"}).raise_for_status()  # awake
    [pod, *_] = cluster.pods("image-predictor")
    with cluster.forward(f"pod/{pod['metadata']['name']}", 8080) as url:

        def running() -> float:
            return gauge(httpx.get(f"{url}/metrics", trust_env=False).raise_for_status().text, RUNNING)

        long = {**CAT, "n": 8, "steps": 200}
        job = web.post("/generate", json=long, headers={"Prefer": "respond-async"})
        assert job.status_code == 202
        where = job.headers["location"]
        wait_for(running, "it runs", 60, 0.1)
        assert web.delete(where).json()["state"] == "cancelled"
        wait_for(lambda: running() == 0, "its slot is free", 20, 0.1)
    assert ended_job(web, where)["state"] == "cancelled"
