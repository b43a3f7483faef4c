"""A namespace of a cluster, by way of kubectl."""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.waiting import wait_until

PAUSE_SECONDS = 1.0
"""Between two questions to the API server."""


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

    def pods(self, service: str) -> list[Any]:
        """Pods of a Knative Service, of all its revisions, those that are going included.

        A pod that was evicted stays as a Failed one, without a deletionTimestamp, until it is collected.
        """
        pods = self.get("pods", "-l", f"serving.knative.dev/service={service}")["items"]
        return [pod for pod in pods if pod["status"].get("phase") not in ("Failed", "Succeeded")]

    def serving_pods(self, service: str) -> list[Any]:
        """Those that get the next request: ready, of the revision that the Service has rolled out, and not going."""
        revision = self.latest_revision(service)
        return [
            pod
            for pod in self.pods(service)
            if pod["metadata"]["labels"]["serving.knative.dev/revision"] == revision
            and not is_going(pod)
            and conditions(pod).get("Ready") == "True"
        ]

    def is_asleep(self, service: str) -> bool:
        """No pod of it is there to stay; pods that are going may be."""
        return all(is_going(pod) for pod in self.pods(service))

    def latest_revision(self, service: str) -> str:
        name: str = self.get("services.serving.knative.dev", service)["status"]["latestReadyRevisionName"]
        return name

    @contextmanager
    def forward(self, what: str, port: int, namespace: str = "") -> Iterator[str]:
        """Forward a port of this machine to a port of a pod or Service; yields its URL."""
        command = ["kubectl", "-n", namespace or self.namespace, "port-forward", what, f":{port}"]
        with tempfile.TemporaryDirectory() as folder:
            output = Path(folder) / "output"  # no pipe: kubectl writes a line for each connection

            def local_port() -> str:
                assert process.poll() is None, f"no port-forward to {what}: {output.read_text()}"
                found = re.search(r"127\.0\.0\.1:(\d+)", output.read_text())
                return found[1] if found else ""

            with output.open("w") as file, subprocess.Popen(command, stdout=file, stderr=file) as process:
                try:
                    yield f"http://127.0.0.1:{wait_until(local_port, f'a port-forward to {what}', pause=0.1)}"
                finally:
                    process.terminate()


def is_going(pod: Any) -> bool:
    """It has been told to end, which takes it 30 s: queue-proxy waits for stragglers."""
    return "deletionTimestamp" in pod["metadata"]


def conditions(item: Any) -> dict[str, str]:
    return {entry["type"]: entry["status"] for entry in item.get("status", {}).get("conditions") or []}
