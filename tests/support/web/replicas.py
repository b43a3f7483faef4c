"""Replicas of web as processes, on a Redis that they share."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tests.support.processes import ROOT, listening

StartReplica = Callable[..., tuple["subprocess.Popen[str]", str]]
"""`start(upstream, store, **environment)` starts a replica in front of the poet's model server: its process and its
address, where it listens already."""


@contextmanager
def replicas() -> Iterator[StartReplica]:
    """Those that are left in the end are killed."""
    processes: list[subprocess.Popen[str]] = []
    logs: list[threading.Thread] = []

    def start(upstream: str, store: str, **environment: str) -> tuple[subprocess.Popen[str], str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "web", "--host", "127.0.0.1", "--port", "0"],
            cwd=ROOT,
            env={
                "PATH": os.environ["PATH"],
                "MODELS": json.dumps({"poet": upstream}),
                "STORE_URL": store,
                **environment,
            },
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        url = listening(process)
        assert process.stderr
        logs.append(threading.Thread(target=process.stderr.read))  # or the pipe would fill up
        logs[-1].start()
        return process, url

    try:
        yield start
    finally:
        for process in processes:
            process.kill()
        for log in logs:
            log.join()
        for process in processes:
            process.communicate()
