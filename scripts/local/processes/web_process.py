"""web as a process: it is asked whether it answers, because it reports nothing by itself, and is started again.

Its metrics are on a port of their own: METRICS_PORT, or else one that is free when it is started.
"""

from __future__ import annotations

import http.client
import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from typing import Any

from scripts.local.processes.child_process import spawn
from scripts.local.processes.start_backoff import StartBackoff
from scripts.loopback import HOST, free_port

ANSWER_SECONDS = 1.0
"""Longest wait for its answer."""


class WebProcess:
    """The process of `command`, while one runs. Times are seconds of time.monotonic."""

    def __init__(self, command: Sequence[str], variables: Mapping[str, str], port: int) -> None:
        self._command = command
        self._variables = variables
        self._port = port
        self._metrics_port = ""
        self._backoff = StartBackoff(time.monotonic())
        self.child: subprocess.Popen[bytes] | None = None
        self.answers = False
        """Whether the process that runs has answered."""

    @property
    def retry_at(self) -> float:
        """It is not to be started before."""
        return self._backoff.retry_at

    def start(self) -> None:
        self._metrics_port = os.environ.get("METRICS_PORT") or str(free_port())
        self.child = spawn(self._command, {**self._variables, "METRICS_PORT": self._metrics_port})

    def document(self) -> dict[str, Any]:
        """Its part of the state file (see run_folder)."""
        served = self._metrics_port not in ("", "0")
        return {
            "port": self._port,
            "metrics_url": f"http://{HOST}:{self._metrics_port}/metrics" if served else None,
        }

    def exit_status(self, now: float) -> int | None:
        """Of a process that has ended since the last call, else None. After it, a start is to wait until `retry_at`."""
        if self.child is None or self.child.poll() is None:
            return None
        status, self.child = self.child.returncode, None
        self.answers = False
        self._backoff.failed(now)
        return status

    def ask(self) -> bool:
        """Whether it answers now; it is not to be asked again then."""
        client = http.client.HTTPConnection(HOST, self._port, timeout=ANSWER_SECONDS)
        try:
            client.request("GET", "/readyz")
            self.answers = client.getresponse().status == http.client.OK
        except (OSError, http.client.HTTPException):
            pass
        finally:
            client.close()
        if self.answers:
            self._backoff.succeeded()
        return self.answers
