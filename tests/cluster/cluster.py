"""A cluster by way of kubectl."""

from __future__ import annotations

import json
import re
import selectors
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

READY_SECONDS = 1800.0
"""Pulling images and loading models, for the slowest cluster."""

READY_KINDS = (
    "services.serving.knative.dev,inferenceservices.serving.kserve.io,brokers.eventing.knative.dev,"
    "triggers.eventing.knative.dev,sinkbindings.sources.knative.dev"
)
T = TypeVar("T")


def wait_for(poll: Callable[[], T | None], what: str, seconds: float = 120, pause: float = 1) -> T:
    """Poll until a value is true, and return it."""
    deadline = time.monotonic() + seconds
    while not (value := poll()):
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(pause)
    return value


@dataclass(frozen=True)
class Cluster:
    """The cluster that kubectl reaches, and a namespace in it."""

    namespace: str

    def run(self, *arguments: str, stdin: str = "", seconds: float = 120) -> str:
        command = ["kubectl", "-n", self.namespace, *arguments]
        ended = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=seconds)
        assert ended.returncode == 0, f"{' '.join(command)}: {ended.stderr}"
        return ended.stdout

    def get(self, kind: str, *arguments: str) -> Any:
        return json.loads(self.run("get", kind, *arguments, "-o", "json"))

    def apply(self, folder: Path) -> None:
        """Apply an overlay, and again while webhooks of a new cluster do not answer yet; wait until all is ready."""
        wait_for(lambda: self._applied(folder), f"{folder} is applied", 300, 5)
        deadline = time.monotonic() + READY_SECONDS
        while waiting := self._waiting():
            assert time.monotonic() < deadline, f"not ready after {READY_SECONDS:g} s: {', '.join(waiting)}"
            time.sleep(2)

    def pods(self, service: str) -> list[Any]:
        """Pods of a Knative Service that are not being deleted."""
        pods = self.get("pods", "-l", f"serving.knative.dev/service={service}")["items"]
        return [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]

    def latest_revision(self, service: str) -> str:
        name: str = self.get("services.serving.knative.dev", service)["status"]["latestReadyRevisionName"]
        return name

    @contextmanager
    def forward(self, what: str, port: int, namespace: str = "") -> Iterator[str]:
        """Forward a port of this machine to a port of a pod or Service; yields its URL."""
        command = ["kubectl", "-n", namespace or self.namespace, "port-forward", what, f":{port}"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
            try:
                assert process.stdout
                with selectors.DefaultSelector() as selector:
                    selector.register(process.stdout, selectors.EVENT_READ)
                    assert selector.select(60), f"no port-forward to {what}"
                found = re.search(r"127\.0\.0\.1:(\d+)", process.stdout.readline())
                assert found, f"no port-forward to {what}"
                yield f"http://127.0.0.1:{found[1]}"
            finally:
                process.terminate()

    def _applied(self, folder: Path) -> bool:
        with suppress(AssertionError):
            self.run("apply", "-k", str(folder), seconds=300)
            return True
        return False

    def _waiting(self) -> list[str]:
        """The objects whose current generation is not Ready."""
        found = []
        for item in self.get(READY_KINDS)["items"]:
            status = item.get("status", {})
            current = status.get("observedGeneration", 0) >= item["metadata"]["generation"]
            conditions = {entry["type"]: entry["status"] for entry in status.get("conditions", [])}
            if not current or conditions.get("Ready") != "True":
                found.append(f"{item['kind']} {item['metadata']['name']}")
        return found


def listens(host: str, port: int) -> bool:
    with suppress(OSError), socket.create_connection((host, port), timeout=3):
        return True
    return False
