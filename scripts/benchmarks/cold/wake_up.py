"""Wake-ups of `scripts/run`: from a request through web to a model that is asleep, to its first token or picture."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from scripts.benchmarks.cold.floor import PROMPT
from scripts.local.run_folder import RunFolder
from scripts.loopback import HOST, free_port
from scripts.loopback_http import client
from scripts.project import ROOT

IDLE_SECONDS = 1
READY_SECONDS = 300.0
POLL_SECONDS = 0.02


class SleepingModel:
    """`model` under a `scripts/run` of its own, with or without a `template`. It remembers in `cache`."""

    def __init__(self, model: Path, cache: Path, *, template: bool) -> None:
        port = free_port()
        self._url = f"http://{HOST}:{port}/generate"
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

    def wake(self, **body: Any) -> float:
        """Ask once it is asleep; seconds to the first token, or to the picture."""
        self._wait(lambda state: state["models"]["m"]["state"] == "asleep")
        time.sleep(0.5)  # what it held is given back by then
        begun = time.monotonic()
        headers = {"Accept": "text/event-stream"}
        with (
            client() as http,
            http.stream("POST", self._url, json={"prompt": PROMPT, **body}, headers=headers) as stream,
        ):
            for line in stream.iter_lines():
                if line in ("event: token", "event: result"):
                    seconds = time.monotonic() - begun
                    break
            else:
                raise RuntimeError(f"{self._url} has answered without a token or a result")
        return seconds

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
