"""Who scrapes whom."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from tests.manifests.checks.objects import Object, environment, our_image
from tests.manifests.checks.references.network import KNATIVE_PORTS, lets_prometheus_in
from tests.manifests.checks.references.object_set import ObjectSet, pod_labels
from tests.manifests.checks.references.workloads import METRICS_PORT, PORT

POD_MONITOR = "PodMonitor.monitoring.coreos.com"
PORTS = {"predictor": PORT, "web": METRICS_PORT}
"""Where the pods that each PodMonitor is about have their metrics."""
ADDRESSES = ("10.0.0.1", "[fd00::1]")
QUEUE_PROXY = {"name": "queue-proxy", "ports": [{"containerPort": port} for port in sorted(KNATIVE_PORTS)]}
"""What Knative adds to each of its pods."""

Labels = dict[str, str]


def check(objects: ObjectSet, thing: Object) -> Iterator[str]:
    if thing.kind != POD_MONITOR:
        return
    pods = objects.pods(thing.spec["selector"])
    if {pod.name for pod in pods} != _of(objects, thing.name):
        yield f"selects other pods than those of {thing.name}, or none"
    for label in thing.spec.get("podTargetLabels") or []:
        if not all(label in pod_labels(pod) for pod in pods):
            yield f"they have no label {label}"
    [endpoint] = thing.spec["podMetricsEndpoints"]
    if endpoint["path"] != "/metrics":
        yield f"nothing has metrics at {endpoint['path']}"
    for pod in pods:
        for address in ADDRESSES:
            found = [*_scraped(pod, address, endpoint)]
            if not found or any(labels["__address__"] != f"{address}:{PORTS[thing.name]}" for labels in found):
                yield f"{pod.title} has no metrics at {[labels['__address__'] for labels in found]}"
            if len({labels["__meta_kubernetes_pod_container_name"] for labels in found}) > 1:
                yield f"{pod.title} is scraped twice: its containers are labels"
            if pod.name in objects.predictors and any(labels.get("model") != pod.name for labels in found):
                yield f"{pod.title} is not called by its name"
        for container in pod.containers:
            if environment(container).get("METRICS_PORT", str(METRICS_PORT)) != str(METRICS_PORT):
                yield f"{pod.title} has its metrics elsewhere"


def check_policies(objects: ObjectSet, thing: Object) -> Iterator[str]:
    """In a whole deployment: the pods let Prometheus in."""
    if thing.kind != POD_MONITOR:
        return
    for pod in objects.pods(thing.spec["selector"]):
        rules = [
            rule
            for policy in objects.objects
            if policy.kind == "NetworkPolicy.networking.k8s.io" and pod in objects.pods(policy.spec["podSelector"])
            for rule in policy.spec.get("ingress") or []
        ]
        port = {"port": PORTS[thing.name], "protocol": "TCP"}
        if not any(lets_prometheus_in(rule) and port in rule["ports"] for rule in rules):
            yield f"no NetworkPolicy lets Prometheus in to {pod.title}"


def _of(objects: ObjectSet, name: str) -> set[str]:
    if name == "predictor":
        return set(objects.predictors)
    return {thing.name for thing in objects.objects if any(our_image(one) == name for one in thing.containers)}


def _scraped(pod: Object, address: str, endpoint: dict[str, Any]) -> Iterator[Labels]:
    """The targets that Prometheus makes of a pod: one of each port that is declared, if it is not dropped."""
    for container in [*pod.containers, *([QUEUE_PROXY] if pod.is_knative else [])]:
        for port in container.get("ports") or []:
            labels: Labels | None = {
                "__address__": f"{address}:{port['containerPort']}",
                "__meta_kubernetes_pod_container_name": container["name"],
                # KServe adds this one (kserve/kserve pkg/constants/constants.go).
                "__meta_kubernetes_pod_label_serving_kserve_io_inferenceservice": pod.name,
            }
            if port["containerPort"] == endpoint.get("portNumber", port["containerPort"]):
                for relabeling in endpoint.get("relabelings") or []:
                    labels = labels and _relabelled(labels, relabeling)
                if labels:
                    yield labels


def _relabelled(labels: Labels, relabeling: dict[str, Any]) -> Labels | None:
    value = ";".join(labels.get(name, "") for name in relabeling["sourceLabels"])
    found = re.fullmatch(relabeling.get("regex", "(.*)"), value)
    if relabeling.get("action") == "keep":
        return labels if found else None
    replacement = re.sub(r"\$(\d)", r"\\\1", relabeling.get("replacement", "$1"))
    return labels | {relabeling["targetLabel"]: found.expand(replacement)} if found else labels
