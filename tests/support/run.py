"""scripts/run as a process, watched through its output."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import suppress

from tests.support.processes import ROOT, free_port

DEADLINE = 180.0
"""Longest that a test waits for the models of a run, in seconds: a hang, not a measure of speed."""


CACHES = ROOT / "data" / "caches"
"""The writer's weights are fetched into it once, for all tests."""


class Run:
    """One `scripts/run`; `output` is what it has printed so far, stderr included. Models start afresh, unless the
    `flags` name a --template. `variables` are more of them for its environment; the user's caches are not touched."""

    def __init__(self, *flags: str, port: int | None = None, variables: Mapping[str, str] | None = None) -> None:
        if "--template" not in flags:
            flags = ("--template", "off", *flags)
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.output = ""
        self.process = subprocess.Popen(
            [ROOT / "scripts" / "run", "--port", str(self.port), *flags],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, "XDG_CACHE_HOME": str(CACHES), **(variables or {})},
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


Start = Callable[..., Run]
"""Of the fixture `start`: `start(*flags, port=None)`."""
