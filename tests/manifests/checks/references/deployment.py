"""A whole deployment: what must be there, and what web and its inbox must agree on."""

from __future__ import annotations

from collections.abc import Iterator

from tests.manifests.checks.objects import Object, environment, walk
from tests.manifests.checks.references.events import NAMES
from tests.manifests.checks.references.object_set import ObjectSet


def check(objects: ObjectSet) -> Iterator[str]:
    if not {"text", "image"} <= set(objects.predictors):
        yield "a predictor is missing"
    if not any(thing.kind == "Namespace" for thing in objects.objects):
        yield "the namespace is missing"
    policies = [
        thing for thing in objects.objects if thing.kind.startswith("NetworkPolicy") and "ingress" in thing.spec
    ]
    reached = [pod.title for policy in policies for pod in objects.pods(policy.spec["podSelector"])]
    for thing in objects.objects:
        if any(container.get("ports") for container in thing.containers) and thing.title not in reached:
            yield f"no policy lets anybody in to {thing.title}"
    brokers = [thing for thing in objects.objects if thing.kind == "Broker.eventing.knative.dev"]
    if brokers:
        yield from _events(objects, brokers[0])
    if inbox := objects.named.get(("Service.serving.knative.dev", "inbox")):
        yield from _inbox(objects, inbox)


def _events(objects: ObjectSet, broker: Object) -> Iterator[str]:
    described = {thing.name for thing in objects.objects if thing.kind.startswith("EventType")}
    for name in sorted(NAMES - described):
        yield f"there is no EventType for {name}"
    for name in objects.predictors:
        for kind in ("requests", "cancellations"):
            if ("Trigger.eventing.knative.dev", f"{name}-{kind}") not in objects.named:
                yield f"{name} gets no {kind}"
    if "eventing.knative.dev/broker.class" not in broker.annotations:
        yield "the Broker's class is left to the cluster"


def _inbox(objects: ObjectSet, inbox: Object) -> Iterator[str]:
    values = environment(inbox.containers[0])
    audiences = {
        str(value)
        for thing in objects.objects
        for path, value in walk(thing.spec)
        # A PingSource's counts only where tokens are sent at all; that of web's own token is the Broker's.
        if path.endswith("audience")
        and (thing.kind != "PingSource.sources.knative.dev" or "EVENTS_AUDIENCE" in values)
        and "serviceAccountToken" not in path
    }
    if audiences != ({values["EVENTS_AUDIENCE"]} if "EVENTS_AUDIENCE" in values else set()):
        yield f"inbox and {sorted(audiences)} do not agree on an audience"
    if "EVENTS_AUDIENCE" not in values and values.get("EVENTS_OPEN") != "true":
        yield "inbox takes no events"
    if inbox.labels.get("networking.knative.dev/visibility") != "cluster-local":
        yield "inbox has a public address"
    web = environment(objects.named["Service.serving.knative.dev", "web"].containers[0])
    if {"EVENTS_OPEN", "EVENTS_AUDIENCE", "EVENTS_SECRET"} & set(web):
        yield "the public web takes events"
    for name in ("MODELS", "STORE_URL", "ARTIFACTS_URL", "PREDICTOR_TOKEN"):
        if web.get(name) != values.get(name):
            yield f"web and inbox differ in {name}"
