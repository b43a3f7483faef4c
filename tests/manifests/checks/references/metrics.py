"""Who scrapes whom."""

from __future__ import annotations

from collections.abc import Iterator

from tests.manifests.checks.objects import Object
from tests.manifests.checks.references.object_set import ObjectSet, pod_labels
from tests.manifests.checks.references.workloads import PORT


def check(objects: ObjectSet, thing: Object) -> Iterator[str]:
    if thing.kind != "PodMonitor.monitoring.coreos.com":
        return
    if {pod.name for pod in objects.pods(thing.spec["selector"])} != set(objects.predictors):
        yield "selects other pods than the predictors, or none"
    for label in thing.spec.get("podTargetLabels") or []:
        if not all(label in pod_labels(pod) for pod in objects.predictors.values()):
            yield f"predictors have no label {label}"
    for endpoint in thing.spec["podMetricsEndpoints"]:
        if (endpoint["portNumber"], endpoint["path"]) != (PORT, "/metrics"):
            yield f"no predictor has metrics at {endpoint}"
