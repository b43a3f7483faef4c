"""Whether the driver and the GPUs of nodes are new enough for torch, as far as the nodes' labels tell."""

from __future__ import annotations

from collections.abc import Iterator

from scripts.cluster.doctor.checks.nodes import usable
from scripts.cluster.doctor.cluster_state import ClusterState
from scripts.cluster.doctor.finding import Finding
from scripts.cluster.doctor.manifests import Document, labels_of
from scripts.cluster.doctor.requirements import Requirements

DRIVER_MINIMUM = 580
COMPUTE_MINIMUM = (7, 5)
"""Of CUDA 13, which torch 2.13 of PyPI is built for: no Volta and nothing older."""

DRIVER_LABELS = ("nvidia.com/cuda.driver-version.major", "nvidia.com/cuda.driver.major")
"""Of GPU feature discovery, the latter deprecated (NVIDIA/k8s-device-plugin docs/gpu-feature-discovery)."""

OTHER_TORCH = "an image with a torch for an older CUDA (scripts/build-images --torch-index)"


def drivers(cluster: ClusterState, required: Requirements) -> Iterator[Finding]:
    wanting = [pod for pod in required.pods if any(name.startswith("nvidia.com/") for name in pod.devices())]
    if not wanting:
        return
    nodes = cluster.items("nodes")
    found = {node["metadata"]["name"]: node for pod in wanting for node in usable(pod, nodes)}
    if not found:
        return  # `devices` says why
    faults = {name: fault for name, node in found.items() if (fault := too_old(node))}
    silent = [name for name, node in found.items() if driver(node) is None and name not in faults]
    fixes = f"a newer driver or GPU, or {OTHER_TORCH}"
    for name, fault in faults.items():
        others = len(faults) < len(found)
        fix = f"{fixes}; or keep the models off it" if others else fixes
        yield Finding("note" if others else "wrong", f"the node {name} {fault}", fix)
    if silent:
        what = f"which driver is on {', '.join(silent)} is not known here; torch wants {DRIVER_MINIMUM} or later"
        fix = f"nvidia-smi says it, and so would GPU feature discovery with the label {DRIVER_LABELS[0]}"
        yield Finding("note", what, fix)
    elif not faults:
        yield Finding("ok", f"drivers are {DRIVER_MINIMUM} or later on all nodes that models can run on")


def too_old(node: Document) -> str:
    """What is too old on a node; empty where its labels name nothing."""
    version, capability = driver(node), compute(node)
    if capability is not None and capability < COMPUTE_MINIMUM:
        wanted, has = (".".join(map(str, pair)) for pair in (COMPUTE_MINIMUM, capability))
        return f"has GPUs of compute capability {has}, and torch wants {wanted} or later"
    if version is not None and version < DRIVER_MINIMUM:
        return f"has the driver {version}, and torch wants {DRIVER_MINIMUM} or later"
    return ""


def driver(node: Document) -> int | None:
    """The major version of its driver, if a label tells it."""
    labels = labels_of(node)
    return next((int(labels[name]) for name in DRIVER_LABELS if labels.get(name, "").isdigit()), None)


def compute(node: Document) -> tuple[int, int] | None:
    """The compute capability of its GPUs, if labels tell it."""
    major, minor = (labels_of(node).get(f"nvidia.com/gpu.compute.{part}", "") for part in ("major", "minor"))
    return (int(major), int(minor)) if major.isdigit() and minor.isdigit() else None
