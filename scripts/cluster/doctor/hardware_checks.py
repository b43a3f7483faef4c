"""Whether there are the nodes, devices and volumes that an overlay requires."""

from __future__ import annotations

from collections.abc import Iterator

from scripts.cluster.doctor.cluster_state import ClusterState, NotFound
from scripts.cluster.doctor.finding import Finding
from scripts.cluster.doctor.manifests import Document
from scripts.cluster.doctor.pods import Pod
from scripts.cluster.doctor.requirements import Requirements


def storage(cluster: ClusterState, required: Requirements) -> Iterator[Finding]:
    if not required.claims:
        return
    classes = {item["metadata"]["name"]: item for item in cluster.items("storageclasses")}
    mark = "storageclass.kubernetes.io/is-default-class"
    default = [
        name for name, item in classes.items() if (item["metadata"].get("annotations") or {}).get(mark) == "true"
    ]
    for owner, name in required.claims:
        if name is None and not default:
            yield Finding("wrong", f"there is no default StorageClass, and {owner} names none", f"annotate one: {mark}")
        elif name is not None and name not in classes:
            yield Finding("wrong", f"there is no StorageClass {name}, which {owner} names", "make it, or name another")
        else:
            yield Finding("ok", f"{owner} has the StorageClass {name or default[0]}")


def runtime_classes(cluster: ClusterState, required: Requirements) -> Iterator[Finding]:
    for name, owner in required.runtime_classes.items():
        try:
            cluster.get("runtimeclass", name)
            yield Finding("ok", f"the RuntimeClass {name} is there")
        except NotFound:
            fix = "install NVIDIA's GPU operator, or take runtimeClassName out where the runtime is the default"
            yield Finding("wrong", f"there is no RuntimeClass {name}, which {owner} wants", fix)


def devices(cluster: ClusterState, required: Requirements) -> Iterator[Finding]:
    wanted = [(pod, name, amount) for pod in required.pods for name, amount in pod.devices().items()]
    if not wanted:
        return
    nodes = cluster.items("nodes")
    totals: dict[str, int] = {}
    for pod, name, amount in wanted:
        totals[name] = totals.get(name, 0) + amount
        offering = [node for node in nodes if count(node, name)]
        if not offering:
            fix = "install the device plugin; where an autoscaler adds such nodes, this is no fault"
            yield Finding("wrong", f"no node offers {name}, of which {pod.owner} wants {amount}", fix)
        elif not any(count(node, name) >= amount for node in offering):
            yield Finding("wrong", f"no node offers the {amount} {name} that {pod.owner} wants", "take larger nodes")
        elif not any(tolerated(pod, node) for node in offering if count(node, name) >= amount):
            taints = {taint["key"] for node in offering for taint in node["spec"].get("taints") or []}
            fix = f"tolerate {', '.join(sorted(taints))} in the overlay"
            yield Finding("wrong", f"{pod.owner} does not tolerate the taints of the nodes with {name}", fix)
        else:
            yield Finding("ok", f"a node offers {name} to {pod.owner}")
    for name, total in totals.items():
        offered = sum(count(node, name) for node in nodes)
        if 0 < offered < total:
            what = f"the nodes offer {offered} {name}, and {total} are wanted if all models are awake at once"
            yield Finding("note", what, "the last to wake waits until another has gone to sleep")


def count(node: Document, resource: str) -> int:
    return int(node.get("status", {}).get("allocatable", {}).get(resource, 0))


def tolerated(pod: Pod, node: Document) -> bool:
    """Whether the pod tolerates the node's taints, except PreferNoSchedule."""
    taints = [taint for taint in node["spec"].get("taints") or [] if taint["effect"] != "PreferNoSchedule"]
    return all(any(tolerates(item, taint) for item in pod.spec.get("tolerations") or []) for taint in taints)


def tolerates(toleration: Document, taint: Document) -> bool:
    if toleration.get("effect") not in (None, "", taint["effect"]):
        return False
    if toleration.get("operator", "Equal") == "Exists":
        return toleration.get("key") in (None, "", taint["key"])
    return (toleration.get("key"), toleration.get("value", "")) == (taint["key"], taint.get("value", ""))
