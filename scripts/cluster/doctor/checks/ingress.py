"""Whether Knative's ingress runs, and whether it and Knative's own pods may connect to those of an overlay."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from scripts.cluster.doctor.cluster_state import ClusterState, NotFound
from scripts.cluster.doctor.finding import APPLY_SETTINGS, Finding
from scripts.cluster.doctor.manifests import Document, labels_of
from scripts.cluster.doctor.pods import Pod
from scripts.cluster.doctor.requirements import Requirements
from scripts.cluster.doctor.traffic import Source, allowed, isolating, namespace_labels

DOMAIN = "ingress.networking.knative.dev"


@dataclass(frozen=True)
class IngressClass:
    """How an ingress class names the Services that it is reached through."""

    config: str
    """The ConfigMap in knative-serving that may name others."""

    services: tuple[tuple[str, str], ...]
    """Namespaces and names where it does not."""


CLASSES = {
    f"kourier.{DOMAIN}": IngressClass("config-kourier", (("kourier-system", "kourier"),)),
    f"istio.{DOMAIN}": IngressClass("config-istio", (("istio-system", "istio-ingressgateway"),)),
    f"contour.{DOMAIN}": IngressClass("config-contour", (("contour-external", "envoy"), ("contour-internal", "envoy"))),
    f"gateway-api.{DOMAIN}": IngressClass(
        "config-gateway", (("istio-system", "istio-ingressgateway"), ("istio-system", "knative-local-gateway"))
    ),
}
"""Defaults of knative-extensions/net-kourier, net-istio, net-contour and net-gateway-api, in their folder config."""

OPENSHIFT = ("knative-serving-ingress", "kourier")
"""Where OpenShift Serverless has Kourier."""

PORT = 8012
METRICS_PORT = 9090


def ingress_class(cluster: ClusterState) -> str:
    network = cluster.config_maps("knative-serving").get("config-network", {})
    # The second is the former spelling, the last is Knative's default.
    return network.get("ingress-class") or network.get("ingress.class") or f"istio.{DOMAIN}"


def ingress(cluster: ClusterState, _required: Requirements) -> Iterator[Finding]:
    name = ingress_class(cluster)
    if name not in CLASSES:
        yield Finding("note", f"the ingress class is {name}; whether it runs is not known here")
        return
    services = gateways(cluster, name)
    stopped = [
        f"{service} in {namespace}" for namespace, service in services if not endpoints(cluster, namespace, service)
    ]
    if not stopped:
        yield Finding("ok", f"the ingress {name} runs")
    else:
        namespaces = ", ".join(dict.fromkeys(namespace for namespace, _ in services))
        fix = f"install it, or name another in config-network; look at: kubectl get pods -n {namespaces}"
        yield Finding("wrong", f"the ingress {name} does not run: nothing ready behind {', '.join(stopped)}", fix)


def gateways(cluster: ClusterState, name: str) -> list[tuple[str, str]]:
    """Namespaces and names of the Services through which an ingress class is reached."""
    config = cluster.config_maps("knative-serving").get(CLASSES[name].config, {})
    named = []
    for key, value in config.items():
        if key != "_example":  # YAML, which a bare Python cannot read: `service: NAMESPACE/NAME` or NAME.NAMESPACE.svc…
            addresses = re.findall(r"service:\s*[\"']?([\w./-]+)", value)
            addresses += [value] if key.startswith(("gateway.", "local-gateway.")) else []  # Istio's former spelling
            for address in addresses:
                first, slash, second = address.partition("/")
                named.append((first, second) if slash else (address.split(".")[1], first.split(".")[0]))
    found = list(dict.fromkeys(named)) or list(CLASSES[name].services)
    if name.startswith("kourier") and not endpoints(cluster, *found[0]) and endpoints(cluster, *OPENSHIFT):
        return [OPENSHIFT]
    return found


def endpoints(cluster: ClusterState, namespace: str, service: str) -> list[Document]:
    """The ready endpoints of a Service."""
    label = f"kubernetes.io/service-name={service}"
    slices = cluster.items("endpointslices", "-n", namespace, "-l", label)
    found = [endpoint for item in slices for endpoint in item.get("endpoints") or []]
    return [endpoint for endpoint in found if endpoint.get("conditions", {}).get("ready")]


def mesh(cluster: ClusterState, _required: Requirements) -> Iterator[Finding]:
    """knative/serving#15477: after one missed probe the activator stays with a revision's cluster address."""
    network = cluster.config_maps("knative-serving").get("config-network", {})
    value = network.get("mesh-compatibility-mode", "auto").lower()
    if value == "disabled":
        yield Finding("ok", "config-network: mesh-compatibility-mode is disabled")
        return
    what = f"config-network: mesh-compatibility-mode is {value}"
    if value == "enabled":
        reason = "the activator asks Services, not pods: waiting requests are not given to the pod with a free slot"
    else:
        reason = "once the activator misses a probe, requests are not given to free slots, and wait for a pod that ends"
    restart = "kubectl rollout restart -n knative-serving deployment/activator deployment/autoscaler"
    fix = f"{APPLY_SETTINGS}, then {restart}; keep it where a mesh with mutual TLS is in front of pods"
    yield Finding("note", f"{what}: {reason}", fix)


