"""What cluster-up brings onto its node fits there, and docs say how much it is."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts.cluster.components import COMPONENTS, CPUS, EVENTS, MEMORY_GIB, NODE, QUEUE_PROXY

ROOT = Path(__file__).parents[3]

LOOKED_UP = {
    "cert-manager": "1.17.0",
    "Knative Serving": "1.21.1",
    "Kourier": "1.21.0",
    "Knative Eventing": "1.21.1",
    "KServe": "0.21.0",
}
"""The versions whose requests stand in components.py."""

UNITS = {"Ki": 1 / 1024, "Mi": 1, "Gi": 1024}
SPARE = 375
"""Millicores for a second pod of web and of a model while a new revision takes over, and a little more."""


def millicores(quantity: str) -> int:
    return int(quantity.removesuffix("m")) if quantity.endswith("m") else round(float(quantity) * 1000)


def mebibytes(quantity: str) -> float:
    return float(quantity[:-2]) * UNITS[quantity[-2:]]


def ours(overlay: str) -> tuple[int, float]:
    """What the pods of an overlay ask for, one of each."""
    kubectl = ["kubectl", "kustomize", str(ROOT / overlay)]
    rendered = subprocess.run(kubectl, capture_output=True, text=True, check=True).stdout
    cpu, memory = 0, 0.0
    for document in yaml.safe_load_all(rendered):
        spec: dict[str, Any] = document.get("spec") or {}
        if document["kind"] == "InferenceService":
            pod = spec["predictor"]
        elif "template" in spec:
            pod = spec["template"]["spec"]
        else:
            continue
        for container in pod["containers"]:
            cpu += millicores(container["resources"]["requests"]["cpu"])
            memory += mebibytes(container["resources"]["requests"]["memory"])
        if document["kind"] in ("InferenceService", "Service"):
            cpu += QUEUE_PROXY[0]
            memory += QUEUE_PROXY[1]
    return cpu, memory


@pytest.mark.parametrize(("overlay", "events"), [("deploy/laptop", False), ("deploy/laptop-events", True)])
def test_all_of_it_fits_on_the_node_and_stands_in_the_docs(overlay: str, events: bool) -> None:
    components = (*COMPONENTS, EVENTS) if events else COMPONENTS
    installed = [*NODE.values(), *(pod for component in components for pod in component.requests.values())]
    cpu, memory = ours(overlay)
    cpu += sum(pod[0] for pod in installed)
    memory += sum(pod[1] for pod in installed)
    assert cpu + SPARE <= CPUS * 1000
    assert memory <= MEMORY_GIB * 1024
    said = f"{cpu / 1000:.2f} CPUs and {memory / 1024:.1f} GiB"
    assert any(said in page.read_text() for page in (ROOT / "docs").glob("*.md")), said


def test_requests_are_those_of_the_versions_that_are_installed() -> None:
    """Of another version look them up anew."""
    assert {component.name: component.version for component in (*COMPONENTS, EVENTS)} == LOOKED_UP
