"""The supervisor with stubs for predictors, as a process."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx2
import pytest

from scripts.local.run_folder import RunFolder
from tests.support.processes import ROOT, free_port
from tests.support.waiting import SECONDS, wait_until

HERE = Path(__file__).resolve().parent

CHAT = "/openai/v1/chat/completions"


class StubRun:
    """One `stub_run.py` that has started; its stub predictors behave as the files in `behaviours` say."""

    def __init__(self, folder: Path, *flags: str, launcher: Sequence[str] = ()) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.behaviours = folder
        self.output = folder / "output"
        command = [*launcher, sys.executable, str(HERE / "stub_run.py"), *flags]
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
        """Until something holds; fails with all that was printed after a while, or when the run has ended."""
        try:
            wait_until(lambda: holds() or self.process.poll() is not None)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.printed}\n{self.state()}") from None
        assert self.process.poll() is None, self.printed

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

    def ask(self, prompt: str = "0 moon", name: str = "stub-0") -> httpx2.Response:
        """Ask the predictor, not web."""
        body = {"model": name, "messages": [{"role": "user", "content": prompt}]}
        return httpx2.post(self.state(name)["url"] + CHAT, json=body, timeout=SECONDS)

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

    def web(self) -> int:
        """The process id of web."""
        [pid] = [pid for pid, command in self.children().items() if " -m web " in command]
        return pid

    def starts(self, name: str = "stub-0") -> int:
        """How often its predictor has been started."""
        return len(re.findall(rf"{name}: (?:starting|waking)$", self.printed, re.MULTILINE))

    def end(self) -> int:
        with suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., StubRun]]:
    """Start a supervisor that does not outlive the test. It is up, with all stubs ready once, unless `wait=False`."""
    runs: list[StubRun] = []

    def begin(*flags: str, idle: float = 0.3, wait: bool = True, launcher: Sequence[str] = ()) -> StubRun:
        folder = tmp_path / str(len(runs))
        folder.mkdir()
        run = StubRun(folder, "--idle", str(idle), *flags, launcher=launcher)
        runs.append(run)
        if wait:
            run.wait_until_up()
        return run

    yield begin
    for run in runs:
        run.end()
        assert "Traceback" not in run.printed, run.printed