def policies(cluster: ClusterState, required: Requirements) -> Iterator[Finding]:
    """Whether the NetworkPolicies let the ingress, the activator and the autoscaler through to queue-proxy."""
    pods = [pod for pod in required.pods if pod.knative]
    present = {item["metadata"]["name"]: item for item in required.network_policies}
    with suppress(NotFound):
        others = cluster.items("networkpolicies", "-n", required.namespace)
        present = {**{item["metadata"]["name"]: item for item in others}, **present}
    rules = list(present.values())
    if not any(isolating(rules, pod.labels) for pod in pods):
        return
    name = ingress_class(cluster)
    sources = [(source, PORT) for source in ingress_sources(cluster, name)]
    labels = namespace_labels_of(cluster, "knative-serving")
    for app, port in (("activator", PORT), ("autoscaler", METRICS_PORT)):
        sources.append((Source(f"Knative's {app}", "knative-serving", labels, {"app": app}), port))
    shut = False
    for source, port in sources:
        kept_out = [pod for pod in pods if not allowed(rules, pod.labels, source, port)]
        if kept_out:
            shut = True
            what = f"NetworkPolicies keep {source.what} in {source.namespace} from port {port} of "
            yield Finding(
                "wrong", what + ", ".join(pod.owner for pod in kept_out), opening(rules, kept_out, source, port)
            )
    if name not in CLASSES:
        what = f"whether the NetworkPolicies let the ingress {name} through is not known here"
        yield Finding("note", what, "allow its namespace in the overlay's NetworkPolicy")
    elif not shut:
        yield Finding("ok", f"the NetworkPolicies let the ingress {name} through, and Knative's own pods")


def ingress_sources(cluster: ClusterState, name: str) -> Iterator[Source]:
    """The pods of the ingress, those with the same labels only once."""
    if name not in CLASSES:
        return
    known: set[tuple[str, str]] = set()
    for namespace, service in gateways(cluster, name):
        labels = namespace_labels_of(cluster, namespace)
        pods: dict[str, Document] = {}
        with suppress(NotFound):
            pods = {item["metadata"]["name"]: item for item in cluster.items("pods", "-n", namespace)}
        for endpoint in endpoints(cluster, namespace, service):
            pod = pods.get((endpoint.get("targetRef") or {}).get("name", ""), {})
            mark = (namespace, str(sorted(labels_of(pod).items())))
            if mark not in known:
                known.add(mark)
                yield Source("the ingress", namespace, labels, labels_of(pod), endpoint.get("addresses") or [])


def namespace_labels_of(cluster: ClusterState, namespace: str) -> dict[str, str]:
    """A namespace's labels; at least the one that Kubernetes gives it."""
    own = {"kubernetes.io/metadata.name": namespace}
    with suppress(NotFound):
        return own | labels_of(cluster.get("namespace", namespace))
    return own


def opening(rules: list[Document], kept_out: list[Pod], source: Source, port: int) -> str:
    """How the source is let through."""
    for key, value in namespace_labels(rules, kept_out[0].labels, port):
        if source.namespace_labels.get(key) != value:
            return f"kubectl label namespace {source.namespace} {key}={value}"
    names = [rule["metadata"]["name"] for rule in isolating(rules, kept_out[0].labels)]
    return f"allow the namespace {source.namespace} in a NetworkPolicy of the overlay ({', '.join(names)})"
