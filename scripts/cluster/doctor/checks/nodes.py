"""Whether there are the nodes and devices that an overlay requires."""

from __future__ import annotations

from collections.abc import Iterator

from scripts.cluster.doctor.cluster_state import ClusterState, NotFound
from scripts.cluster.doctor.finding import Finding
from scripts.cluster.doctor.manifests import Document
from scripts.cluster.doctor.pods import Pod
from scripts.cluster.doctor.requirements import Requirements

AUTOSCALED = "where an autoscaler adds such nodes, this is no fault"


def runtime_classes(cluster: ClusterState, required: Requirements) -> Iterator[Finding]:
    for name, owner in required.runtime_classes.items():
        try:
            cluster.get("runtimeclass", name)
            yield Finding("ok", f"the RuntimeClass {name} is there")
        except NotFound:
            fix = (
                "install NVIDIA's GPU operator; nodes of EKS, GKE and AKS without it start GPU containers by default: "
            )
            fix += f"there leave the component {name}-runtime-class out"
            yield Finding("wrong", f"there is no RuntimeClass {name}, which {owner} wants", fix)


def priority_classes(cluster: ClusterState, required: Requirements) -> Iterator[Finding]:
    made = {item["metadata"]["name"] for item in required.of("scheduling.k8s.io", "PriorityClass")}
    wanted = {name: pod.owner for pod in reversed(required.pods) if (name := pod.spec.get("priorityClassName"))}
    for name, owner in wanted.items():
        if name in made:
            continue
        try:
            cluster.get("priorityclass", name)
            yield Finding("ok", f"the PriorityClass {name} is there")
        except NotFound:
            yield Finding("wrong", f"there is no PriorityClass {name}, which {owner} wants", "make it, or name another")


def placement(cluster: ClusterState, required: Requirements) -> Iterator[Finding]:
    """Whether a node has the labels that pods ask for; of those with devices `devices` says so, too."""
    choosing = [pod for pod in required.pods if pod.chooses()]
    if not choosing:
        return
    nodes = cluster.items("nodes")
    for pod in choosing:
        chosen = [node for node in nodes if pod.may_choose(node)]
        if not chosen:
            fix = f"label one, or take that out of the overlay; {AUTOSCALED}"
            if "nvidia.com/gpu.present" in pod.chooses():
                fix = f"NVIDIA's GPU feature discovery sets it: install that, or {fix}"
            yield Finding("wrong", f"no node has the label {pod.chooses()} that {pod.owner} asks for", fix)
        elif pod.devices():
            continue
        elif not any(pod.tolerates(node) for node in chosen):
            what = f"{pod.owner} does not tolerate the taints of the nodes with {pod.chooses()}"
            yield Finding("wrong", what, f"tolerate {taints(chosen)} in the overlay")
        else:
            yield Finding("ok", f"a node has the label {pod.chooses()} that {pod.owner} asks for")


def devices(cluster: ClusterState, required: Requirements) -> Iterator[Finding]:
    wanted = [(pod, name, amount) for pod in required.pods for name, amount in pod.devices().items()]
    if not wanted:
        return
    nodes = cluster.items("nodes")
    totals: dict[str, int] = {}
    for pod, name, amount in wanted:
        totals[name] = totals.get(name, 0) + amount
        offering = [node for node in nodes if count(node, name)]
        large = [node for node in offering if count(node, name) >= amount]
        if not offering:
            fix = f"install the device plugin; {AUTOSCALED}"
            yield Finding("wrong", f"no node offers {name}, of which {pod.owner} wants {amount}", fix)
        elif not large:
            yield Finding("wrong", f"no node offers the {amount} {name} that {pod.owner} wants", "take larger nodes")
        elif not any(pod.tolerates(node) for node in large):
            what = f"{pod.owner} does not tolerate the taints of the nodes with {name}"
            yield Finding("wrong", what, f"tolerate {taints(offering)} in the overlay")
        elif not usable(pod, nodes):
            what = f"no node with {name} that {pod.owner} tolerates has the label {pod.chooses()} that it asks for"
            yield Finding("wrong", what, "label one, or take that out of the overlay")
        else:
            yield Finding("ok", f"a node offers {name} to {pod.owner}")
    for name, total in totals.items():
        offered = sum(count(node, name) for node in nodes)
        if 0 < offered < total:
            what = f"the nodes offer {offered} {name}, and {total} are wanted if all models are awake at once"
            yield Finding("note", what, "the last to wake waits until another has gone to sleep")


def usable(pod: Pod, nodes: list[Document]) -> list[Document]:
    """The nodes that have the devices, the labels and no taint against a pod."""
    return [
        node
        for node in nodes
        if pod.may_choose(node)
        and pod.tolerates(node)
        and all(count(node, name) >= amount for name, amount in pod.devices().items())
    ]


def count(node: Document, resource: str) -> int:
    return int(node.get("status", {}).get("allocatable", {}).get(resource, 0))


def taints(nodes: list[Document]) -> str:
    return ", ".join(sorted({taint["key"] for node in nodes for taint in node["spec"].get("taints") or []}))
