"""Phases of one wake-up: from the objects of Kubernetes and Knative, and from the predictor's own metrics."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

Document = Mapping[str, Any]

PHASES = (
    *("pod made", "scheduled", "image pulled", "container started", "pod ready", "counted as active"),
    *("process started", "imports", "weights", "checks", "process ready"),
)
"""In the order in which they are printed. What a cluster or a machine does not tell is left out."""

_SERIES = re.compile(r'^shangcai_cold_start_phase_seconds\{phase="(.+)"\} (\S+)$', re.MULTILINE)
_FINISHED = re.compile(r"^shangcai_request_success_total\{.*\} (\S+)$", re.MULTILINE)

_CONTAINER = "kserve-container"
"""What KServe calls the predictor's; others are Knative's and the mesh's."""


def pod_phases(pod: Document, events: Iterable[Document], autoscaler: Document, asked_at: float) -> dict[str, float]:
    """Seconds of each phase of a pod, whose times are whole seconds. `asked_at` is this machine's time of the request,
    in seconds since 1970; the other clock is the cluster's."""
    metadata, status = pod["metadata"], pod.get("status") or {}
    created = _seconds(metadata["creationTimestamp"])
    scheduled = _transition(status, "PodScheduled")
    pulled = max((at for event in events if (at := _pulled(event, metadata["name"])) is not None), default=None)
    started = _started(status)
    found = {
        "pod made": (created, asked_at),
        "scheduled": (scheduled, created),
        "image pulled": (pulled, scheduled),
        "container started": (started, scheduled if pulled is None else pulled),
        "pod ready": (_transition(status, "Ready"), started),
        "counted as active": (_transition(autoscaler.get("status") or {}, "Active"), created),
    }
    # The clocks of two machines, and whole seconds, may put one after the other that came before.
    return {
        name: max(0.0, end - begin) for name, (end, begin) in found.items() if end is not None and begin is not None
    }


def own_phases(metrics: str) -> dict[str, float]:
    """Seconds of the predictor's phases, from its page of metrics; empty for another server."""
    seconds = {name: float(value) for name, value in _SERIES.findall(metrics)}
    if not seconds:
        return {}
    ready = {"process ready": seconds.pop("ready")} if "ready" in seconds else {}
    seconds.pop("port open", None)  # since the start, as `ready` is
    imports = sum(value for name, value in seconds.items() if name == "starting" or name.startswith("importing "))
    weights = sum(value for name, value in seconds.items() if name.startswith("loading "))
    return {"imports": imports, "weights": weights, "checks": sum(seconds.values()) - imports - weights, **ready}


def finished_requests(metrics: str) -> int:
    """How many generations of clients a fresh predictor has finished: all of them but its warm-up."""
    return max(0, sum(int(float(number)) for number in _FINISHED.findall(metrics)) - 1)


def _seconds(timestamp: str) -> float:
    return datetime.fromisoformat(timestamp).timestamp()


def _transition(status: Document, kind: str) -> float | None:
    """When a condition has become true."""
    for condition in status.get("conditions") or ():
        if condition["type"] == kind and condition["status"] == "True" and condition.get("lastTransitionTime"):
            return _seconds(condition["lastTransitionTime"])
    return None


def _started(status: Document) -> float | None:
    containers = status.get("containerStatuses") or ()
    ours = [each for each in containers if each["name"] == _CONTAINER] or list(containers)[:1]
    running = ours[0]["state"].get("running") if ours else None
    return _seconds(running["startedAt"]) if running else None


def _pulled(event: Document, pod: str) -> float | None:
    if event.get("reason") != "Pulled" or event["involvedObject"].get("name") != pod:
        return None
    at = event.get("eventTime") or event.get("lastTimestamp") or event["metadata"].get("creationTimestamp")
    return _seconds(at) if at else None
