"""The supervisor with stubs for predictors, as a process."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from scripts.local.run_folder import RunFolder

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]


DEADLINE = 60.0
"""Longest that a test waits for anything: a hang, not a measure of speed."""

CHAT = "/openai/v1/chat/completions"


class StubRun:
    """One `stub_run.py` that has started; its stub predictors behave as the files in `behaviours` say."""

    def __init__(self, folder: Path, *flags: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port: int = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.behaviours = folder
        self.output = folder / "output"
        command = [sys.executable, str(HERE / "stub_run.py"), *flags]
        command += ["--port", str(self.port), "--behaviours", str(folder)]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        with self.output.open("wb") as out:
            self.process = subprocess.Popen(command, stdout=out, stderr=out, env=environment, cwd=ROOT)

    @property
    def printed(self) -> str:
        return self.output.read_text()

    def state(self, name: str = "stub-0") -> dict[str, Any]:
        """Of a model, from the state file; {"state": "unknown"} while there is none."""
        written = RunFolder(self.port).read()
        model: dict[str, Any] = written["models"][name] if written else {"state": "unknown"}
        return model

    def wait(self, holds: Callable[[], object]) -> None:
        deadline = time.monotonic() + DEADLINE
        while not holds():
            assert time.monotonic() < deadline, f"{self.printed}\n{self.state()}"
            assert self.process.poll() is None, self.printed
            time.sleep(0.01)

    def wait_until_up(self) -> None:
        """Until web and all models have been ready once."""
        self.wait(lambda: "all are up" in self.printed)

    def wait_for(self, state: str, name: str = "stub-0") -> None:
        self.wait(lambda: self.state(name)["state"] == state)

    def behave(self, text: str, name: str = "stub-0") -> None:
        """What predictors that start from now on do, see stub_predictor."""
        (self.behaviours / name).write_text(text)

    def behave_normally(self, name: str = "stub-0") -> None:
        (self.behaviours / name).unlink()

    def ask(self, prompt: str = "0 moon", name: str = "stub-0") -> httpx.Response:
        """Ask the predictor, not web."""
        body = {"model": name, "messages": [{"role": "user", "content": prompt}]}
        return httpx.post(self.state(name)["url"] + CHAT, json=body, timeout=DEADLINE)

    def children(self) -> dict[int, str]:
        """Commands by process id."""
        rows = subprocess.run(
            ["ps", "-ww", "-o", "pid=,args=", "--ppid", str(self.process.pid)], capture_output=True, text=True
        ).stdout.splitlines()
        return {int(row.split()[0]): row.split(maxsplit=1)[1] for row in rows if "defunct" not in row}

    def predictor(self) -> int:
        """The process id of the only one."""
        [pid] = [pid for pid, command in self.children().items() if "stub_predictor" in command]
        return pid

    def starts(self, name: str = "stub-0") -> int:
        """How often its predictor has been started."""
        return len(re.findall(rf"{name}: (?:starting|waking)$", self.printed, re.MULTILINE))

    def end(self) -> int:
        with suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., StubRun]]:
    """Start a supervisor that does not outlive the test. It is up, with all stubs ready once, unless `wait=False`."""
    runs: list[StubRun] = []

    def begin(*flags: str, idle: float = 0.3, wait: bool = True) -> StubRun:
        folder = tmp_path / str(len(runs))
        folder.mkdir()
        run = StubRun(folder, "--idle", str(idle), *flags)
        runs.append(run)
        if wait:
            run.wait_until_up()
        return run

    yield begin
    for run in runs:
        run.end()
        assert "Traceback" not in run.printed, run.printed


def alive(pid: int) -> bool:
    """Whether a process runs; one that is only waited for does not."""
    with suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


@pytest.fixture
def gone() -> Callable[[int], bool]:
    """Wait until a process has ended; False when it has not in time."""

    def ended(pid: int) -> bool:
        deadline = time.monotonic() + DEADLINE
        while alive(pid):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.01)
        return True

    return ended
