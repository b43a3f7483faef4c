"""The predictor as a process naps, gives its memory back, and answers as before; with the real small models."""

from __future__ import annotations

import re
import signal
from pathlib import Path
from typing import Any

import httpx2
import pytest

from predictor.loading.device_memory import proc_bytes
from tests.support.processes import ROOT, free_port

pytestmark = pytest.mark.slow

BODIES = {
    "poet": ("chat/completions", {"messages": [{"role": "user", "content": "春雨"}], "seed": 3, "max_tokens": 30}),
    "painter": ("images/generations", {"prompt": "fox", "seed": 3, "steps": 4, "response_format": "b64_json"}),
}
LEAST_BYTES = {"poet": 15 * 2**20, "painter": 30 * 2**20}
"""Of the weights and what is made of them: half of what was measured, as the system's counts move."""


def answer(url: str, name: str) -> dict[str, Any]:
    """What decides an answer's content, without its times and ids."""
    route, body = BODIES[name]
    found = httpx2.post(f"{url}/openai/v1/{route}", json={"model": name} | body, timeout=60).raise_for_status().json()
    return {key: found.get(key) for key in ("choices", "data", "system_fingerprint")}


@pytest.mark.parametrize("name", BODIES)
def test_a_nap_gives_the_memory_back_and_the_next_request_is_answered_as_before(
    start_predictor: Any, name: str
) -> None:
    port = free_port()
    flags = ("--model", str(ROOT / "models" / name), "--name", name, "--log-level", "info")
    predictor = start_predictor(*flags, "--admin-port", str(port), "--nap", "0.3")
    admin = f"http://127.0.0.1:{port}"
    predictor.wait_ready()
    status = Path(f"/proc/{predictor.process.pid}/status")

    def sleeps() -> bool:
        return bool(httpx2.get(f"{admin}/is_sleeping", timeout=60).json()["is_sleeping"])

    first, awake = answer(predictor.url, name), proc_bytes(status, "VmRSS")
    answers = []
    for _ in range(3):
        predictor.wait_for(sleeps, "a nap")
        asleep = proc_bytes(status, "VmRSS")
        assert awake is not None
        assert asleep is not None
        assert awake - asleep > LEAST_BYTES[name]
        assert predictor.status("/v2/health/ready") == 200
        answers.append(answer(predictor.url, name))

    assert answers == [first] * 3
    naps = re.findall(r"asleep at level 2 after|awake from level 2 after", predictor.log())
    assert len(naps) >= 6
    assert predictor.end(signal.SIGTERM) == 0
    assert "Traceback" not in predictor.log()


def test_a_process_that_sleeps_ends_when_it_is_told_to_and_when_it_is_idle(start_predictor: Any) -> None:
    port = free_port()
    predictor = start_predictor("--admin-port", str(port), "--nap", "0.1", "--idle-seconds", "2", "--log-level", "info")

    assert predictor.process.wait(120) == 0

    assert predictor.log().index("asleep at level 2") < predictor.log().index("leaving: nothing has come")


def test_a_port_that_is_taken_is_one_line(start_predictor: Any) -> None:
    first, port = free_port(), free_port()
    predictor = start_predictor("--admin-port", str(first))
    predictor.wait_ready()
    again = start_predictor("--admin-port", str(first), "--port", str(port))

    assert again.process.wait(60) == 1
    assert again.log().strip().splitlines()[-1] == f"predictor: port {first} on 127.0.0.1 is in use"
