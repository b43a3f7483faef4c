"""Servers that run from an image, and what is asked of them and their processes."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import NamedTuple

import httpx2
import psutil

LIMIT = 120.0
"""Seconds after which what is waited for has failed."""


class Served(NamedTuple):
    """A server that runs from an image."""

    url: str
    seconds: float
    """From the start of its process to its first answer."""
    process: psutil.Process
    """Of the server itself, not of what started it."""
    started: subprocess.Popen[bytes]
    log: Path


def running(process: subprocess.Popen[bytes]) -> bool:
    return process.poll() is None


def server(started: subprocess.Popen[bytes], entrypoint: list[str]) -> psutil.Process:
    children = psutil.Process(started.pid).children(recursive=True)
    return next(child for child in children if child.cmdline() == entrypoint)


def start(pid: int) -> float:
    """When a process started, in seconds since the machine did."""
    ticks = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    return int(ticks) / os.sysconf("SC_CLK_TCK")


def answers(url: str, started: subprocess.Popen[bytes], log: Path) -> bool:
    assert running(started), log.read_text()
    try:
        return httpx2.get(url, timeout=5, trust_env=False).is_success
    except httpx2.HTTPError:
        return False
