"""scripts/run as a process, watched through its output."""

from __future__ import annotations

import os
import selectors
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DEADLINE = 180.0


class Run:
    """One `scripts/run`; `output` is what it has printed so far, stderr included."""

    def __init__(self, *flags: str, port: int | None = None) -> None:
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.output = ""
        self.process = subprocess.Popen(
            [ROOT / "scripts" / "run", "--port", str(self.port), *flags],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        assert self.process.stdout
        os.set_blocking(self.process.stdout.fileno(), False)

    def wait_for(self, text: str) -> None:
        """Read on until `text` has been printed."""
        self._read(lambda: text in self.output)
        assert text in self.output, self.output

    def wait_until_ready(self) -> None:
        self.wait_for("Ctrl-C stops it.")

    def wait(self) -> int:
        """Read on until it has ended; its exit status."""
        self._read(lambda: False)
        return self.process.wait(10)

    def children(self) -> dict[str, int]:
        """Process ids by module."""
        found = {}
        for line in subprocess.check_output(
            ["ps", "-o", "pid=,args=", "--ppid", str(self.process.pid)], text=True
        ).splitlines():
            pid, command = line.split(maxsplit=1)
            if " -m " in command:
                found[command.split(" -m ")[1].split()[0]] = int(pid)
        return found

    def _read(self, done: Callable[[], bool]) -> None:
        assert self.process.stdout
        deadline = time.monotonic() + DEADLINE
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            while not done():
                assert selector.select(deadline - time.monotonic()), f"no more output in time:\n{self.output}"
                chunk = os.read(self.process.stdout.fileno(), 65536)
                if not chunk:
                    return
                self.output += chunk.decode(errors="replace")

    def close(self) -> None:
        with suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        assert self.process.stdout
        self.process.stdout.close()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@pytest.fixture
def start() -> Iterator[Callable[..., Run]]:
    """Start any number of `scripts/run`; all are ended with the test."""
    runs: list[Run] = []

    def begin(*flags: str, port: int | None = None) -> Run:
        runs.append(Run(*flags, port=port))
        return runs[-1]

    yield begin
    for run in runs:
        run.close()


@pytest.fixture(scope="module")
def served() -> Iterator[Run]:
    """The poet, served to all tests of a module."""
    run = Run()
    try:
        run.wait_until_ready()
        yield run
    finally:
        run.close()


@pytest.fixture
def gone() -> Callable[[int], bool]:
    """Wait until a process has ended; False when it has not in time."""

    def ended(pid: int) -> bool:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            stat = Path(f"/proc/{pid}/stat")
            with suppress(FileNotFoundError, ProcessLookupError):
                if stat.read_text().rpartition(")")[2].split()[0] != "Z":
                    time.sleep(0.05)
                    continue
            return True
        return False

    return ended
