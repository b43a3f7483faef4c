"""What the objects of one folder say about each other: the names, ports, labels and addresses that one mentions."""

from __future__ import annotations

from collections.abc import Iterator

from tests.manifests.checks import pod_security, quota
from tests.manifests.checks.objects import Object
from tests.manifests.checks.references import (
    access,
    deployment,
    events,
    metrics,
    models,
    network,
    secrets,
    store,
    waiting,
    web,
    workloads,
)
from tests.manifests.checks.references.object_set import ObjectSet


def check(objects: list[Object], complete: bool) -> Iterator[str]:
    """`complete` says that nothing is left to other folders."""
    found = ObjectSet(objects)
    checks = [
        workloads.check,
        network.check,
        events.check,
        models.check,
        metrics.check,
        secrets.check,
        access.check,
        store.check,
    ]
    if complete:
        checks += [network.check_policies, metrics.check_policies, events.check_routes, web.check]
    for thing in objects:
        yield from (f"{thing.title}: {problem}" for one in checks for problem in one(found, thing))
    titles = [(thing.kind, thing.namespace, thing.name) for thing in objects]
    if len(titles) != len(set(titles)):
        yield "an object is there twice"
    if complete:
        yield from deployment.check(found)
        yield from waiting.check(found)
        yield from secrets.check_callers(found)
        yield from store.check_password(found)
        yield from pod_security.check(found)
        yield from quota.check(found)
