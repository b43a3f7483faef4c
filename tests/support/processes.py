"""What tests of processes share: the checkout that they start from, ports, and whether a process still runs."""

from __future__ import annotations

import os
import random
import re
import socket
import subprocess
from contextlib import suppress
from pathlib import Path

from tests.support.waiting import SECONDS, wait_until

ROOT = Path(__file__).parents[2]
"""The checkout."""


_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 8
_PORTS = range(12_000 + 2_500 * _WORKER, 12_000 + 2_500 * (_WORKER + 1))
_LEFT: list[int] = []


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nothing listens on, nor will before it is taken: it lies below those that the kernel
    gives away, no other worker of the tests has it, and this one has it again after all others only."""
    while True:
        if not _LEFT:
            _LEFT.extend(random.sample(_PORTS, len(_PORTS)))  # another run of the tests may go on beside this one
        port = _LEFT.pop()
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
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
