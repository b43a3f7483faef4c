"""The template of which predictors are forked. It is started once models are served, and again when it has ended.

Whatever is wrong with it, a model is started as without it.
"""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from predictor.imports.imported_modules import read_modules
from predictor.template.control import receive, send
from scripts.local.processes.child_process import spawn
from scripts.local.processes.forked_process import ForkedProcess
from scripts.local.processes.start_backoff import StartBackoff

STARTING_SECONDS = 120.0
"""Longest wait for the template to import everything."""

FORK_SECONDS = 5.0
"""Longest wait for a fork: it takes some milliseconds, and a fresh process is ready before this ends."""

State = Literal["off", "starting", "ready"]


class TemplateProcess:
    """`modules_files` are those in which predictors name what they have imported; `tokenizers` are folders of models
    whose tokenizers are loaded beforehand. Call `start` when `due`, and `read` when there is something on `control`;
    `on_close` is called with that before it is closed.
    """

    def __init__(
        self,
        modules_files: Sequence[Path],
        tokenizers: Sequence[str],
        on_close: Callable[[socket.socket], None] = lambda _: None,
    ) -> None:
        self.on_close = on_close
        self._files = modules_files
        self._tokenizers = tokenizers
        self._command = [sys.executable, "-m", "predictor.template"]
        self._backoff = StartBackoff(time.monotonic())
        self._child: subprocess.Popen[bytes] | None = None
        self._told: set[str] = set()
        self._starting_since = 0.0
        self._was_ready = False
        self.state: State = "off"
        self.why: str | None = None
        """Why the latest one has ended."""
        self.resident_bytes = 0
        self.control: socket.socket | None = None

    @property
    def given_up(self) -> bool:
        return self._backoff.exhausted

    @property
    def pids(self) -> list[int]:
        return [] if self._child is None else [self._child.pid]

    def due(self, now: float) -> bool:
        """Whether it is to be started; `now` is in seconds of time.monotonic."""
        return self.state == "off" and not self.given_up and now >= self._backoff.retry_at

    def overdue(self, now: float) -> bool:
        """Whether it has taken too long to become ready, and was ended."""
        if self.state != "starting" or now < self._starting_since + STARTING_SECONDS:
            return False
        self._end(f"it was not ready after {STARTING_SECONDS:g} s")
        return True

    def start(self) -> None:
        self._told, self._was_ready = set(), False
        try:
            self.control, inherited = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with inherited:
                self._child = spawn(self._command, {}, inherited)
        except (OSError, subprocess.SubprocessError) as error:  # no memory, process or descriptor is left
            self._end(f"it cannot be started: {error}")
            return
        self._prepare(self._tokenizers)

    def learn(self) -> None:
        """Have it import what predictors have imported since it was told."""
        if self.state == "ready" and self._modules() - self._told:
            self._prepare([])

    def read(self) -> bool:
        """Take in what it says; whether it has ended, or is ready for the first time."""
        assert self.control is not None
        try:
            answer, _ = receive(self.control)
        except (EOFError, OSError, ValueError):
            self._end("it has ended")
            return True
        self._take(answer)
        if self.state != "ready":
            return True
        learned, self._was_ready = self._was_ready, True
        return not learned

    def fork(
        self, name: str, arguments: Sequence[str], variables: Mapping[str, str], listener: socket.socket
    ) -> ForkedProcess | None:
        """A predictor of the model `name` that is told `arguments`; None where it is to be started afresh."""
        if self.state != "ready":
            return None
        try:
            consent, ours = os.pipe()
        except OSError:
            return None
        with open(ours, "wb", buffering=0) as given:  # closed without a byte, what was forked ends: nobody knows it
            answer = self._ask(
                {"name": name, "arguments": list(arguments), "variables": dict(variables)}, listener, consent
            )
            if "pid" not in answer:
                return None
            with suppress(OSError):  # it has ended already
                given.write(b"\n")
        self._backoff.succeeded()
        return ForkedProcess(answer["pid"])

    def _ask(self, order: Mapping[str, Any], listener: socket.socket, consent: int) -> Mapping[str, Any]:
        """The answer to an order to fork; empty where there is none."""
        assert self.control is not None
        try:
            try:
                send(self.control, dict(order), [listener.fileno(), consent])
            finally:
                os.close(consent)
            if not select.select([self.control], [], [], FORK_SECONDS)[0]:
                self._end(f"it has not answered for {FORK_SECONDS:g} s")
                return {}
            answer, _ = receive(self.control)
        except (EOFError, OSError, ValueError):
            self._end("it has ended")
            return {}
        self._take(answer)
        return answer

    def stop(self) -> None:
        """End it: it has nothing to finish."""
        self._close()

    def document(self) -> dict[str, Any]:
        """Its entry in the state file (see run_folder)."""
        return {"state": self.state, "resident_bytes": self.resident_bytes, "why": self.why}

    def _prepare(self, tokenizers: Sequence[str]) -> None:
        assert self.control is not None
        self._told = self._modules()
        self.state, self._starting_since = "starting", time.monotonic()
        try:
            send(self.control, {"modules": [str(file) for file in self._files], "tokenizers": list(tokenizers)})
        except OSError:
            self._end("it has ended")

    def _modules(self) -> set[str]:
        return {name for file in self._files for name in read_modules(file)}

    def _take(self, answer: Mapping[str, Any]) -> None:
        if "ready" in answer:
            self.state, self.why, self.resident_bytes = "ready", None, answer["ready"]
        elif "useless" in answer:
            self._end(answer["useless"])
            self._backoff.give_up()
        elif "refused" in answer:
            self._end(answer["refused"])

    def _end(self, why: str) -> None:
        self._close()
        self.why = why
        self._backoff.failed(time.monotonic())

    def _close(self) -> None:
        if self.control is not None:
            self.on_close(self.control)
            self.control.close()
        if self._child is not None:
            with suppress(ProcessLookupError):
                self._child.kill()
            self._child.wait()
        self.control = self._child = None
        self.state, self.resident_bytes = "off", 0
