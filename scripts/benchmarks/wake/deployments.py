"""Where the service runs that is woken: pods of a cluster, or a process of `scripts/run` on this machine."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

import httpx2

from scripts.benchmarks.wake.timeline import finished_requests, own_phases, pod_phases
from scripts.cluster.doctor.cluster_state import ClusterState, NotFound
from scripts.local.run_folder import RunFolder
from scripts.loopback_http import get

METRICS_PORT = 8080
METRICS_SECONDS = 30.0
AUTOSCALERS = "podautoscalers.autoscaling.internal.knative.dev"


@dataclass
class Timeline:
    """Of one wake-up: seconds of each phase, and how many requests the woken server has finished, where it tells."""

    phases: dict[str, float] = field(default_factory=dict)
    finished: int | None = None

    def read(self, metrics: str) -> None:
        """Take in the predictor's page of metrics."""
        own = own_phases(metrics)
        self.phases |= own
        if own:
            self.finished = finished_requests(metrics)


class Deployment(Protocol):
    def asleep(self) -> bool:
        """Whether nothing of the model runs."""

    def kill(self) -> bool:
        """Kill what wakes at the moment; False where nothing does."""

    def timeline(self, asked_at: float) -> Timeline:
        """Of what has just been woken by a request at that time, in seconds since 1970."""


class ClusterDeployment:
    """The pods of a Knative Service. Its methods raise the errors of ClusterState where pods cannot be listed."""

    def __init__(self, state: ClusterState, namespace: str, service: str) -> None:
        self._state = state
        self._namespace = namespace
        self._service = service

    def asleep(self) -> bool:
        return not self._pods()

    def kill(self) -> bool:
        waking = [pod for pod in self._staying() if not _is_ready(pod)]
        for pod in waking:
            name = pod["metadata"]["name"]
            with suppress(NotFound):
                self._text("delete", "pod", name, "--grace-period=0", "--force", "--wait=false")
        return bool(waking)

    def timeline(self, asked_at: float) -> Timeline:
        timeline = Timeline()
        pods = sorted(self._staying(), key=lambda pod: str(pod["metadata"]["creationTimestamp"]))
        if not pods:
            return timeline
        pod = pods[-1]
        revision = (pod["metadata"].get("labels") or {}).get("serving.knative.dev/revision", "")
        timeline.phases = pod_phases(pod, self._items("events"), self._get(AUTOSCALERS, revision), asked_at)
        with self._forwarded(pod["metadata"]["name"]) as url, suppress(httpx2.HTTPError):
            timeline.read(get(f"{url}/metrics", timeout=METRICS_SECONDS).text)
        return timeline

    def _pods(self) -> list[Any]:
        """All of them but those that were evicted, which stay as Failed ones."""
        selector = f"serving.knative.dev/service={self._service}"
        pods = self._state.items("pods", "-n", self._namespace, "-l", selector)
        return [pod for pod in pods if (pod.get("status") or {}).get("phase") not in ("Failed", "Succeeded")]

    def _staying(self) -> list[Any]:
        return [pod for pod in self._pods() if "deletionTimestamp" not in pod["metadata"]]

    def _items(self, *arguments: str) -> list[Any]:
        try:
            return list(self._state.items(*arguments, "-n", self._namespace))
        except NotFound:  # or what this user may not read
            return []

    def _get(self, *arguments: str) -> Any:
        try:
            return self._state.get(*arguments, "-n", self._namespace)
        except NotFound:
            return {}

    def _text(self, *arguments: str) -> str:
        return self._state.text(*arguments, "-n", self._namespace)

    @contextmanager
    def _forwarded(self, pod: str) -> Iterator[str]:
        """The address at which a pod's metrics can be read meanwhile."""
        command = [*self._state.base, "-n", self._namespace, "port-forward", f"pod/{pod}", f":{METRICS_PORT}"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
            try:
                assert process.stdout is not None
                found = re.search(r"127\.0\.0\.1:(\d+)", process.stdout.readline())  # empty where it has ended
                yield f"http://127.0.0.1:{found[1] if found else 9}"
            finally:
                process.terminate()


class LocalDeployment:
    """The process of a model of the `scripts/run` on a port."""

    def __init__(self, port: int, model: str) -> None:
        self._folder = RunFolder(port)
        self._model = model

    def asleep(self) -> bool:
        return bool(self._state()["state"] == "asleep")

    def kill(self) -> bool:
        state = self._state()
        if state["state"] != "waking" or state["pid"] is None:
            return False
        with suppress(ProcessLookupError):
            os.kill(state["pid"], signal.SIGKILL)
            return True
        return False

    def timeline(self, asked_at: float) -> Timeline:
        state = self._state()
        timeline = Timeline()
        if state["wake_seconds"]:
            begun_at = state["since"] - state["wake_seconds"][-1]
            timeline.phases["process started"] = max(0.0, begun_at - asked_at)
        with suppress(httpx2.HTTPError):
            timeline.read(get(f"{state['url']}/metrics", timeout=METRICS_SECONDS).text)
        return timeline

    def _run(self) -> Any:
        run = self._folder.read()
        if run is None:
            raise SystemExit(f"scripts/bench wake: no scripts/run on port {self._folder.port}")
        return run

    def _state(self) -> Any:
        return self._run()["models"][self._model]


def _is_ready(pod: Any) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)
