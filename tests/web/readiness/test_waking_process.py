"""A real predictor that is loading, behind a real web."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import httpx2
import pytest

from tests.support.processes import ROOT, free_port
from tests.support.waiting import wait_until

LIMIT = 120.0

Start = Callable[..., "subprocess.Popen[str]"]
Events = Callable[[str], list[tuple[str, Any]]]


@pytest.fixture
def start() -> Iterator[Start]:
    processes: list[subprocess.Popen[str]] = []

    def run(*arguments: str, **variables: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", *arguments, "--host", "127.0.0.1"]
        environment = {**os.environ, **variables}
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)
        processes.append(process)
        return process

    yield run
    for process in processes:
        process.kill()
        process.communicate()


@pytest.mark.slow
def test_everybody_waits_for_a_model_that_is_loading(start: Start, events: Events) -> None:
    port = free_port()
    web = start("web", "--port", "0", MODELS=json.dumps({"poet": f"http://127.0.0.1:{port}"}))
    assert web.stderr is not None
    listening = next(found for line in web.stderr if (found := re.search(r"listening on \S+ port (\d+)", line)))
    with httpx2.Client(base_url=f"http://127.0.0.1:{listening[1]}", timeout=LIMIT, trust_env=False) as client:
        request = {"prompt": "春雨", "max_tokens": 8, "seed": 1}
        assert client.post("/generate", json=request).status_code == 503  # there is no predictor
        start("predictor", "--model", "models/poet", "--port", str(port), "--log-level", "warning")
        wait_until(lambda: client.post("/warm").status_code != 503, "the predictor listens", LIMIT)
        answer = client.post("/warm")
        assert (answer.status_code, answer.json()["state"]) == (202, "waking")
        live = events(client.post("/generate", json={**request, "stream": True}).text)
        statuses = [data for name, data in live if name == "status"]
        assert {status["state"] for status in statuses} >= {"waking", "running"}
        assert any("phase" in status for status in statuses)
        assert live[-1][0] == "result"
        assert client.post("/generate", json=request).json()["text"] == live[-1][1]["text"]
        [status] = client.get("/status").json()["models"]
        assert status["state"] == "ready"
        assert status["expected_seconds"] > 0.5
        assert client.post("/warm").status_code == 200
