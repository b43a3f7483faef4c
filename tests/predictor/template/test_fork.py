"""A fork of the template is a process of the supervisor, told what a fresh one would be."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.processes import ROOT, wait_until_gone
from tests.support.waiting import SECONDS

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="templates are for Linux")

SCRIPT = Path(__file__).with_name("forking.py")


class Forking:
    """`forking.py` with these arguments, and the lines that it and its fork print."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(SCRIPT), *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )

    def finish(self) -> list[str]:
        out, self.errors = self.process.communicate(timeout=SECONDS)
        return out.splitlines()


@pytest.fixture
def waiting() -> Iterator[Forking]:
    """A fork that goes on until its parent dies."""
    forking = Forking("wait")
    yield forking
    forking.process.kill()
    forking.process.communicate()


def test_it_has_its_own_arguments_variables_listener_session_and_signals() -> None:
    forking = Forking("exit", "7")
    lines = forking.finish()
    told, found = sorted((json.loads(line) for line in lines[:2]), key=len)
    assert found == {
        "argv": ["predictor", "exit", "7"],
        "variable": "yes",
        "listen_pid": True,
        "port": told["port"],
        "parent": forking.process.pid,
        "leads_session": True,
        "name": "noodles",
        "sigterm": True,
    }
    assert lines[2:] == ["7"], "its exit status"


@pytest.mark.parametrize(("arguments", "status"), [(("exit", "0"), "0"), (("raise",), "1"), (("kill",), "-15")])
def test_the_supervisor_learns_how_it_ended(arguments: tuple[str, ...], status: str) -> None:
    forking = Forking(*arguments)
    assert forking.finish()[-1] == status
    assert ("RuntimeError: as ordered" in forking.errors) == (arguments[0] == "raise")


def test_without_consent_it_does_nothing() -> None:
    told, *more = Forking("dissent").finish()
    assert "pid" in json.loads(told)
    assert more == ["0"], "its exit status"


def test_it_ends_with_the_supervisor(waiting: Forking) -> None:
    assert waiting.process.stdout
    lines = [json.loads(waiting.process.stdout.readline()) for _ in range(2)]
    [pid] = [line["pid"] for line in lines if "pid" in line]
    waiting.process.send_signal(signal.SIGKILL)
    wait_until_gone(pid)


def test_a_process_of_several_threads_is_not_forked() -> None:
    forking = Forking("threads")
    assert forking.finish() == ["refused: 2 threads run, and a fork would have one of them"]
    assert forking.process.returncode == 3
