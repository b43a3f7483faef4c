"""scripts/run with the poet that falls asleep: what is given back, what wakes it, what is said of it."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest

from tests.support.processes import ROOT, wait_until_gone
from tests.support.run import Run, Start
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")]

POET = ROOT / "models" / "poet"
ASLEEP_BYTES = 150_000_000
DEADLINE = 120.0


def status(run: Run) -> str:
    """What scripts/run --status says."""
    command = [str(ROOT / "scripts" / "run"), "--status", "--port", str(run.port)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def resident_bytes(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def write(run: Run) -> httpx2.Response:
    return httpx2.post(f"{run.url}/generate", json={"prompt": "春雨", "max_tokens": 5, "seed": 1}, timeout=DEADLINE)


def test_a_model_that_nobody_asks_gives_its_memory_back_and_the_next_request_wakes_it(start: Start) -> None:
    run = start("--model", str(POET), "--idle", "2")
    run.wait_until_ready()
    first = write(run)
    assert first.status_code == 200
    assert run.output.splitlines()[0] == "models fall asleep after 2 s without a request (--idle 0: never)"
    awake = run.children()["predictor"]
    assert re.fullmatch(r"poet: ready since [\d:]+, \d+ s\n", status(run))

    run.wait_for("poet: asleep")

    wait_until_gone(awake)
    assert set(run.children()) == {"web"}
    assert resident_bytes(run.process.pid) + resident_bytes(run.children()["web"]) < ASLEEP_BYTES
    assert re.fullmatch(r"poet: asleep since [\d:]+, \d+ s; wakes up in [\d.]+ s\n", status(run))
    assert httpx2.get(f"{run.url}/healthz", timeout=60).status_code == 200
    assert set(run.children()) == {"web"}  # that has woken nobody

    again = write(run)

    assert again.json()["text"] == first.json()["text"]
    run.wait_for("poet: ready after")
    woken = run.children()
    run.process.send_signal(signal.SIGTERM)
    assert run.wait() == 0
    for pid in woken.values():
        wait_until_gone(pid)


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
    wait_until(lambda: "a request starts it again" not in status(run), "it may be started again", pause=0.1)
    assert write(run).status_code == 200


def test_a_predictor_that_is_killed_is_replaced(start: Start) -> None:
    run = start("--model", str(POET))
    run.wait_until_ready()
    victim = run.children()["predictor"]
    os.kill(victim, signal.SIGKILL)
    wait_until_gone(victim)
    assert write(run).status_code == 200
    run.wait_for("poet: asleep: its predictor was ended by SIGKILL")
    assert run.children()["predictor"] != victim


@pytest.mark.parametrize("cycles", [2, pytest.param(20, marks=pytest.mark.nightly)])
def test_nothing_is_lost_in_some_cycles_of_the_hammer_on_the_poet(cycles: int) -> None:
    command = [str(ROOT / "scripts" / "hammer"), "--poet", "--cycles", str(cycles), "--idle", "1"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert ended.returncode == 0, ended.stdout + ended.stderr


@pytest.mark.parametrize("cycles", [5, pytest.param(50, marks=pytest.mark.nightly)])
def test_nothing_is_lost_in_some_naps_of_the_hammer(cycles: int) -> None:
    command = [str(ROOT / "scripts" / "hammer"), "--nap", "0.2", "--cycles", str(cycles)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_a_supervisor_that_is_killed_leaves_no_orphan_and_no_hindrance_to_the_next(start: Start) -> None:
    run = start("--model", str(POET))
    run.wait_until_ready()
    children = run.children()
    run.process.kill()
    for pid in children.values():
        wait_until_gone(pid)
    command = [str(ROOT / "scripts" / "run"), "--status", "--port", str(run.port)]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr == f"scripts/run: nothing runs on port {run.port} that scripts/run has started\n"
    again = start("--model", str(POET), port=run.port)
    again.wait_until_ready()
    assert json.loads(write(again).text)["model"] == "poet"
