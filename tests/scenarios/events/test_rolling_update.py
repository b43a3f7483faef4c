"""A rolling update, and its way back: replicas of an earlier version and of this one share a Redis."""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.support.processes import ROOT

pytestmark = pytest.mark.slow

DEADLINE = 120.0
EARLIER = "73ec94b"
"""The last commit of the first round: what is stored has been added to since, and nothing else."""

JOBS = 12


@pytest.fixture(scope="module")
def earlier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout of the earlier version; its programs run with today's libraries."""
    folder = tmp_path_factory.mktemp("earlier")
    rooms = ("contract", "wire", "web", "predictor", "models/poet")
    archive = subprocess.run(["git", "archive", EARLIER, *rooms], cwd=ROOT, capture_output=True)
    if archive.returncode:
        pytest.skip(f"the history is not here: {archive.stderr.decode()}")
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as files:
        files.extractall(folder, filter="data")
    return folder


@pytest.fixture
def client() -> Iterator[httpx2.Client]:
    with httpx2.Client(timeout=DEADLINE, trust_env=False) as client:
        yield client


@pytest.fixture
def replicas(earlier: Path, redis_server: Any, start_predictor: Any, start_web: Any) -> tuple[Any, Any]:
    """Web as it was and as it is, each in front of the other version's predictor."""
    old_predictor = start_predictor("--max-concurrency", "4", folder=earlier, wait=False)
    new_predictor = start_predictor("--max-concurrency", "4", wait=False)
    for predictor in (old_predictor, new_predictor):
        predictor.wait_until_ready()
    old = start_web({"poet": new_predictor.url}, folder=earlier, STORE_URL=redis_server.url)
    return old, start_web({"poet": old_predictor.url}, STORE_URL=redis_server.url)


def ask(client: httpx2.Client, web: Any, number: int, **headers: str) -> str:
    """Order a poem of web as a job; its id."""
    body = {"prompt": f"春 {number}", "seed": number, "max_tokens": 30}
    answer = client.post(f"{web.url}/generate", json=body, headers={"Prefer": "respond-async", **headers})
    assert answer.status_code in (200, 202), answer.text
    return answer.headers["Location"].rpartition("/")[2]


def watched(client: httpx2.Client, web: Any, job: str) -> list[tuple[str, Any]]:
    """The events of a job, to its end."""
    events: list[tuple[str, Any]] = []
    with client.stream("GET", f"{web.url}/generations/{job}", headers={"Accept": "text/event-stream"}) as answer:
        name = ""
        for line in answer.iter_lines():
            field, _, value = line.partition(": ")
            if field == "event":
                name = value
            elif field == "data":
                events.append((name, json.loads(value)))
    return events


def state(client: httpx2.Client, web: Any, job: str) -> dict[str, Any]:
    document: dict[str, Any] = client.get(f"{web.url}/generations/{job}").raise_for_status().json()
    return document


def test_a_job_ends_once_and_is_known_on_both(client: httpx2.Client, replicas: tuple[Any, Any]) -> None:
    old, new = replicas
    with ThreadPoolExecutor(2 * JOBS) as threads:
        jobs = list(threads.map(lambda number: ask(client, replicas[number % 2], number), range(JOBS)))
        on_both = list(threads.map(lambda watch: watched(client, *watch), [(w, j) for j in jobs for w in replicas]))

    for job, seen in zip(jobs, zip(on_both[::2], on_both[1::2], strict=True), strict=True):
        results = [[data for name, data in events if name == "result"] for events in seen]
        assert [len(found) for found in results] == [1, 1], (job, seen)
        assert [name for name, _ in seen[0] if name == "error"] == []
        assert results[0][0]["text"] == results[1][0]["text"]
        tokens = ["".join(data["text"] for name, data in events if name == "token") for events in seen]
        assert tokens == [results[0][0]["text"]] * 2, job
        assert state(client, old, job)["result"]["text"] == state(client, new, job)["result"]["text"]
    for first, second in (replicas, replicas[::-1]):
        key = {"Idempotency-Key": f"order-of-{first.port}"}
        assert ask(client, first, 1, **key) == ask(client, second, 1, **key)
        job = ask(client, first, 2)
        cancelled = client.delete(f"{second.url}/generations/{job}")
        if cancelled.status_code == 204:  # it had ended, and this version has deleted it
            assert client.get(f"{first.url}/generations/{job}").status_code == 404
            continue
        ended = cancelled.json()["state"]
        assert ended in ("cancelled", "completed")
        assert state(client, first, job)["state"] == ended


@pytest.mark.parametrize("back", [False, True], ids=["on", "back"])
def test_jobs_that_wait_are_taken_over(
    client: httpx2.Client, earlier: Path, redis_server: Any, start_predictor: Any, start_web: Any, back: bool
) -> None:
    """A whole deployment is replaced by the other version while its jobs wait for a model that cannot be reached."""
    before, after = ({}, {"folder": earlier}) if back else ({"folder": earlier}, {})
    predictor = start_predictor("--max-concurrency", "4", wait=False)
    leaving = start_web({"poet": "http://127.0.0.1:9"}, STORE_URL=redis_server.url, **before)
    jobs = [ask(client, leaving, number) for number in range(3)]
    predictor.wait_until_ready()
    leaving.stop()
    coming = start_web({"poet": predictor.url}, STORE_URL=redis_server.url, **after)

    for job in jobs:
        assert watched(client, coming, job)[-1][0] == "result"
