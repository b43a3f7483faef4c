"""What the objects of one folder say about each other: the names, ports, labels and addresses that one mentions."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from contract.cloudevents import CANCELLED, EVENT_TYPES, MODEL, REQUESTED
from tests.manifests.checks.metadata import seconds
from tests.manifests.checks.objects import Object, environment, our_image, walk

NAMES = {row.name for row in EVENT_TYPES}
PATHS = {"web": {"/events", "/warm"}, "predictor": {"/"}}
"""Routes that take what Knative delivers."""
PROBES = {"web": {"/healthz"}, "predictor": {"/v2/health/ready", "/v2/health/live"}}
NAMESPACES = {"knative-serving", "kourier-system", "istio-system", "contour-internal", "contour-external", "monitoring"}
KNATIVE_PORTS = {8012, 8013, 8112, 9088, 9090, 9091}
PREDICTOR_PORT = 8080
BROKER_CONFIGS = {("v1", "ConfigMap"), ("eventing.knative.dev/v1alpha1", "RabbitmqBrokerConfig")}
SECONDS = re.compile(r"PT(?:(\d+)M)?(?:(\d+)S)?")


def check(objects: list[Object], complete: bool) -> Iterator[str]:
    """`complete` says that nothing is left to other folders."""
    world = _World(objects)
    for thing in objects:
        found = [
            *world.own(thing),
            *(world.between(thing) if complete else ()),
        ]
        yield from (f"{thing.title}: {problem}" for problem in found)
    titles = [(thing.kind, thing.namespace, thing.name) for thing in objects]
    if len(titles) != len(set(titles)):
        yield "an object is there twice"
    if complete:
        yield from world.as_a_whole()


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


class _World:
    def __init__(self, objects: list[Object]) -> None:
        self.objects = objects
        self.named = {(thing.kind, thing.name): thing for thing in objects}
        self.predictors = {thing.name: thing for thing in objects if thing.kind.startswith("InferenceService")}

    # One object by itself, or beside those of its own folder

    def own(self, thing: Object) -> Iterator[str]:
        account = thing.pod.get("serviceAccountName")
        if account and ("ServiceAccount", account) not in self.named:
            yield f"there is no service account {account}"
        if account and account != (thing.name if our_image(thing.containers[0]) == "web" else "predictor"):
            yield f"the service account {account} is somebody else's"
        for volume in thing.pod.get("volumes") or []:
            claim = volume.get("persistentVolumeClaim")
            if claim and ("PersistentVolumeClaim", claim["claimName"]) not in self.named:
                yield f"there is no claim {claim['claimName']}"
        for container in thing.containers:
            yield from self._container(thing, container)
        if thing.kind in ("Deployment.apps", "StatefulSet.apps"):
            selector = thing.spec["selector"]["matchLabels"]
            if not selector.items() <= thing.template["metadata"]["labels"].items():
                yield f"the selector {selector} is not of its own pods"
        if thing.kind == "StatefulSet.apps" and ("Service", thing.spec["serviceName"]) not in self.named:
            yield f"there is no service {thing.spec['serviceName']}"
        if thing.kind == "Service":
            yield from self._service(thing)
        if thing.kind == "PodDisruptionBudget.policy":
            yield from self._own_pods(thing, thing.spec["selector"])
        if thing.kind == "Ingress.networking.k8s.io":
            yield from self._ingress(thing)
        if thing.kind == "LocalModelCache.serving.kserve.io":
            uris = {environment(one.containers[0]).get("STORAGE_URI") for one in self.predictors.values()}
            if thing.spec["sourceModelUri"] not in uris:
                yield f"no InferenceService has {thing.spec['sourceModelUri']}"
            for group in thing.spec["nodeGroups"]:
                if ("LocalModelNodeGroup.serving.kserve.io", group) not in self.named:
                    yield f"there is no node group {group}"
        if thing.kind == "LocalModelNodeGroup.serving.kserve.io":
            yield from _node_group(thing.spec)
        if thing.kind == "EventType.eventing.knative.dev":
            yield from _event_type(thing)
        if thing.kind == "Trigger.eventing.knative.dev":
            yield from self._trigger(thing)
        if (
            thing.kind == "Namespace"
            and thing.name != {other.namespace for other in self.objects if other.namespace}.pop()
        ):
            yield "is not the namespace of the others"

    def _container(self, thing: Object, container: dict[str, Any]) -> Iterator[str]:
        image = our_image(container)
        ports = {str(port["containerPort"]) for port in container.get("ports") or []}
        ports |= {port["name"] for port in container.get("ports") or [] if "name" in port}
        for name in ("readinessProbe", "livenessProbe"):
            probe = container.get(name)
            if image and probe is None:
                yield f"{name} is missing"
            for handler in ("httpGet", "tcpSocket"):
                if probe and handler in probe and str(probe[handler]["port"]) not in ports:
                    yield f"{name}: there is no port {probe[handler]['port']}"
            if image and probe and probe["httpGet"]["path"] not in PROBES[image]:
                yield f"{name}: {probe['httpGet']['path']} is no route for it"
        if image:
            if not any(port["containerPort"] == PREDICTOR_PORT for port in container["ports"]):
                yield "the image listens on 8080"
            mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
            if mounts - {"/artifacts"} != ({"/tmp"} if image == "web" else {"/tmp", "/dev/shm"}):
                yield f"mounts {sorted(mounts)}"
            artifacts = environment(container).get("ARTIFACTS_URL")
            if ("/artifacts" in mounts) != (artifacts == "file:///artifacts"):
                yield "ARTIFACTS_URL and the volume do not match"
            if image == "predictor" and container["readinessProbe"]["httpGet"]["path"] != "/v2/health/ready":
                yield "readinessProbe: only /v2/health/ready tells whether a request would be answered"
        uri = environment(container).get("STORAGE_URI", "")
        if uri.startswith("pvc://"):
            claim, _, folder = uri.removeprefix("pvc://").partition("/")
            if ("PersistentVolumeClaim", claim) not in self.named or folder != thing.name:
                yield f"{uri} is no folder of a claim"
        elif uri and "PREDICTOR_MODEL" in environment(container):
            yield "has both a STORAGE_URI and a PREDICTOR_MODEL"

    def _service(self, thing: Object) -> Iterator[str]:
        selector = {"matchLabels": thing.spec["selector"]}
        yield from self._own_pods(thing, selector)
        pods = self._pods(selector)
        if thing.name == "web" and [port["port"] for port in thing.spec["ports"]] != [80]:
            yield "is for HTTP"
        for port in thing.spec["ports"]:
            target = str(port.get("targetPort", port["port"]))
            if port["name"] != target:
                yield f"the port {target} is called {port['name']}"
            for pod in pods:
                ports = [port for container in pod.containers for port in container.get("ports") or []]
                if target not in {str(port["containerPort"]) for port in ports} | {port.get("name") for port in ports}:
                    yield f"{pod.title} has no port {target}"

    def _own_pods(self, thing: Object, selector: dict[str, Any]) -> Iterator[str]:
        if {_pod_labels(pod).get("app.kubernetes.io/name") for pod in self._pods(selector)} != {thing.name}:
            yield "selects other pods than its own, or none"

    def _ingress(self, thing: Object) -> Iterator[str]:
        for rule in thing.spec["rules"]:
            for path in rule["http"]["paths"]:
                backend = path["backend"]["service"]
                service = self.named.get(("Service", backend["name"]))
                ports = service.spec["ports"] if service else []
                if not any(backend["port"] in ({"name": port["name"]}, {"number": port["port"]}) for port in ports):
                    yield f"there is no service {backend['name']} with the port {backend['port']}"
                if (path["path"], path["pathType"]) != ("/", "Prefix"):
                    yield "web takes every path"

    def _pods(self, selector: dict[str, Any]) -> list[Object]:
        return [thing for thing in self.objects if thing.template and _selects(selector, _pod_labels(thing))]

    def _trigger(self, thing: Object) -> Iterator[str]:
        filters = thing.spec.get("filters") or []
        types = {value["type"] for _, value in walk(filters) if isinstance(value, dict) and "type" in value}
        models = {value["model"] for _, value in walk(filters) if isinstance(value, dict) and "model" in value}
        keys = {key for _, value in walk(filters) if isinstance(value, dict) for key in value}
        sql = {value["cesql"] for _, value in walk(filters) if isinstance(value, dict) and "cesql" in value}
        if not types or types - NAMES:
            yield f"there are no events of the types {sorted(types - NAMES)}"
        if keys - {"exact", "any", "cesql", "type", MODEL} or sql - {f"NOT EXISTS {MODEL}"}:
            yield f"filters by {sorted(keys)}, {sorted(sql)}"
        target = thing.spec["subscriber"]["ref"]["name"]
        for_predictor = {REQUESTED, CANCELLED}
        if target == "inbox":
            if types != NAMES - for_predictor or models:
                yield "web takes everything that predictors say, and nothing else"
        elif not types <= for_predictor or models != {target.removesuffix("-predictor")}:
            yield f"{target} is not who takes this"
        if thing.spec["broker"] != "default":
            yield f"there is no broker {thing.spec['broker']}"
        delivery = thing.spec["delivery"]
        if REQUESTED in types and "deadLetterSink" not in delivery:
            yield "a request that cannot be delivered would be lost"
        minutes, seconds = SECONDS.fullmatch(delivery["timeout"]).groups("0")  # type: ignore[union-attr]
        if target != "inbox" and int(minutes) * 60 + int(seconds) <= 600:
            yield "delivery.timeout: a request would be sent again while it runs"

    # Between the objects of a whole deployment

    def between(self, thing: Object) -> Iterator[str]:
        for path, value in walk(thing.spec):
            if path.endswith("ref") and isinstance(value, dict):
                yield from self._reference(thing, path, value)
        for container in thing.containers:
            yield from self._addresses(thing, container)
        if thing.kind == "SinkBinding.sources.knative.dev":
            subject = thing.spec["subject"]
            kind = Object({"apiVersion": subject["apiVersion"], "kind": subject["kind"], "metadata": {}}).kind
            if not any(one.kind == kind and _selects(subject["selector"], one.labels) for one in self.objects):
                yield "binds nothing"
        if thing.kind == "NetworkPolicy.networking.k8s.io":
            yield from self._policy(thing)
        if thing.kind == "EventPolicy.eventing.knative.dev":
            for sender in thing.spec["from"]:
                yield from _subject(thing, sender["sub"])
        config = thing.spec.get("config") if thing.kind == "Broker.eventing.knative.dev" else None
        if config and (config["apiVersion"], config["kind"]) not in BROKER_CONFIGS:
            yield f"config: nobody knows {config['kind']} of {config['apiVersion']}"
        if config and config.get("namespace", "") != "knative-eventing":
            kind = Object({"apiVersion": config["apiVersion"], "kind": config["kind"], "metadata": {}}).kind
            if (kind, config["name"]) not in self.named:
                yield f"there is no {kind}/{config['name']}"
        if config and config.get("namespace") == "knative-eventing" and config["name"] != "config-br-default-channel":
            yield "Eventing has no such ConfigMap"
        if thing.kind == "InMemoryChannel.messaging.knative.dev" and thing.name != "default-kne-trigger":
            yield "is not the channel that the Broker looks for"

    def _reference(self, thing: Object, path: str, ref: dict[str, str]) -> Iterator[str]:
        kind = Object({"apiVersion": ref["apiVersion"], "kind": ref["kind"], "metadata": {}}).kind
        if path.endswith("configRef"):
            return
        uri = _at(thing.spec, path.rpartition(".")[0]).get("uri")
        if (kind, ref["name"]) in self.named:
            room = "web"
        elif kind == "Service.serving.knative.dev" and ref["name"].removesuffix("-predictor") in self.predictors:
            room = "predictor"
        else:
            yield f"{path}: there is no {kind}/{ref['name']}"
            return
        if kind == "Service.serving.knative.dev" and uri not in PATHS[room]:
            yield f"{path}: {uri} is no route of {ref['name']}"
        if uri == "/events" and ref["name"] != "inbox":
            yield f"{path}: {ref['name']} takes no events"
        if uri == "/warm" and json.loads(thing.spec["data"]).get("model") not in self.predictors:
            yield "data: there is no such model"

    def _addresses(self, thing: Object, container: dict[str, Any]) -> Iterator[str]:
        values = environment(container)
        for subject in json.loads(values.get("EVENTS_SUBJECTS", "[]")):
            yield from _subject(thing, subject)
        models = json.loads(values.get("MODELS", "{}"))
        for name, model in models.items():
            url = urlsplit(model["url"])
            if name not in self.predictors or url.hostname != f"{name}-predictor.{thing.namespace}.svc.cluster.local":
                yield f"MODELS: {name} is not at {model['url']}"
            if (url.scheme, url.port, url.path) != ("http", None, ""):
                yield f"MODELS: {model['url']} is no address of a predictor"
            if model.get("kind", "text") != ("image" if name == "image" else "text"):
                yield f"MODELS: {name} is of another kind"
        if models and set(models) != set(self.predictors):
            yield f"MODELS: {sorted(set(models) ^ set(self.predictors))} are missing here or there"
        if url := values.get("STORE_URL"):
            store = urlsplit(url)
            service = self.named.get(("Service", store.hostname or ""))
            if service is None or store.port not in [port["port"] for port in service.spec["ports"]]:
                yield f"STORE_URL: there is no {url}"
        if "MODELS" in values:
            limit = thing.pod.get("timeoutSeconds", thing.pod.get("terminationGracePeriodSeconds", 0))
            requests = [
                float(environment(one.containers[0])["PREDICTOR_REQUEST_SECONDS"]) for one in self.predictors.values()
            ]
            if not max(requests) < float(values["GENERATE_SECONDS"]) < limit:
                yield "GENERATE_SECONDS: must lie between what a predictor and what Knative allows"
            if not max(requests) < float(values["READ_SECONDS"]) <= float(values["GENERATE_SECONDS"]):
                yield "READ_SECONDS: a waking predictor would be given up"
            kept = [
                one.annotations.get("autoscaling.knative.dev/scale-to-zero-pod-retention-period", "0s")
                for one in self.predictors.values()
            ]
            if {seconds(period) for period in kept} != {float(values["IDLE_SECONDS"])}:
                yield "IDLE_SECONDS: must be how long a model stays"
            if not max(requests) <= float(values["GRACE_SECONDS"]) <= limit - 30:
                yield "GRACE_SECONDS: must be enough for a request, and end before the pod is killed"

    def _policy(self, thing: Object) -> Iterator[str]:
        selector = thing.spec["podSelector"]
        pods = self._pods(selector)
        if not pods:
            yield "selects no pods"
        if thing.spec["policyTypes"] != ["Ingress"]:
            yield "is for what comes in"
        if thing.name == "knative":
            opened = {port["port"] for rule in thing.spec["ingress"] for port in rule["ports"]}
            if opened != KNATIVE_PORTS | {PREDICTOR_PORT}:
                yield f"opens {sorted(opened)}"
        yield from self._each_value(selector)
        ports = {port["containerPort"] for pod in pods for one in pod.containers for port in one.get("ports") or []}
        names = {port.get("name") for pod in pods for one in pod.containers for port in one.get("ports") or []}
        for rule in thing.spec.get("ingress") or []:
            for port in rule["ports"]:
                if port["port"] not in ports | names | (
                    KNATIVE_PORTS if any(pod.is_knative for pod in pods) else set()
                ):
                    yield f"nobody listens on {port['port']}"
            for peer in rule.get("from") or []:
                if "podSelector" in peer:
                    yield from self._each_value(peer["podSelector"])
                    if not self._pods(peer["podSelector"]):
                        yield "lets in nobody"
                if "namespaceSelector" in peer and not _selects_namespaces(peer["namespaceSelector"]):
                    yield f"there is no namespace {peer['namespaceSelector']}"

    def _each_value(self, selector: dict[str, Any]) -> Iterator[str]:
        pods = self._pods(selector)
        for each in selector.get("matchExpressions") or []:
            for value in set(each["values"]) - {_pod_labels(pod).get(each["key"]) for pod in pods}:
                yield f"no pods are {value}"

    def as_a_whole(self) -> Iterator[str]:
        if not {"text", "image"} <= set(self.predictors):
            yield "a predictor is missing"
        if not any(thing.kind == "Namespace" for thing in self.objects):
            yield "the namespace is missing"
        policies = [
            thing for thing in self.objects if thing.kind.startswith("NetworkPolicy") and "ingress" in thing.spec
        ]
        reached = [pod.title for policy in policies for pod in self._pods(policy.spec["podSelector"])]
        for thing in self.objects:
            if any(container.get("ports") for container in thing.containers) and thing.title not in reached:
                yield f"no policy lets anybody in to {thing.title}"
        brokers = [thing for thing in self.objects if thing.kind == "Broker.eventing.knative.dev"]
        for kind in NAMES if brokers else ():
            if not any(thing.name == kind for thing in self.objects if thing.kind.startswith("EventType")):
                yield f"there is no EventType for {kind}"
        for name in self.predictors if brokers else ():
            for kind in ("requests", "cancellations"):
                if ("Trigger.eventing.knative.dev", f"{name}-{kind}") not in self.named:
                    yield f"{name} gets no {kind}"
        if brokers and "eventing.knative.dev/broker.class" not in brokers[0].annotations:
            yield "whose class the Broker is, is left to the cluster"
        audiences = {
            str(value) for thing in self.objects for path, value in walk(thing.spec) if path.endswith("audience")
        }
        inbox = self.named.get(("Service.serving.knative.dev", "inbox"))
        if inbox:
            values = environment(inbox.containers[0])
            if audiences != ({values["EVENTS_AUDIENCE"]} if "EVENTS_AUDIENCE" in values else set()):
                yield f"inbox and {sorted(audiences)} do not agree on an audience"
            if "EVENTS_AUDIENCE" not in values and values.get("EVENTS_OPEN") != "true":
                yield "inbox takes no events"
            if inbox.labels.get("networking.knative.dev/visibility") != "cluster-local":
                yield "inbox has a public address"
            web = environment(self.named["Service.serving.knative.dev", "web"].containers[0])
            if {"EVENTS_OPEN", "EVENTS_AUDIENCE", "EVENTS_SECRET"} & set(web):
                yield "the public web takes events"
            for name in ("MODELS", "DISPATCH", "STORE_URL", "ARTIFACTS_URL"):
                if web.get(name) != values.get(name):
                    yield f"web and inbox differ in {name}"


def _at(document: Any, path: str) -> Any:
    for key, number in re.findall(r"([\w-]+)|\[(\d+)\]", path):
        document = document[int(number)] if number else document[key]
    return document


def _pod_labels(thing: Object) -> dict[str, str]:
    return (thing.template.get("metadata") or {}).get("labels") or {}


def _selects(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    wanted = selector.get("matchLabels") or {}
    expressions = selector.get("matchExpressions") or []
    return wanted.items() <= labels.items() and all(
        each["operator"] == "In" and labels.get(each["key"]) in each["values"] for each in expressions
    )


def _subject(thing: Object, subject: str) -> Iterator[str]:
    if not re.fullmatch(rf"system:serviceaccount:{thing.namespace}:(\*|[a-z0-9-]+)", subject):
        yield f"{subject} is nobody of this namespace"


def _selects_namespaces(selector: dict[str, Any]) -> bool:
    """By nothing but the name, and each of them may be there."""
    terms = [(key, "In", [value]) for key, value in (selector.get("matchLabels") or {}).items()]
    terms += [(each["key"], each["operator"], each["values"]) for each in selector.get("matchExpressions") or []]
    return bool(terms) and all(
        (key, operator) == ("kubernetes.io/metadata.name", "In") and set(values) <= NAMESPACES
        for key, operator, values in terms
    )


def _event_type(thing: Object) -> Iterator[str]:
    attributes = {each["name"]: each for each in thing.spec["attributes"]}
    if attributes.get("type", {}).get("value") != thing.name or thing.name not in NAMES:
        yield "is not the type that it describes"
    if attributes.get("specversion", {}).get("value") != "1.0":
        yield "is of no version of CloudEvents"
    for name in ("type", "source", "id", "specversion"):
        if not attributes.get(name, {}).get("required"):
            yield f"{name} is always there"
    if set(attributes) - {"type", "source", "id", "specversion", "subject", MODEL}:
        yield f"has {sorted(attributes)}"
    reference = thing.spec["reference"]
    if (reference["apiVersion"], reference["kind"], reference["name"]) != (
        "eventing.knative.dev/v1",
        "Broker",
        "default",
    ):
        yield "is of another Broker"


def _node_group(spec: dict[str, Any]) -> Iterator[str]:
    volume, claim = spec["persistentVolumeSpec"], spec["persistentVolumeClaimSpec"]
    if volume["storageClassName"] != claim["storageClassName"] or volume["accessModes"] != claim["accessModes"]:
        yield "claim and volume do not fit"
    if claim["resources"]["requests"]["storage"] != volume["capacity"]["storage"]:
        yield "claim and volume are of different sizes"
    nodes = [value for _, value in walk(volume["nodeAffinity"]) if isinstance(value, dict) and "key" in value]
    wanted = [{"key": "nvidia.com/gpu.present", "operator": "In", "values": ["true"]}]
    if nodes != wanted or not volume["local"]["path"].startswith("/"):
        yield "is on no nodes"
