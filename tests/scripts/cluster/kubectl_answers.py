"""What kubectl prints of objects, and which calls of programs change something."""

from __future__ import annotations

from typing import Any


def node_list(port: int) -> dict[str, Any]:
    """The node of a cluster that cluster-up has made with that port."""
    return {"items": [{"metadata": {"labels": {"shangcai.ai/made-by": "cluster-up", "shangcai.ai/port": str(port)}}}]}


def deployment(name: str, available: int = 1, generation: int = 1) -> dict[str, Any]:
    status = {"observedGeneration": 1, "updatedReplicas": available, "availableReplicas": available}
    return {"metadata": {"name": name, "generation": generation}, "spec": {"replicas": 1}, "status": status}


def item(kind: str, name: str, ready: str, reason: str = "") -> dict[str, Any]:
    condition = {"type": "Ready", "status": ready, "reason": reason}
    return {"kind": kind, "metadata": {"name": name}, "status": {"conditions": [condition]}}


def namespace_with(mark: str) -> dict[str, Any]:
    """A namespace into which cluster-up has brought that."""
    return {"metadata": {"annotations": {"shangcai.ai/cluster-up": mark}}}


def changes(calls: list[str]) -> list[str]:
    """Calls that change something, without the context."""
    questions = (" get ", "image inspect", "profile list")
    return [
        call.replace(" --context kind-shangcai", "") for call in calls if not any(part in call for part in questions)
    ]
