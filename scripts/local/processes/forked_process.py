"""A process that the template has forked: a child of ours, as subprocess would have made one."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress

POLL_SECONDS = 0.01


class ForkedProcess:
    """Of this pid. Has what a subprocess.Popen has, as far as the supervisor uses it."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        """As subprocess gives it: negative for a signal."""

    def poll(self) -> int | None:
        """Its exit status, once it has ended."""
        if self.returncode is None:
            try:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
            except ChildProcessError:  # nobody knows how it ended
                self.returncode = -signal.SIGKILL
            else:
                if pid:
                    self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self) -> int:
        while (status := self.poll()) is None:
            time.sleep(POLL_SECONDS)
        return status

    def terminate(self) -> None:
        self._send(signal.SIGTERM)

    def kill(self) -> None:
        self._send(signal.SIGKILL)

    def _send(self, number: int) -> None:
        if self.poll() is None:  # the pid is no other process's before it has been waited for
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)
