"""Who reaches which port: Services, Ingresses, disruption budgets and network policies."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.manifests.checks.metadata import seconds
from tests.manifests.checks.objects import Object, our_image
from tests.manifests.checks.references.object_set import ObjectSet, pod_labels
from tests.manifests.checks.references.workloads import METRICS_PORT, PORT

INGRESSES = {
    "knative-serving", "kourier-system", "istio-system", "istio-ingress", "contour-internal", "contour-external",
    "envoy-gateway-system", "eg-internal", "eg-external", "knative-serving-ingress", "openshift-ingress",
}  # fmt: skip
"""Where the ingresses that Knative has are installed: config/ and third_party/ of knative-extensions/net-kourier,
net-istio, net-contour and net-gateway-api; Istio's Helm chart; OpenShift."""
MONITORINGS = {"monitoring", "openshift-monitoring", "openshift-user-workload-monitoring"}
"""Where a Prometheus runs."""
PEERS = [
    [
        {"matchExpressions": [{"key": "kubernetes.io/metadata.name", "operator": "In", "values": sorted(names)}]},
        {"matchLabels": {f"shangcai.ai/{what}": "true"}},
    ]
    for what, names in (("ingress", INGRESSES), ("monitoring", MONITORINGS))
]
"""The namespaces that a rule lets in: the known ones by name, and by a label whichever a user has."""
KNATIVE_PORTS = {8012, 8013, 8112, 9088, 9090, 9091}
"""Of the queue proxy, which is in each pod of Knative."""
ANSWER_SECONDS = 600
"""As long as web takes for an answer, at most, with some room."""


def check(objects: ObjectSet, thing: Object) -> Iterator[str]:
    if thing.kind == "Service":
        yield from _service(objects, thing)
    if thing.kind == "PodDisruptionBudget.policy":
        yield from _own_pods(objects, thing, thing.spec["selector"])
    if thing.kind == "Ingress.networking.k8s.io":
        yield from _ingress(objects, thing)
    if thing.kind == "HTTPRoute.gateway.networking.k8s.io":
        yield from _http_route(objects, thing)


def _service(objects: ObjectSet, thing: Object) -> Iterator[str]:
    selector = {"matchLabels": thing.spec["selector"]}
    yield from _own_pods(objects, thing, selector)
    if thing.name == "web" and [port["port"] for port in thing.spec["ports"]] != [80]:
        yield "must listen on port 80"
    for port in thing.spec["ports"]:
        target = str(port.get("targetPort", port["port"]))
        if port["name"] != target:
            yield f"the port {target} is called {port['name']}"
        for pod in objects.pods(selector):
            ports = [port for container in pod.containers for port in container.get("ports") or []]
            if target not in {str(port["containerPort"]) for port in ports} | {port.get("name") for port in ports}:
                yield f"{pod.title} has no port {target}"


def _own_pods(objects: ObjectSet, thing: Object, selector: dict[str, Any]) -> Iterator[str]:
    if {_called(pod_labels(pod)) for pod in objects.pods(selector)} != {thing.name}:
        yield "selects other pods than its own, or none"


def _called(labels: dict[str, str]) -> str | None:
    return labels.get("app.kubernetes.io/component", labels.get("app.kubernetes.io/name"))


def _ingress(objects: ObjectSet, thing: Object) -> Iterator[str]:
    for rule in thing.spec["rules"]:
        for path in rule["http"]["paths"]:
            backend = path["backend"]["service"]
            service = objects.named.get(("Service", backend["name"]))
            ports = service.spec["ports"] if service else []
            if not any(backend["port"] in ({"name": port["name"]}, {"number": port["port"]}) for port in ports):
                yield f"there is no service {backend['name']} with the port {backend['port']}"
            if (path["path"], path["pathType"]) != ("/", "Prefix"):
                yield "must pass every path on to web"


def _http_route(objects: ObjectSet, thing: Object) -> Iterator[str]:
    for rule in thing.spec["rules"]:
        for backend in rule["backendRefs"]:
            service = objects.named.get(("Service", backend["name"]))
            if service is None or backend["port"] not in [port["port"] for port in service.spec["ports"]]:
                yield f"there is no service {backend['name']} with the port {backend['port']}"
        if seconds(rule["timeouts"]["request"]) < ANSWER_SECONDS:
            yield "timeouts.request: would end an answer that web still works on"


def check_policies(objects: ObjectSet, thing: Object) -> Iterator[str]:
    """A network policy selects pods that there are, and lets in only whom there may be, to ports that they have."""
    if thing.kind != "NetworkPolicy.networking.k8s.io":
        return
    selector = thing.spec["podSelector"]
    pods = objects.pods(selector)
    if not pods:
        yield "selects no pods"
    if thing.spec["policyTypes"] != ["Ingress"]:
        yield "must be about ingress only"
    if thing.name == "knative":
        opened = {port["port"] for rule in thing.spec["ingress"] for port in rule["ports"]}
        if opened != KNATIVE_PORTS | {PORT, METRICS_PORT}:
            yield f"opens {sorted(opened)}"
    yield from _each_value(objects, selector)
    listening = [port for pod in pods for one in pod.containers for port in one.get("ports") or []]
    ports = {port["containerPort"] for port in listening} | {port.get("name") for port in listening}
    ports |= KNATIVE_PORTS if any(pod.is_knative for pod in pods) else set()
    ports |= {METRICS_PORT} if any(our_image(one) == "web" for pod in pods for one in pod.containers) else set()
    for rule in thing.spec.get("ingress") or []:
        for port in rule["ports"]:
            if port["port"] not in ports:
                yield f"no pod listens on {port['port']}"
        for peer in rule.get("from") or []:
            if "podSelector" in peer:
                yield from _each_value(objects, peer["podSelector"])
                if not objects.pods(peer["podSelector"]):
                    yield "lets in pods that there are not"
        if METRICS_PORT in [port["port"] for port in rule["ports"]] and not lets_prometheus_in(rule):
            yield "lets others than Prometheus ask for metrics"
        if not _selects_namespaces(rule):
            yield f"lets in other namespaces than there may be: {rule['from']}"


def _each_value(objects: ObjectSet, selector: dict[str, Any]) -> Iterator[str]:
    pods = objects.pods(selector)
    for each in selector.get("matchExpressions") or []:
        for value in set(each["values"]) - {pod_labels(pod).get(each["key"]) for pod in pods}:
            yield f"no pods are {value}"


def lets_prometheus_in(rule: dict[str, Any]) -> bool:
    """Whether a rule lets in the namespaces in which a Prometheus runs."""
    return _namespaces(rule) == PEERS[1]


def _selects_namespaces(rule: dict[str, Any]) -> bool:
    """Whether a rule lets in no other namespaces than ingresses' or Prometheus's, and all of them."""
    return not _namespaces(rule) or _namespaces(rule) in PEERS


def _namespaces(rule: dict[str, Any]) -> list[dict[str, Any]]:
    return [_sorted(peer["namespaceSelector"]) for peer in rule.get("from") or [] if "namespaceSelector" in peer]


def _sorted(selector: dict[str, Any]) -> dict[str, Any]:
    expressions = [each | {"values": sorted(each["values"])} for each in selector.get("matchExpressions") or []]
    return selector | ({"matchExpressions": expressions} if expressions else {})
