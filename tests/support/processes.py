"""What tests of processes share: the checkout that they start from, ports, and whether a process still runs."""

from __future__ import annotations

import re
import socket
import subprocess
from contextlib import suppress
from pathlib import Path

from tests.support.waiting import SECONDS, wait_until

ROOT = Path(__file__).parents[2]
"""The checkout."""


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nothing listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def is_running(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    with suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def wait_until_gone(pid: int, seconds: float = SECONDS) -> None:
    """Wait until a process no longer runs, which need not be a child; fails after `seconds`."""
    wait_until(lambda: not is_running(pid), f"process {pid} has ended", seconds)


def listening(process: subprocess.Popen[str]) -> str:
    """The address of a `python -m web` that writes its log to a pipe, once it listens."""
    assert process.stderr
    for line in process.stderr:
        if match := re.search(r"listening on (\S+) port (\d+), serving poet at ", line):
            return f"http://{match[1]}:{match[2]}"
    raise AssertionError("it ended before it listened")
