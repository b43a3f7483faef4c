"""One model under the supervisor: its sockets, and its process while one runs."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from contract import Kind, ProblemError, problems
from scripts.local.child_process import spawn
from scripts.local.model_process import ModelProcess

NOTICE_BYTES = 4096


@dataclass
class ServedModel:
    """A model that is started with `command`, listens on `listener` and reports to `notices` as to systemd."""

    name: str
    kind: Kind
    listener: socket.socket
    notices: socket.socket
    command: Sequence[str]
    variables: Mapping[str, str] = field(default_factory=dict)
    """More of them for its environment."""
    process: ModelProcess = field(default_factory=lambda: ModelProcess(time.monotonic()))
    child: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        host, port = self.listener.getsockname()
        return f"http://{host}:{port}"

    @property
    def problem(self) -> ProblemError:
        """What clients are told while it cannot be started."""
        retry_after = self.process.retry_at - time.monotonic()
        detail = f"Model {self.name} cannot be started: {self.process.failure}"
        return ProblemError(problems.UNAVAILABLE, detail, retry_after=retry_after, phase="failed")

    def start(self) -> None:
        variables = {**self.variables, "NOTIFY_SOCKET": self.notices.getsockname()}
        self.child = spawn(self.command, variables, self.listener)
        self.process.started(time.monotonic())

    def read_notices(self) -> Iterator[None]:
        """Take in what the process has reported; yields after each notice that changed its state or phase."""
        with suppress(BlockingIOError):
            while True:
                lines = self.notices.recv(NOTICE_BYTES).decode(errors="replace").splitlines()
                before = self.process.state, self.process.phase
                self.process.notified(dict(line.split("=", 1) for line in lines if "=" in line), time.monotonic())
                if (self.process.state, self.process.phase) != before:
                    yield

    def exit_status(self) -> int | None:
        """Of a process that has ended since the last call, else None. One that takes too long to end is killed."""
        if self.child is None:
            return None
        if self.process.overdue(time.monotonic()):
            self.child.kill()
        if self.child.poll() is None:
            return None
        status, self.child = self.child.returncode, None
        return status

    def document(self, epoch: float) -> dict[str, Any]:
        """Its entry in the state file (see run_folder); `epoch` is time.time() less time.monotonic()."""
        process = self.process
        waits = not process.running and process.retry_at > time.monotonic()
        return {
            "kind": self.kind,
            "url": self.url,
            "state": process.state,
            "since": round(process.since + epoch, 3),
            "phase": process.phase,
            "why": process.failure,
            "retry_at": round(process.retry_at + epoch, 3) if waits else None,
            "wake_seconds": list(process.wake_seconds),
        }
