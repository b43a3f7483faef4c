"""scripts/run with the poet that falls asleep: what is given back, what wakes it, what is said of it."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")]

ROOT = Path(__file__).parents[2]
POET = ROOT / "models" / "poet"
ASLEEP_BYTES = 150_000_000
DEADLINE = 120.0

Start = Callable[..., Any]
Gone = Callable[[int], bool]


def status(run: Any) -> str:
    """What scripts/run --status says."""
    command = [str(ROOT / "scripts" / "run"), "--status", "--port", str(run.port)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def resident_bytes(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def write(run: Any) -> httpx.Response:
    return httpx.post(f"{run.url}/generate", json={"prompt": "春雨", "max_tokens": 5, "seed": 1}, timeout=DEADLINE)


def wait_for_retry(run: Any) -> None:
    """Until a request starts the model again."""
    deadline = time.monotonic() + DEADLINE
    while "a request starts it again" in status(run):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_model_that_nobody_asks_gives_its_memory_back_and_the_next_request_wakes_it(start: Start, gone: Gone) -> None:
    run = start("--model", str(POET), "--idle", "2")
    run.wait_until_ready()
    first = write(run)
    assert first.status_code == 200
    assert run.output.splitlines()[0] == "models fall asleep after 2 s without a request (--idle 0: never)"
    awake = run.children()["predictor"]
    assert re.fullmatch(r"poet: ready since [\d:]+, \d+ s\n", status(run))

    run.wait_for("poet: asleep")

    assert gone(awake)
    assert set(run.children()) == {"web"}
    assert resident_bytes(run.process.pid) + resident_bytes(run.children()["web"]) < ASLEEP_BYTES
    assert re.fullmatch(r"poet: asleep since [\d:]+, \d+ s; wakes up in [\d.]+ s\n", status(run))
    assert httpx.get(f"{run.url}/healthz", timeout=60).status_code == 200
    assert set(run.children()) == {"web"}  # that has woken nobody

    again = write(run)

    assert again.json()["text"] == first.json()["text"]
    run.wait_for("poet: ready after")
    woken = run.children()
    run.process.send_signal(signal.SIGTERM)
    assert run.wait() == 0
    assert all(gone(pid) for pid in woken.values())


def test_a_model_whose_folder_is_gone_when_it_is_to_wake_is_told_so_and_recovers(start: Start, tmp_path: Path) -> None:
    folder = tmp_path / "poet"
    shutil.copytree(POET, folder)
    run = start("--model", str(folder), "--idle", "1")
    run.wait_for("poet: asleep")
    folder.rename(tmp_path / "away")

    answer = write(run)

    assert answer.status_code == 503
    assert "retry-after" in answer.headers
    assert answer.json()["detail"] == f"Model poet cannot be started: there is no folder {folder}"
    assert re.match(rf"poet: failed since [\d:]+, \d+ s; there is no folder {folder}; a request starts it", status(run))

    (tmp_path / "away").rename(folder)
    wait_for_retry(run)
    assert write(run).status_code == 200


def test_a_predictor_that_is_killed_is_replaced(start: Start, gone: Gone) -> None:
    run = start("--model", str(POET))
    run.wait_until_ready()
    victim = run.children()["predictor"]
    os.kill(victim, signal.SIGKILL)
    assert gone(victim)
    assert write(run).status_code == 200
    run.wait_for("poet: asleep: its predictor was ended by SIGKILL")
    assert run.children()["predictor"] != victim


def test_a_second_run_on_the_same_port_is_told_who_has_it(start: Start) -> None:
    run = start("--model", str(POET))
    run.wait_until_ready()
    second = start("--model", str(POET), port=run.port)
    assert second.wait() == 1
    by = f"another scripts/run (process {run.process.pid}), which serves poet"
    assert second.output == f"scripts/run: port {run.port} on 127.0.0.1 is in use by {by}\n"
    assert write(run).status_code == 200  # as if nothing had been


def test_nothing_is_lost_in_some_cycles_of_the_hammer_on_the_poet() -> None:
    command = [str(ROOT / "scripts" / "hammer"), "--poet", "--cycles", "3", "--idle", "1"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_the_status_of_a_run_that_was_killed_is_that_there_is_none(start: Start, gone: Gone) -> None:
    run = start("--model", str(POET))
    run.wait_until_ready()
    children = run.children()
    run.process.kill()
    assert all(gone(pid) for pid in children.values())
    command = [str(ROOT / "scripts" / "run"), "--status", "--port", str(run.port)]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr == f"scripts/run: nothing runs on port {run.port} that scripts/run has started\n"
    # And it is no hindrance to the next.
    again = start("--model", str(POET), port=run.port)
    again.wait_until_ready()
    assert json.loads(write(again).text)["model"] == "poet"
