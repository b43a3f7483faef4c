"""Other ways to a first token or picture than a start: a model of `scripts/run` that wakes up, one that naps, and one
that is restored. `wake` of each gives the seconds from the request, or from the exec of what restores."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import httpx2

from scripts.benchmarks.cold.floor import PROMPT
from scripts.benchmarks.servers import start_server
from scripts.benchmarks.wake.clients import Service
from scripts.local.run_folder import RunFolder
from scripts.loopback import HOST, free_port
from scripts.loopback_http import client
from scripts.project import ROOT
from scripts.snapshot import LocalSnapshot

IDLE_SECONDS = 1
READY_SECONDS = 300.0
POLL_SECONDS = 0.02

READY_PATH = "/v2/health/ready"


class SleepingModel:
    """`model` under a `scripts/run` of its own, with or without a `template`. It remembers in `cache`."""

    def __init__(self, model: Path, cache: Path, *, template: bool) -> None:
        port = free_port()
        self._service = Service(f"http://{HOST}:{port}", "m", "", {}, PROMPT)
        self._folder = RunFolder(port)
        flags = ["--port", str(port), "--model", f"m={model}", "--idle", str(IDLE_SECONDS)]
        flags += ["--template", "auto" if template else "off"]
        self._output = tempfile.TemporaryFile()  # noqa: SIM115  as long as the process
        self._process = subprocess.Popen(
            [sys.executable, "-m", "scripts.local", *flags],
            cwd=ROOT,
            env=os.environ | {"PREDICTOR_CACHE_FOLDER": str(cache)},
            stdout=self._output,
            stderr=subprocess.STDOUT,
        )
        self._wait(lambda state: not template or state["template"]["state"] == "ready")

    @property
    def template_bytes(self) -> int:
        """Resident memory of the template."""
        return int(self._state()["template"]["resident_bytes"])

    def wake(self) -> float:
        """Ask once it is asleep; seconds to the first token, or to the picture."""
        self._wait(lambda state: state["models"]["m"]["state"] == "asleep")
        time.sleep(0.5)  # what it held is given back by then
        answer = self._service.ask()
        if answer.failure:
            raise RuntimeError(f"{self._service.url}: {answer.failure}")
        return answer.first_s

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(60)
        self._output.close()

    def _wait(self, holds: Callable[[dict[str, Any]], bool]) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                self._output.seek(0)
                raise RuntimeError(f"scripts/run has ended:\n{self._output.read().decode()}")
            with suppress(RuntimeError, KeyError, TypeError):
                state = self._state()
                if state["models"]["m"]["wake_seconds"] and holds(state):
                    return
            time.sleep(POLL_SECONDS)
        raise RuntimeError(f"scripts/run is not as far after {READY_SECONDS:g} s: {self._folder.read()}")

    def _state(self) -> dict[str, Any]:
        state = self._folder.read()
        if state is None:
            raise RuntimeError("scripts/run does not run yet")
        return state


class NappingModel:
    """`model` in a predictor that stays, and has dropped the weights (level 2). It remembers in `cache`."""

    def __init__(self, model: Path, cache: Path) -> None:
        self._admin = free_port()
        flags = ["--model", str(model), "--name", "m", "--quiet-seconds", "0"]
        flags += ["--admin-port", str(self._admin), "--cache-folder", str(cache)]
        self._running = ExitStack()
        server = self._running.enter_context(start_server("predictor", flags, READY_PATH))
        self._port = int(server.url.rpartition(":")[2])

    def wake(self, ask: Callable[[int], None]) -> float:
        with client() as http:
            http.post(f"http://{HOST}:{self._admin}/sleep?level=2").raise_for_status()
        begun = time.monotonic()
        ask(self._port)
        return time.monotonic() - begun

    def stop(self) -> None:
        self._running.close()


class RestoredModel:
    """`model` in a snapshot that is made here."""

    def __init__(self, model: Path, folder: Path) -> None:
        self._snapshot = LocalSnapshot(model, folder)

    def wake(self, ask: Callable[[int], None]) -> float:
        port = free_port()
        flags = ["--name", "m", "--host", HOST, "--port", str(port), "--quiet-seconds", "0"]
        begun = time.monotonic()
        process = subprocess.Popen(
            self._snapshot.command(*flags),
            cwd=ROOT,
            env=os.environ | self._snapshot.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            wait_until_ready(port, process)
            ask(port)
            return time.monotonic() - begun
        finally:
            process.terminate()
            process.wait(60)


def wait_until_ready(port: int, process: subprocess.Popen[bytes]) -> None:
    """Until a predictor of the model m is ready. Raises a RuntimeError when it ends, or takes too long."""
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"{process.args!r} has ended with {process.returncode}")
        with suppress(httpx2.TransportError), client() as http:
            if http.get(f"http://{HOST}:{port}{READY_PATH}").is_success:
                return
        time.sleep(POLL_SECONDS / 4)
    raise RuntimeError(f"{process.args!r} is not ready after {READY_SECONDS:g} s")
