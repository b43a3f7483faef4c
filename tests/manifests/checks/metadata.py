"""Labels and annotations, which schemas do not describe: the known keys, and the values that each takes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from tests.manifests.checks.objects import Object, walk

Rule = Callable[[str], bool]


def _matches(pattern: str) -> Rule:
    return lambda value: re.fullmatch(pattern, value) is not None


def _number(low: float, high: float) -> Rule:
    return lambda value: re.fullmatch(r"-?\d+(\.\d+)?", value) is not None and low <= float(value) <= high


def _seconds(low: int, high: int) -> Rule:
    return lambda value: re.fullmatch(r"(\d+[smh])+", value) is not None and low <= seconds(value) <= high


def seconds(duration: str) -> int:
    """A duration in Go's notation, in whole seconds."""
    units = {"s": 1, "m": 60, "h": 3600}
    return sum(int(number) * units[unit] for number, unit in re.findall(r"(\d+)([smh])", duration))


ANNOTATIONS: dict[str, Rule] = {
    # knative/serving pkg/apis/autoscaling/annotation_validation.go
    "autoscaling.knative.dev/min-scale": _number(0, 1000),
    "autoscaling.knative.dev/max-scale": _number(0, 1000),
    "autoscaling.knative.dev/initial-scale": _number(0, 1000),
    "autoscaling.knative.dev/metric": _matches("concurrency|rps"),
    "autoscaling.knative.dev/target": _number(0.01, 100_000),
    "autoscaling.knative.dev/target-utilization-percentage": _number(1, 100),
    "autoscaling.knative.dev/window": _seconds(6, 3600),
    "autoscaling.knative.dev/panic-threshold-percentage": _number(110, 1000),
    "autoscaling.knative.dev/target-burst-capacity": lambda value: value == "-1" or _number(0, 100_000)(value),
    "autoscaling.knative.dev/scale-to-zero-pod-retention-period": _seconds(0, 3600),
    "serving.knative.dev/progress-deadline": _seconds(1, 7200),
    # kserve/kserve pkg/constants/constants.go
    "serving.kserve.io/deploymentMode": _matches("Knative|Standard"),
    "serving.kserve.io/autoscalerClass": _matches("hpa|keda"),
    # knative/eventing, and its Brokers
    "eventing.knative.dev/broker.class": _matches("MTChannelBasedBroker|Kafka"),
    "messaging.knative.dev/async-handler": _matches("true"),
    # nginx/kubernetes-ingress, haproxytech/kubernetes-ingress, kubernetes/ingress-nginx
    "nginx.org/proxy-buffering": _matches("False"),
    "nginx.org/proxy-read-timeout": _seconds(600, 86400),
    "haproxy.org/timeout-server": _seconds(600, 86400),
    "nginx.ingress.kubernetes.io/proxy-buffering": _matches("off"),
    "nginx.ingress.kubernetes.io/proxy-read-timeout": _number(600, 86400),
}

LABELS: dict[str, Rule] = {
    "app.kubernetes.io/part-of": _matches("shangcai"),
    "app.kubernetes.io/name": _matches(
        "web|predictor|redis|broker|trigger|artifacts|(download-)?(text|image)-model|prefetch-images|placeholder"
    ),
    "app.kubernetes.io/component": _matches("web|inbox|text|image"),
    "grafana_dashboard": _matches("1"),  # grafana-community/helm-charts grafana: sidecar.dashboards.label
    "networking.knative.dev/visibility": _matches("cluster-local"),
    "networking.kserve.io/visibility": _matches("cluster-local"),
    "pod-security.kubernetes.io/enforce": _matches("restricted|baseline|privileged"),
    "pod-security.kubernetes.io/warn": _matches("restricted"),
    "pod-security.kubernetes.io/audit": _matches("restricted"),
}


NAMESAKES = {"Service", "PersistentVolumeClaim", "PodDisruptionBudget.policy"}
"""Kinds whose objects must have the name that their labels have, besides those that make pods."""
REQUIRED = {
    "Ingress.networking.k8s.io": {name for name in ANNOTATIONS if re.match(r"(nginx|haproxy)\.", name)},
}
"""Annotations without which an object has no effect."""


def check(thing: Object) -> Iterator[str]:
    for path, value in walk(thing.document):
        part = path.rpartition(".")[2]
        if part not in ("labels", "annotations") or not isinstance(value, dict) or ".data" in path:
            continue
        if thing.kind == "EventPolicy.eventing.knative.dev" or (path.endswith(f"spec.{part}") and part == "labels"):
            continue
        if thing.kind == "PrometheusRule.monitoring.coreos.com" and ".rules[" in path:
            continue
        known = LABELS if part == "labels" else ANNOTATIONS
        for key, text in value.items():
            rule = known.get(str(key))
            if rule is None:
                yield f"{path}.{key}: unknown"
            elif not isinstance(text, str) or not rule(text):
                yield f"{path}.{key}: {text!r} is not allowed"
    for key in REQUIRED.get(thing.kind, set()) - thing.annotations.keys():
        yield f"metadata.annotations: {key} is missing"
    name = "app.kubernetes.io/name"
    pods = (thing.template.get("metadata") or {}).get("labels", {})
    for key in pods.keys() & thing.labels.keys():
        if pods[key] != thing.labels[key]:
            yield f"metadata.labels: {key} differs from that of its pods"
    called = thing.labels.get("app.kubernetes.io/component", thing.labels.get(name))
    makes_pods = thing.containers and thing.kind != "ServingRuntime.serving.kserve.io"
    if (makes_pods or thing.kind in NAMESAKES) and thing.name != called:
        yield f"metadata.name: the labels have {called}"
    in_cluster = thing.namespace.startswith("knative-")
    if thing.labels.get("app.kubernetes.io/part-of") != "shangcai" and not in_cluster:
        yield "metadata.labels: app.kubernetes.io/part-of is missing"
