"""The predictor as a process."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import httpx2
import pytest

from tests.support.processes import free_port

DEADLINE = 60.0
"""Longest that a test waits for anything: a hang, not a measure of speed."""

ROOT = Path(__file__).parents[4]
ENVIRONMENT = os.environ | {"HF_HUB_OFFLINE": "1"}


@dataclass
class PredictorProcess:
    """`python -m predictor` on a free port, with what it prints."""

    process: subprocess.Popen[bytes]
    port: int
    output: Path
    grpc_port: int | None = None
    url: str = field(init=False)

    def __post_init__(self) -> None:
        self.url = f"http://127.0.0.1:{self.port}"

    def log(self) -> str:
        return self.output.read_text()

    def wait_for(self, holds: Callable[[], object], what: str) -> None:
        deadline = time.monotonic() + 2 * DEADLINE
        while not holds():
            assert self.process.poll() is None, f"ended while waiting for {what}:\n{self.log()}"
            assert time.monotonic() < deadline, f"no {what}:\n{self.log()}"
            time.sleep(0.05)

    def handles_sigterm(self) -> bool:
        found = re.search(r"SigCgt:\s*(\w+)", Path(f"/proc/{self.process.pid}/status").read_text())
        return bool(found and int(found[1], 16) & 1 << signal.SIGTERM - 1)

    def listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def connections(self) -> int:
        """Established ones, from the kernel's table."""
        rows = [row.split() for row in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        return sum(row[1].endswith(f":{self.port:04X}") and row[3] == "01" for row in rows)

    def status(self, path: str) -> int:
        """Of a GET; 0 while the connection is refused."""
        with contextlib.suppress(httpx2.TransportError):
            return httpx2.get(self.url + path, timeout=DEADLINE).status_code
        return 0

    def wait_ready(self) -> None:
        self.wait_for(lambda: self.status("/v2/health/ready") == 200, "readiness")

    def end(self, sig: int) -> int:
        """Signal it; its exit status."""
        self.process.send_signal(sig)
        return self.process.wait(DEADLINE)


class StartPredictor(Protocol):
    def __call__(
        self,
        *arguments: str,
        grpc: bool = False,
        script: tuple[str, ...] = ("-m", "predictor"),
        prefix: tuple[str, ...] = (),
    ) -> PredictorProcess: ...


@pytest.fixture(scope="module")
def start_predictor(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartPredictor]:
    """Starts predictors of the tiny model that do not outlive the module."""
    started: list[PredictorProcess] = []

    def start(
        *arguments: str, grpc: bool = False, script: tuple[str, ...] = ("-m", "predictor"), prefix: tuple[str, ...] = ()
    ) -> PredictorProcess:
        port = free_port()
        grpc_port = free_port() if grpc else None
        command = [*prefix, sys.executable, *script, "--model", str(tiny_model), "--name", "tiny"]
        command += ["--host", "127.0.0.1", "--port", str(port), *arguments]
        if grpc_port:
            command += ["--grpc-port", str(grpc_port)]
        output = tmp_path_factory.mktemp("predictor") / "output"
        with output.open("wb") as out:
            process = subprocess.Popen(command, stdout=out, stderr=out, cwd=ROOT, env=ENVIRONMENT)
        started.append(PredictorProcess(process, port, output, grpc_port))
        return started[-1]

    yield start
    for predictor in started:
        predictor.process.kill()
        predictor.process.wait(DEADLINE)


@pytest.fixture(scope="module")
def tiny_predictor(start_predictor: StartPredictor) -> PredictorProcess:
    """A ready predictor with gRPC that the tests of a module share."""
    predictor = start_predictor(grpc=True)
    predictor.wait_ready()
    return predictor
