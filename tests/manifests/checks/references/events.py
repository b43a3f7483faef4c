"""The ways of events: event types, Triggers, Brokers, sinks and who may send."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from contract.cloudevents import CANCELLED, EVENT_TYPES, MODEL, REQUESTED
from tests.manifests.checks.objects import Object, environment, walk
from tests.manifests.checks.references.object_set import ObjectSet, kind_of, selects

NAMES = {row.name for row in EVENT_TYPES}
PATHS = {"web": {"/events", "/warm"}, "predictor": {"/"}}
"""Routes that take what Knative delivers."""
BROKERS = {
    "MTChannelBasedBroker": "broker-ingress.knative-eventing.svc.cluster.local",
    "Kafka": "kafka-broker-ingress.knative-eventing.svc.cluster.local",
}
"""Classes of Brokers, and the host that takes events for all of a class: its paths are their namespaces and names."""
DURATION = re.compile(r"PT(?:(\d+)M)?(?:(\d+)S)?")
REQUEST_SECONDS = 600
"""How long a predictor may take, at most."""


def check(objects: ObjectSet, thing: Object) -> Iterator[str]:
    if thing.kind == "EventType.eventing.knative.dev":
        yield from _event_type(thing)
    if thing.kind == "Trigger.eventing.knative.dev":
        yield from _trigger(thing)


def _event_type(thing: Object) -> Iterator[str]:
    attributes = {each["name"]: each for each in thing.spec["attributes"]}
    if attributes.get("type", {}).get("value") != thing.name or thing.name not in NAMES:
        yield "is not the type that it describes"
    if attributes.get("specversion", {}).get("value") != "1.0":
        yield "specversion: must be 1.0"
    for name in ("type", "source", "id", "specversion"):
        if not attributes.get(name, {}).get("required"):
            yield f"{name}: is required of every event"
    if set(attributes) - {"type", "source", "id", "specversion", "subject", MODEL}:
        yield f"has the attributes {sorted(attributes)}"
    reference = thing.spec["reference"]
    broker = ("eventing.knative.dev/v1", "Broker", "default")
    if (reference["apiVersion"], reference["kind"], reference["name"]) != broker:
        yield "is of another Broker"


def _trigger(thing: Object) -> Iterator[str]:
    filters = [value for _, value in walk(thing.spec.get("filters") or []) if isinstance(value, dict)]
    filters += [thing.spec["filter"]["attributes"]] if "filter" in thing.spec else []
    types = {value["type"] for value in filters if "type" in value}
    models = {value["model"] for value in filters if "model" in value}
    keys = {key for value in filters for key in value}
    sql = {value["cesql"] for value in filters if "cesql" in value}
    if not types or types - NAMES:
        yield f"there are no events of the types {sorted(types - NAMES)}"
    if keys - {"exact", "any", "cesql", "type", MODEL} or sql - {f"NOT EXISTS {MODEL}"}:
        yield f"filters by {sorted(keys)}, {sorted(sql)}"
    target = thing.spec["subscriber"]["ref"]["name"]
    for_predictor = {REQUESTED, CANCELLED}
    if target == "inbox":
        if types != NAMES - for_predictor or models:
            yield "web takes all events of predictors, and no others"
    elif not types <= for_predictor or models != {target.removesuffix("-predictor")}:
        yield f"{target} does not take these events"
    if thing.spec["broker"] != "default":
        yield f"there is no broker {thing.spec['broker']}"
    delivery = thing.spec["delivery"]
    if REQUESTED in types and "deadLetterSink" not in delivery:
        yield "a request that cannot be delivered would be lost"
    minutes, seconds = DURATION.fullmatch(delivery["timeout"]).groups("0")  # type: ignore[union-attr]
    if target != "inbox" and int(minutes) * 60 + int(seconds) <= REQUEST_SECONDS:
        yield "delivery.timeout: a request would be sent again while it runs"


def check_routes(objects: ObjectSet, thing: Object) -> Iterator[str]:
    """Where events go to, and by whose leave, in a whole deployment."""
    for path, value in walk(thing.spec):
        if path.endswith("ref") and isinstance(value, dict):
            yield from _reference(objects, thing, path, value)
    if thing.kind == "SinkBinding.sources.knative.dev":
        subject = thing.spec["subject"]
        kind = kind_of(subject)
        if not any(one.kind == kind and selects(subject["selector"], one.labels) for one in objects.objects):
            yield "binds nothing"
    if thing.kind == "EventPolicy.eventing.knative.dev":
        for sender in thing.spec["from"]:
            yield from check_subject(thing, sender["sub"])
    if thing.kind == "Broker.eventing.knative.dev" and (config := thing.spec.get("config")):
        yield from _broker_config(objects, config)
    for container in thing.containers:
        if sink := environment(container).get("K_SINK"):
            yield from _sink(objects, thing, sink)


def _sink(objects: ObjectSet, thing: Object, sink: str) -> Iterator[str]:
    broker = objects.named.get(("Broker.eventing.knative.dev", "default"))
    host = BROKERS.get(broker.annotations.get("eventing.knative.dev/broker.class", "")) if broker else None
    if sink != f"http://{host}/{thing.namespace}/default":
        yield f"K_SINK: {sink} is not the Broker that there is"
    for path, value in walk(thing.pod.get("volumes")):
        if path.endswith(".audience") and value != f"eventing.knative.dev/broker/{thing.namespace}/default":
            yield f"volumes: {value} is not what the Broker is called in tokens"


def check_subject(thing: Object, subject: str) -> Iterator[str]:
    if not re.fullmatch(rf"system:serviceaccount:{thing.namespace}:(\*|[a-z0-9-]+)", subject):
        yield f"{subject} is no account of this namespace"


def _broker_config(objects: ObjectSet, config: dict[str, str]) -> Iterator[str]:
    if (config["apiVersion"], config["kind"]) != ("v1", "ConfigMap"):
        yield f"config: no Broker takes a {config['kind']} of {config['apiVersion']}"
    if config.get("namespace", "") == "knative-eventing":
        if config["name"] != "config-br-default-channel":
            yield "Eventing has no such ConfigMap"
    elif (kind_of(config), config["name"]) not in objects.named:
        yield f"there is no {kind_of(config)}/{config['name']}"


def _reference(objects: ObjectSet, thing: Object, path: str, reference: dict[str, str]) -> Iterator[str]:
    kind, name = kind_of(reference), reference["name"]
    if (kind, name) in objects.named:
        server = "web"
    elif kind == "Service.serving.knative.dev" and name.removesuffix("-predictor") in objects.predictors:
        server = "predictor"
    else:
        yield f"{path}: there is no {kind}/{name}"
        return
    uri = _at(thing.spec, path.rpartition(".")[0]).get("uri")
    if kind == "Service.serving.knative.dev" and uri not in PATHS[server]:
        yield f"{path}: {uri} is no route of {name}"
    if uri == "/events" and name != "inbox":
        yield f"{path}: {name} takes no events"
    if uri == "/warm" and name != "inbox":
        yield f"{path}: {name} asks for the key of a caller"
    if uri == "/warm" and json.loads(thing.spec["data"]).get("model") not in objects.predictors:
        yield "data: there is no such model"


def _at(document: Any, path: str) -> Any:
    for key, number in re.findall(r"([\w-]+)|\[(\d+)\]", path):
        document = document[int(number)] if number else document[key]
    return document
