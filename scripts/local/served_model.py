"""One model under the supervisor: its sockets, and its process while one runs."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from contract import Kind, ProblemError, problems
from scripts.local.processes.child_process import ChildProcess, spawn
from scripts.local.processes.model_process import ModelProcess
from scripts.local.processes.template_process import TemplateProcess

NOTICE_BYTES = 4096


@dataclass
class ServedModel:
    """A model that is started with `command`, listens on `listener` and reports to `notices` as to systemd.

    A fork of the template is told `arguments` in the place of the command; None where it is always started afresh.
    """

    name: str
    kind: Kind
    listener: socket.socket
    notices: socket.socket
    command: Sequence[str]
    variables: Mapping[str, str] = field(default_factory=dict)
    """More of them for its environment."""
    arguments: Sequence[str] | None = None
    begins_asleep: bool = False
    """It is not started before it is asked for: the others are served whatever is wrong with it."""
    process: ModelProcess = field(default_factory=lambda: ModelProcess(time.monotonic()))
    child: ChildProcess | None = None

    @property
    def url(self) -> str:
        host, port = self.listener.getsockname()
        return f"http://{host}:{port}"

    @property
    def awaited(self) -> bool:
        """Whether nothing counts as served before it has been ready for the first time."""
        return not (self.begins_asleep or self.process.wake_seconds)

    @property
    def problem(self) -> ProblemError:
        """What clients are told while it cannot be started."""
        retry_after = self.process.retry_at - time.monotonic()
        detail = f"Model {self.name} cannot be started: {self.process.failure}"
        return ProblemError(problems.UNAVAILABLE, detail, retry_after=retry_after, phase="failed")

    def start(self, template: TemplateProcess | None = None) -> None:
        variables = {**self.variables, "NOTIFY_SOCKET": self.notices.getsockname()}
        self.child = None
        if template is not None and self.arguments is not None:
            self.child = template.fork(self.name, self.arguments, variables, self.listener)
        self.child = self.child or spawn(self.command, variables, self.listener)
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
            "pid": None if self.child is None else self.child.pid,
            "state": process.state,
            "since": round(process.since + epoch, 3),
            "phase": process.phase,
            "why": process.failure,
            "retry_at": round(process.retry_at + epoch, 3) if waits else None,
            "slots": process.slots,
            "wake_seconds": list(process.wake_seconds),
        }
