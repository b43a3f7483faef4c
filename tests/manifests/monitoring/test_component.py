"""The component as it is applied: what kustomize makes of it, and which mistakes in it are found."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.manifests.checks.custom_kinds import CUSTOM_KINDS
from tests.manifests.checks.kustomizations import render
from tests.manifests.checks.objects import Object
from tests.manifests.checks.references import metrics
from tests.manifests.checks.references.object_set import ObjectSet
from tests.manifests.monitoring.parts import DASHBOARD, RULES

OPERATOR = ".monitoring.coreos.com"


@pytest.fixture(scope="module", params=["gpu", "standard"])
def objects(request: pytest.FixtureRequest, combined: Path) -> ObjectSet:
    """With Knative and without."""
    return ObjectSet(render(combined / "deploy" / f"test-{request.param}"))


def found(objects: ObjectSet) -> list[str]:
    checks = (metrics.check, metrics.check_policies)
    return [problem for thing in objects.objects for check in checks for problem in check(objects, thing)]


def changed(objects: ObjectSet, kind: str, name: str, change: Callable[[dict[str, Any]], object]) -> ObjectSet:
    document = copy.deepcopy(objects.named[kind, name].document)
    change(document["spec"])
    return ObjectSet(
        [Object(document) if (thing.kind, thing.name) == (kind, name) else thing for thing in objects.objects]
    )


def test_the_dashboard_is_where_grafana_looks_for_it(objects: ObjectSet) -> None:
    thing = objects.named["ConfigMap", "shangcai-dashboard"]
    assert thing.labels["grafana_dashboard"] == "1"
    assert {name: json.loads(text) for name, text in thing.document["data"].items()} == {"dashboard.json": DASHBOARD}


def test_the_rules_are_as_they_are_written(objects: ObjectSet) -> None:
    assert objects.named[f"PrometheusRule{OPERATOR}", "shangcai-alerts"].spec == RULES


def test_every_pod_of_ours_is_scraped(objects: ObjectSet) -> None:
    assert found(objects) == []
    monitors = [thing for thing in objects.objects if thing.kind == f"PodMonitor{OPERATOR}"]
    scraped = {pod.name for thing in monitors for pod in objects.pods(thing.spec["selector"])}
    assert scraped == {"text", "image", "web"}


@pytest.mark.parametrize(
    ("name", "change", "problem"),
    [
        ("web", lambda endpoint: endpoint["relabelings"].pop(1), "has no metrics at"),
        ("web", lambda endpoint: endpoint["relabelings"][1].update(replacement="$1:9090"), "has no metrics at"),
        ("web", lambda endpoint: endpoint["relabelings"][1].update(regex=r"([^:]+):\d+"), "has no metrics at"),
        ("web", lambda endpoint: endpoint.update(portNumber=9464), "has no metrics at"),
        ("web", lambda endpoint: endpoint["relabelings"][0].update(regex="user-container"), "has no metrics at"),
        ("predictor", lambda endpoint: endpoint.pop("relabelings"), "is not called by its name"),
        ("predictor", lambda endpoint: endpoint.update(portNumber=9464), "has no metrics at"),
        ("predictor", lambda endpoint: endpoint.update(path="/"), "nothing has metrics at /"),
    ],
)
def test_a_monitor_that_misses_its_pods_is_found(
    objects: ObjectSet, name: str, change: Callable[[dict[str, Any]], object], problem: str
) -> None:
    wrong = changed(objects, f"PodMonitor{OPERATOR}", name, lambda spec: change(spec["podMetricsEndpoints"][0]))
    assert any(problem in one for one in found(wrong))


def test_the_ports_of_queue_proxy_are_not_further_targets(combined: Path) -> None:
    objects = ObjectSet(render(combined / "deploy" / "test-gpu"))
    wrong = changed(
        objects, f"PodMonitor{OPERATOR}", "web", lambda spec: spec["podMetricsEndpoints"][0]["relabelings"].pop(0)
    )
    assert any("is scraped twice" in one for one in found(wrong))


@pytest.mark.parametrize(("objects", "name"), [("gpu", "knative"), ("standard", "web")], indirect=["objects"])
def test_a_policy_that_keeps_prometheus_out_is_found(objects: ObjectSet, name: str) -> None:
    kind = "NetworkPolicy.networking.k8s.io"
    port = {"port": 9464, "protocol": "TCP"}
    wrong = changed(objects, kind, name, lambda spec: spec["ingress"][-1]["ports"].remove(port))
    assert found(wrong) == [
        f"no NetworkPolicy lets Prometheus in to {pod.title}"
        for pod in objects.pods({"matchLabels": {"app.kubernetes.io/name": "web"}})
    ]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("alert", "RequestsFail"),  # of whom?
        ("for", "5 minutes"),
        ("labels", {"severity": "page"}),
        ("annotations", {"summary": "x", "description": "x"}),
        ("exp", "up"),
    ],
)
def test_a_rule_that_the_operator_or_we_do_not_take_is_found(field: str, value: Any) -> None:
    validator = CUSTOM_KINDS["monitoring.coreos.com/v1", "PrometheusRule"]
    spec = copy.deepcopy(RULES)
    document = {"apiVersion": "", "kind": "", "metadata": {"name": "shangcai"}, "spec": spec}
    assert validator.is_valid(document)
    spec["groups"][0]["rules"][0][field] = value
    assert not validator.is_valid(document)
