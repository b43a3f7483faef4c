"""What web is told of the predictors and the store: their addresses, and times that must fit together."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from tests.manifests.checks.metadata import seconds
from tests.manifests.checks.objects import Object, environment
from tests.manifests.checks.references.events import check_subject
from tests.manifests.checks.references.object_set import ObjectSet

KILL_SECONDS = 30
"""Between the end of web's grace and SIGKILL, at least."""
QUEUE_PROXY_SECONDS = 90
"""How long Knative's queue-proxy keeps an idle connection to the container: knative/pkg network/transports.go has
Go's default."""


def check(objects: ObjectSet, thing: Object) -> Iterator[str]:
    for container in thing.containers:
        values = environment(container)
        for subject in json.loads(values.get("EVENTS_SUBJECTS", "[]")):
            yield from check_subject(thing, subject)
        yield from _models(objects, thing, json.loads(values.get("MODELS", "{}")))
        if "MODELS" in values:
            yield from _times(objects, thing, values)
            yield from _in_flight(objects, values)
            if thing.is_knative and not float(values.get("KEEP_ALIVE_SECONDS", 0)) > QUEUE_PROXY_SECONDS:
                yield "KEEP_ALIVE_SECONDS: queue-proxy would send a request on a connection that is being closed"


def _models(objects: ObjectSet, thing: Object, models: dict[str, Any]) -> Iterator[str]:
    for name, model in models.items():
        url = urlsplit(model["url"])
        host = f"{name}-predictor.{thing.namespace}.svc.cluster.local"
        if name not in objects.predictors or url.hostname != host:
            yield f"MODELS: {name} is not at {model['url']}"
        if (url.scheme, url.port, url.path) != ("http", None, ""):
            yield f"MODELS: {model['url']} is no address of a predictor"
        if model.get("kind", "text") != ("image" if name == "image" else "text"):
            yield f"MODELS: {name} is of another kind"
    if models and set(models) != set(objects.predictors):
        yield f"MODELS: {sorted(set(models) ^ set(objects.predictors))} are missing here or there"


def _times(objects: ObjectSet, thing: Object, values: dict[str, str]) -> Iterator[str]:
    predictors = objects.predictors.values()
    limit = thing.pod.get("timeoutSeconds", thing.pod.get("terminationGracePeriodSeconds", 0))
    request = max(float(environment(one.containers[0])["PREDICTOR_REQUEST_SECONDS"]) for one in predictors)
    if not request < float(values["GENERATE_SECONDS"]) < limit:
        yield "GENERATE_SECONDS: must lie between what a predictor and what Knative allows"
    if not request < float(values["READ_SECONDS"]) <= float(values["GENERATE_SECONDS"]):
        yield "READ_SECONDS: a request to a waking predictor would be given up"
    retention = "autoscaling.knative.dev/scale-to-zero-pod-retention-period"
    kept = [one.annotations.get(retention, "0s") for one in predictors]
    if {seconds(period) for period in kept} != {float(values["IDLE_SECONDS"])}:
        yield "IDLE_SECONDS: must be how long an idle model stays"
    if not request <= float(values["GRACE_SECONDS"]) <= limit - KILL_SECONDS:
        yield "GRACE_SECONDS: must be enough for a request, and end before the pod is killed"


def _in_flight(objects: ObjectSet, values: dict[str, str]) -> Iterator[str]:
    """All slots of the largest model, so that none is idle, and not many more: what has left web for Knative's
    activator is served without regard to callers."""
    if "MAX_IN_FLIGHT" not in values:
        return
    specs = [one.spec["predictor"] for one in objects.predictors.values()]
    slots = max(spec["maxReplicas"] * spec["containerConcurrency"] for spec in specs)
    if not slots <= int(values["MAX_IN_FLIGHT"]) <= 1.5 * slots:
        yield f"MAX_IN_FLIGHT: must be near {slots}, the slots of a model on all of its pods"
