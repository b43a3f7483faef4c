"""All checks that concern an overlay, in the order in which things are best fixed."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from scripts.cluster.doctor.checks import api_server, gpus, images, ingress, nodes, serving, storage
from scripts.cluster.doctor.checks.autoscaling import autoscaling
from scripts.cluster.doctor.checks.eventing import eventing
from scripts.cluster.doctor.checks.immutable import immutable
from scripts.cluster.doctor.checks.kserve import kserve
from scripts.cluster.doctor.cluster_state import ClusterState, NotFound
from scripts.cluster.doctor.finding import Finding
from scripts.cluster.doctor.requirements import Requirements

Check = Callable[[ClusterState, Requirements], Iterator[Finding]]


def examine(cluster: ClusterState, required: Requirements) -> Iterator[Finding]:
    """What all checks have found; raises an Unreachable."""
    yield api_server.kubernetes(cluster, required)  # raises an Unreachable
    served = api_server.served_kinds(cluster, required)
    yield from api_server.missing_kinds(served)
    for check in checks(required):
        try:
            yield from check(cluster, required)
        except NotFound as error:
            yield Finding("wrong", str(error), "install what is missing, or ask for leave to read it")
    yield api_server.permissions(cluster, required.namespace, served)


def checks(required: Requirements) -> Iterator[Check]:
    if required.uses_knative:
        yield serving.serving
        yield ingress.ingress
        yield ingress.policies
        yield ingress.mesh
        yield serving.domain
        yield serving.settings
    if required.inference_services:
        yield kserve
    if required.uses_eventing:
        yield eventing
    yield api_server.namespace
    yield api_server.gateways
    yield autoscaling
    yield images.images
    yield storage.secrets
    yield storage.storage
    yield nodes.runtime_classes
    yield nodes.priority_classes
    yield nodes.placement
    yield nodes.devices
    yield gpus.drivers
    yield immutable
