"""scripts/run with a template: a model that wakes up is forked from it, and is what a fresh one would be."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx2
import pytest

from scripts.local.run_folder import RunFolder
from tests.support.processes import ROOT, wait_until_gone
from tests.support.run import Run, Start
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="templates are for Linux")]

POET = str(ROOT / "models" / "poet")
READY = re.compile(r"template: ready, \d+ MiB of memory; models wake up from it")
DEADLINE = 120.0


def state(run: Run) -> dict[str, Any]:
    found = RunFolder(run.port).read()
    assert found is not None
    return found


def template(run: Run) -> int:
    return run.children()["predictor.template"]


def command_of(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()


def wait_until_asleep(run: Run) -> None:
    wait_until(lambda: state(run)["models"]["poet"]["state"] == "asleep", run.output)


def write(run: Run, **more: Any) -> httpx2.Response:
    return httpx2.post(
        f"{run.url}/generate", json={"prompt": "春雨", "max_tokens": 5, "seed": 1, **more}, timeout=DEADLINE
    )


@pytest.fixture
def run(start: Start) -> Run:
    """The poet, which is asleep, and a template that is ready."""
    run = start("--model", POET, "--idle", "1", "--template", "auto")
    run.wait_until_ready()
    assert write(run).json()["text"] == write(run, seed=1).json()["text"]
    run.wait_for("template: ready")
    assert READY.search(run.output)
    wait_until_asleep(run)
    return run


def test_a_model_wakes_up_from_the_template_and_writes_the_same(start: Start, run: Run) -> None:
    fresh = start("--model", POET)
    fresh.wait_until_ready()
    wanted = write(fresh)

    answer = write(run)

    assert answer.json()["text"] == wanted.json()["text"]
    assert answer.json()["system_fingerprint"] == wanted.json()["system_fingerprint"]
    forked = state(run)["models"]["poet"]["pid"]
    assert "predictor.template" in command_of(forked), "it was not started afresh"
    assert Path(f"/proc/{forked}/comm").read_text() == "poet\n"
    status = subprocess.run(
        [str(ROOT / "scripts" / "run"), "--status", "--port", str(run.port)], capture_output=True, text=True, check=True
    ).stdout
    assert re.search(r"^template: ready; \d+ MiB of memory$", status, re.MULTILINE)


def test_what_is_forked_ends_in_order_with_the_run(run: Run) -> None:
    children = set(run.children().values())  # web and the template
    with httpx2.stream("POST", f"{run.url}/generate", json={"prompt": "长江", "stream": True}, timeout=60) as response:
        lines = response.iter_lines()
        assert next(line for line in lines if line.startswith("event: token"))
        forked = state(run)["models"]["poet"]["pid"]
        children.add(forked)
        run.process.send_signal(signal.SIGTERM)
        rest = list(lines)
    assert "event: result" in rest
    assert run.wait() == 0
    for pid in children:
        wait_until_gone(pid)
    assert "Traceback" not in run.output


def test_nothing_is_left_when_the_run_is_killed(run: Run) -> None:
    children = set(run.children().values())  # web and the template
    assert len(children) == 2
    assert write(run).status_code == 200
    children.add(state(run)["models"]["poet"]["pid"])
    run.process.kill()
    for pid in children:
        wait_until_gone(pid)


def test_a_fork_that_is_killed_is_noticed_and_the_next_request_is_served(run: Run) -> None:
    first = write(run)
    os.kill(state(run)["models"]["poet"]["pid"], signal.SIGKILL)
    assert write(run).json()["text"] == first.json()["text"]
    run.wait_for("its predictor was ended by SIGKILL")


def test_without_its_template_a_model_starts_afresh_and_the_template_again(run: Run) -> None:
    os.kill(template(run), signal.SIGKILL)
    assert write(run).status_code == 200
    run.wait_for("template: it has ended; it is started again")
    wait_until_asleep(run)
    wait_until(lambda: state(run)["template"]["state"] == "ready", run.output)
    assert write(run).status_code == 200
    assert "predictor.template" in command_of(state(run)["models"]["poet"]["pid"])


@pytest.mark.parametrize(("model", "template"), [(f"poet={POET},lean-imports=false", "auto"), (POET, "off")])
def test_a_model_that_is_not_to_be_forked_starts_afresh(start: Start, model: str, template: str) -> None:
    run = start("--model", model, "--template", template, "--idle", "1")
    run.wait_until_ready()
    wait_until_asleep(run)
    assert write(run).status_code == 200
    assert " -m predictor " in command_of(state(run)["models"]["poet"]["pid"])
    assert set(run.children()) == {"web", "predictor"}
    assert state(run)["template"] is None
