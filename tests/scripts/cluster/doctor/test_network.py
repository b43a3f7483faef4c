"""doctor on the network: the ingress, NetworkPolicies, and how the activator reaches pods."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from scripts.cluster.doctor.checks import api_server, ingress
from scripts.cluster.doctor.traffic import Source, allowed
from tests.scripts.cluster.doctor.overlay_objects import PART_OF, Object, made, policy, web

Found = Callable[..., list[str]]

NAME = "kubernetes.io/metadata.name"
MARK = {"shangcai.ai/ingress": "true"}


def namespaces(*names: str) -> Object:
    return {"namespaceSelector": {"matchExpressions": [{"key": NAME, "operator": "In", "values": list(names)}]}}


KOURIER = Source("the ingress", "kourier-system", {NAME: "kourier-system", **MARK}, {"app": "kourier"}, ["10.0.0.7"])


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ([], False),
        ([{}], True),
        ([{"from": [namespaces("kourier-system")]}], True),
        ([{"from": [namespaces("istio-system")]}], False),
        ([{"from": [namespaces("istio-system")]}, {"from": [{"namespaceSelector": {}}]}], True),
        ([{"from": [{"namespaceSelector": {"matchLabels": MARK}}]}], True),
        (
            [{"from": [{"namespaceSelector": {"matchLabels": MARK}, "podSelector": {"matchLabels": {"app": "x"}}}]}],
            False,
        ),
        ([{"from": [{"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "kourier"}}}]}], True),
        ([{"from": [{"podSelector": {}}]}], False),
        ([{"from": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}], True),
        ([{"from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.0.0.0/24"]}}]}], False),
        ([{"ports": [{"port": 8012}]}], True),
        ([{"ports": [{"port": 8013, "protocol": "TCP"}]}], False),
        ([{"ports": [{"port": 8000, "endPort": 8100}]}], True),
        ([{"ports": [{"port": 8012, "protocol": "UDP"}]}], False),
        ([{"ports": [{"port": "queue-port"}]}], True),
        ([{"ports": [{"protocol": "TCP"}]}], True),
    ],
)
def test_a_policy_is_read_as_kubernetes_reads_it(rules: list[Object], expected: bool) -> None:
    assert allowed([policy(*rules)], PART_OF, KOURIER, 8012) == expected


def test_a_policy_counts_for_the_pods_that_it_selects() -> None:
    assert allowed([policy(selector={"matchLabels": {"app": "redis"}})], PART_OF, KOURIER, 8012)
    egress = policy()
    egress["spec"]["policyTypes"] = ["Egress"]
    assert allowed([egress], PART_OF, KOURIER, 8012)


@pytest.mark.slow
def test_an_ingress_that_the_policies_keep_out_is_wrong(cluster: Any, found: Found) -> None:
    network = {"ingress-class": "gateway-api.ingress.networking.knative.dev"}
    cluster.config("knative-serving/config-network", network)
    services = "- class: envoy\n  gateway: envoy/knative\n  service: envoy-gateway-system/knative\n"
    cluster.config("knative-serving/config-gateway", {"external-gateways": services, "_example": "service: a/b"})
    cluster.gateway("envoy-gateway-system", "knative", {"app": "envoy"})
    overlay = [web(), policy({"from": [namespaces("knative-serving", "kourier-system")]})]
    [line] = found(ingress.policies, overlay)
    assert line == (
        "wrong NetworkPolicies keep the ingress in envoy-gateway-system from port 8012 of Service web"
        " — allow the namespace envoy-gateway-system in a NetworkPolicy of the overlay (knative)"
    )


@pytest.mark.slow
def test_a_label_that_lets_the_ingress_in_is_named(cluster: Any, found: Found) -> None:
    metrics = {"from": [{"namespaceSelector": {"matchLabels": {"scrapes": "true"}}}], "ports": [{"port": 9091}]}
    rules: list[Object] = [
        metrics,
        {"from": [namespaces("knative-serving"), {"namespaceSelector": {"matchLabels": MARK}}]},
    ]
    [line] = found(ingress.policies, [web(), policy(*rules)])
    assert line.startswith("wrong NetworkPolicies keep the ingress in kourier-system from port 8012 of Service web")
    assert line.endswith("— kubectl label namespace kourier-system shangcai.ai/ingress=true")
    cluster.gateway("kourier-system", "kourier", {"app": "3scale-kourier-gateway"}, **MARK)
    [line] = found(ingress.policies, [web(), policy(*rules)])
    assert line.startswith("ok ")


@pytest.mark.slow
def test_the_activator_and_the_autoscaler_must_get_through(cluster: Any, found: Found) -> None:
    [activator, autoscaler] = found(ingress.policies, [web(), policy({"from": [namespaces("kourier-system")]})])
    assert activator.startswith("wrong NetworkPolicies keep Knative's activator in knative-serving from port 8012")
    assert autoscaler.startswith("wrong NetworkPolicies keep Knative's autoscaler in knative-serving from port 9090")


@pytest.mark.slow
def test_a_policy_of_the_cluster_may_let_it_through(cluster: Any, found: Found) -> None:
    other = policy({})
    other["metadata"]["name"] = "other"
    cluster.put("shangcai/networkpolicies", other)
    [line] = found(ingress.policies, [web(), policy()])
    assert line.startswith("ok ")


@pytest.mark.slow
def test_without_policies_nothing_is_said_of_them(found: Found) -> None:
    assert found(ingress.policies, [web()]) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "config", "data", "place"),
    [
        ("kourier", "config-kourier", {}, ("knative-serving-ingress", "kourier")),
        ("contour", "config-contour", {"visibility": "ExternalIP:\n  service: gate/envoy\n"}, ("gate", "envoy")),
        (
            "istio",
            "config-istio",
            {"local-gateways": '- service: "gw.istio-ingress.svc.cluster.local"'},
            ("istio-ingress", "gw"),
        ),
        (
            "istio",
            "config-istio",
            {"gateway.knative-serving.x": "gw.istio-ingress.svc.cluster.local"},
            ("istio-ingress", "gw"),
        ),
    ],
)
def test_the_ingress_is_found_where_it_is(
    cluster: Any, found: Found, name: str, config: str, data: dict[str, str], place: tuple[str, str]
) -> None:
    del cluster.objects["kourier-system/endpointslices/kourier-1"]
    name = f"{name}.ingress.networking.knative.dev"
    cluster.config("knative-serving/config-network", {"ingress-class": name})
    cluster.config(f"knative-serving/{config}", data)
    [line] = found(ingress.ingress, [web()])
    assert line.startswith(f"wrong the ingress {name} does not run: nothing ready behind")
    cluster.gateway(*place, {"app": "gateway"})
    assert found(ingress.ingress, [web()]) == [f"ok the ingress {name} runs"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"mesh-compatibility-mode": "disabled"}, "ok config-network: mesh-compatibility-mode is disabled"),
        ({}, "note config-network: mesh-compatibility-mode is auto: once the activator misses a probe"),
        (
            {"mesh-compatibility-mode": "enabled"},
            "note config-network: mesh-compatibility-mode is enabled: the activator",
        ),
    ],
)
def test_the_way_of_the_activator_to_pods_is_looked_at(
    cluster: Any, found: Found, data: dict[str, str], said: str
) -> None:
    cluster.config("knative-serving/config-network", data)
    [line] = found(ingress.mesh, [web()])
    assert line.startswith(said)
    if not said.startswith("ok"):
        assert "-k knative/cluster, then kubectl rollout restart -n knative-serving deployment/activator" in line
        assert "mesh with mutual TLS" in line


@pytest.mark.slow
def test_a_route_needs_its_gateway(cluster: Any, found: Found) -> None:
    parents = [{"name": "public", "namespace": "gateways"}]
    route = made("gateway.networking.k8s.io/v1", "HTTPRoute", "web", spec={"parentRefs": parents})
    [line] = found(api_server.gateways, [route])
    assert line.startswith("wrong there is no Gateway public in gateways, which HTTPRoute web names")
    cluster.put("gateways/gateways", {"metadata": {"name": "public"}})
    assert found(api_server.gateways, [route]) == ["ok the Gateway public in gateways is there"]
