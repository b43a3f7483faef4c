"""Models that are fetched ahead: caches on nodes, and Jobs that download to volumes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.manifests.checks.objects import Object, environment, walk
from tests.manifests.checks.references.object_set import ObjectSet

REGISTRY = "registry.example.com"


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
    wanted = [{"key": "kserve/localmodel", "operator": "In", "values": ["worker"]}]
    if nodes != wanted or not volume["local"]["path"].startswith("/"):
        yield "must be on the nodes that KServe's agent runs on"


def check_sources(objects: list[Object], fetching: list[Object]) -> Iterator[str]:
    """Volumes and images hold what the InferenceServices of `fetching` fetch at each start: Jobs fetch it to a volume,
    and an image has its name, in small letters."""
    fetched = {_target(thing): thing.containers[0]["args"][0] for thing in objects if thing.kind == "Job.batch"}
    sources, places = (_storage_uris(them) for them in (fetching, objects))
    wanted = {place: sources[name] for name, place in places.items() if place.startswith("pvc://")}
    if fetched != wanted:
        yield f"Jobs fetch {fetched}, and not {wanted}"
    for name, place in places.items():
        image = place.removeprefix(f"oci+native://{REGISTRY}/").rpartition(":")[0]
        if place.startswith("oci+") and image != sources[name].removeprefix("hf://").lower():
            yield f"{name}: the model of {sources[name]} is not in {place}"


def _storage_uris(objects: list[Object]) -> dict[str, str]:
    predictors = [thing for thing in objects if thing.kind.startswith("InferenceService")]
    uris = {thing.name: environment(thing.containers[0]).get("STORAGE_URI") for thing in predictors}
    return {name: uri for name, uri in uris.items() if uri}


def _target(job: Object) -> str:
    """Where a Job writes to, as a STORAGE_URI names it."""
    [mount] = [mount for mount in job.containers[0]["volumeMounts"] if mount["name"] == "model"]
    [volume] = [volume for volume in job.pod["volumes"] if volume["name"] == "model"]
    folder = job.containers[0]["args"][1].removeprefix(f"{mount['mountPath']}/")
    return f"pvc://{volume['persistentVolumeClaim']['claimName']}/{folder}"
