"""Which objects of a cluster are not ready yet, by their status."""

from __future__ import annotations

from typing import Any


def not_available(deployments: list[Any]) -> list[str]:
    """Names of the Deployments whose latest specification does not run yet."""
    names = []
    for item in deployments:
        wanted, status = item["spec"].get("replicas", 1), item.get("status", {})
        current = status.get("observedGeneration", 0) >= item["metadata"]["generation"]
        if not current or min(status.get("updatedReplicas", 0), status.get("availableReplicas", 0)) < wanted:
            names.append(item["metadata"]["name"])
    return names


def not_ready(items: list[Any]) -> list[str]:
    """Kind and name of each object that is not Ready, with its reason if it gives one."""
    found = []
    for item in items:
        conditions = {entry["type"]: entry for entry in item.get("status", {}).get("conditions", [])}
        ready = conditions.get("Ready", {})
        if ready.get("status") != "True":
            name = f"{item['kind']} {item['metadata']['name']}"
            found.append(f"{name} ({ready['reason']})" if ready.get("reason") else name)
    return found
