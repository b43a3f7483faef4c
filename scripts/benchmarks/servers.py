"""Starts a predictor, or a web in front of one, for as long as a benchmark needs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2

from contract import Kind
from scripts.loopback import HOST, free_port
from scripts.loopback_http import get
from scripts.project import ROOT

START_SECONDS = 300.0
STOP_SECONDS = 60.0


@dataclass
class Server:
    """A process that answers at `url`, and with its metrics at `metrics_url`/metrics."""

    url: str
    pid: int
    metrics_url: str

    @property
    def resident_bytes(self) -> int:
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def start_server(module: str, flags: list[str], ready_path: str) -> Iterator[Server]:
    """Run a module on a free port; an error if it ends, or `ready_path` does not answer 200 in time."""
    port = free_port()
    command = [sys.executable, "-m", module, "--host", HOST, "--port", str(port), "--log-level", "error", *flags]
    metrics_port = free_port() if module == "web" else port
    child = subprocess.Popen(command, cwd=ROOT, env=os.environ | {"METRICS_PORT": str(metrics_port)})
    try:
        server = Server(f"http://{HOST}:{port}", child.pid, f"http://{HOST}:{metrics_port}")
        _wait(child, server.url + ready_path)
        yield server
    finally:
        child.terminate()
        child.wait(STOP_SECONDS)


@contextmanager
def start_predictor(model: Path, dtype: str, slots: int, name: str = "m") -> Iterator[Server]:
    """A predictor that serves the model as `name`."""
    flags = ["--model", str(model), "--name", name, "--dtype", dtype, "--max-concurrency", str(slots)]
    with start_server("predictor", [*flags, "--quiet-seconds", "0"], "/v2/health/ready") as server:
        yield server


@contextmanager
def start_web(predictor_url: str, kind: Kind = "text") -> Iterator[Server]:
    models = json.dumps({"m": {"url": predictor_url, "kind": kind}})
    with start_server("web", ["--models", models], "/healthz") as server:
        yield server


def _wait(child: subprocess.Popen[bytes], url: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if child.poll() is not None:
            raise ChildProcessError(f"{url}: its server has ended with {child.returncode}")
        try:
            get(url, timeout=5)
            return
        except httpx2.HTTPError:
            time.sleep(0.1)
    raise TimeoutError(url)
