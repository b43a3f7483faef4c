"""Models that are fetched ahead: caches on nodes, and a Job that downloads to a volume."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.manifests.checks.objects import Object, environment, walk
from tests.manifests.checks.references.object_set import ObjectSet


def check(objects: ObjectSet, thing: Object) -> Iterator[str]:
    if thing.kind == "LocalModelCache.serving.kserve.io":
        uris = {environment(one.containers[0]).get("STORAGE_URI") for one in objects.predictors.values()}
        if thing.spec["sourceModelUri"] not in uris:
            yield f"no InferenceService has {thing.spec['sourceModelUri']}"
        for group in thing.spec["nodeGroups"]:
            if ("LocalModelNodeGroup.serving.kserve.io", group) not in objects.named:
                yield f"there is no node group {group}"
    if thing.kind == "LocalModelNodeGroup.serving.kserve.io":
        yield from _node_group(thing.spec)


def _node_group(spec: dict[str, Any]) -> Iterator[str]:
    volume, claim = spec["persistentVolumeSpec"], spec["persistentVolumeClaimSpec"]
    if volume["storageClassName"] != claim["storageClassName"] or volume["accessModes"] != claim["accessModes"]:
        yield "claim and volume do not fit"
    if claim["resources"]["requests"]["storage"] != volume["capacity"]["storage"]:
        yield "claim and volume are of different sizes"
    nodes = [value for _, value in walk(volume["nodeAffinity"]) if isinstance(value, dict) and "key" in value]
    wanted = [{"key": "nvidia.com/gpu.present", "operator": "In", "values": ["true"]}]
    if nodes != wanted or not volume["local"]["path"].startswith("/"):
        yield "must be on the nodes that have a GPU"


def check_downloads(objects: list[Object], fetching: list[Object]) -> Iterator[str]:
    """A Job fetches to a volume what the InferenceServices of `fetching` fetch at each start."""
    for thing in objects:
        if thing.kind != "Job.batch":
            continue
        arguments = thing.containers[0]["args"]
        [folder] = [mount["mountPath"] for mount in thing.containers[0]["volumeMounts"] if mount["name"] == "models"]
        fetched = dict(zip(arguments[1::2], arguments[::2], strict=True))
        wanted = {
            f"{folder}/{one.name}": environment(one.containers[0])["STORAGE_URI"]
            for one in fetching
            if one.kind.startswith("InferenceService")
        }
        if fetched != wanted:
            yield f"{thing.title}: fetches {fetched}, and not {wanted}"
