"""Whether objects are there already whose fields the overlay would change, and cannot: they must be deleted first."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from scripts.cluster.doctor.cluster_state import ClusterState, NotFound
from scripts.cluster.doctor.finding import Finding
from scripts.cluster.doctor.manifests import Document, broker_class, mode_of, name_of
from scripts.cluster.doctor.requirements import Requirements

MODES = {"Serverless": "Knative", "RawDeployment": "Standard"}
"""Former names of deployment modes."""


def immutable(cluster: ClusterState, required: Requirements) -> Iterator[Finding]:
    services = present(cluster, required, "inferenceservices.serving.kserve.io", bool(required.inference_services))
    for item in required.inference_services:
        if live := services.get(item["metadata"]["name"]):
            has, wanted = live.get("status", {}).get("deploymentMode", ""), mode_of(item)
            if has and wanted and MODES.get(has, has) != MODES.get(wanted, wanted):
                what = f"{name_of(item)} is there in the mode {has}, and KServe refuses to make it {wanted}"
                yield Finding("wrong", what, delete_first(item, required))
    brokers = present(cluster, required, "brokers.eventing.knative.dev", bool(required.brokers))
    for item in required.brokers:
        if live := brokers.get(item["metadata"]["name"]):
            has, wanted = broker_class(live), broker_class(item)
            if wanted and has != wanted:
                what = f"{name_of(item)} is there with the class {has}, and Knative refuses to make it {wanted}"
                yield Finding("wrong", what, delete_first(item, required))
            elif not covers(live["spec"].get("config"), item.get("spec", {}).get("config")):
                what = f"{name_of(item)} is there with another config, which Knative refuses to change"
                yield Finding("wrong", what, delete_first(item, required))
    jobs = required.of("batch", "Job")
    live_jobs = present(cluster, required, "jobs.batch", bool(jobs))
    for item in jobs:
        live = live_jobs.get(item["metadata"]["name"])
        if live and not covers(live["spec"]["template"], item["spec"]["template"]):
            what = f"{name_of(item)} is there with another pod template, which Kubernetes refuses to change"
            yield Finding("wrong", what, delete_first(item, required))


def present(cluster: ClusterState, required: Requirements, resource: str, wanted: bool) -> dict[str, Document]:
    """Objects in the overlay's namespace, by their names; empty if they cannot be read, or are not `wanted`."""
    with suppress(NotFound):
        if wanted:
            return {item["metadata"]["name"]: item for item in cluster.items(resource, "-n", required.namespace)}
    return {}


def covers(live: Any, ours: Any) -> bool:
    """Whether all that we say is so already. What defaults have added besides does not count."""
    if isinstance(ours, dict):
        return isinstance(live, dict) and all(covers(live.get(key), value) for key, value in ours.items())
    if isinstance(ours, list):
        same = isinstance(live, list) and len(live) == len(ours)
        return same and all(covers(*pair) for pair in zip(live, ours, strict=True))
    return ours is None or bool(live == ours)


def delete_first(item: Document, required: Requirements) -> str:
    kind = {"InferenceService": "inferenceservice", "Broker": "broker.eventing.knative.dev", "Job": "job"}[item["kind"]]
    return f"delete it first: kubectl delete {kind} {item['metadata']['name']} -n {required.namespace}"
