"""Whether NetworkPolicies let somebody connect to a pod."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network

from scripts.cluster.doctor.manifests import Document
from scripts.cluster.doctor.selectors import matches

QUEUE_PROXY_PORTS = {8012: "queue-port", 8013: "queue-port", 8112: "https-port", 9090: "http-autometric"}
"""Ports of queue-proxy and their names, which a policy may use (knative/serving pkg/reconciler/revision/resources)."""


@dataclass(frozen=True)
class Source:
    """Pods that connect to others."""

    what: str
    namespace: str
    namespace_labels: dict[str, str]
    labels: dict[str, str]
    addresses: list[str] = field(default_factory=list)


def isolating(policies: list[Document], labels: dict[str, str]) -> list[Document]:
    """The policies that say who may connect to a pod with these labels. Where there is none, everybody may."""
    return [
        policy
        for policy in policies
        if "Ingress" in (policy["spec"].get("policyTypes") or ["Ingress"])
        and matches(policy["spec"].get("podSelector") or {}, labels)
    ]


def allowed(policies: list[Document], labels: dict[str, str], source: Source, port: int) -> bool:
    """Whether `source` may connect to a pod with these labels in the namespace of the policies."""
    found = isolating(policies, labels)
    return not found or any(
        _takes_port(rule, port) and _takes_source(rule, source, policy["metadata"].get("namespace", ""))
        for policy in found
        for rule in policy["spec"].get("ingress") or []
    )


def namespace_labels(policies: list[Document], labels: dict[str, str], port: int) -> Iterator[tuple[str, str]]:
    """Labels that let a namespace through to a port of a pod, where a policy asks for one label and nothing else."""
    for policy in isolating(policies, labels):
        for rule in filter(lambda rule: _takes_port(rule, port), policy["spec"].get("ingress") or []):
            for peer in rule.get("from") or []:
                selector = peer.get("namespaceSelector") or {}
                named: dict[str, str] = selector.get("matchLabels") or {}
                alone = len(named) == 1 and not selector.get("matchExpressions") and not peer.get("podSelector")
                if alone and "kubernetes.io/metadata.name" not in named:
                    yield from named.items()


def _takes_port(rule: Document, port: int) -> bool:
    ports = rule.get("ports") or []
    return not ports or any(
        entry.get("protocol", "TCP") == "TCP" and _is_port(entry.get("port"), entry.get("endPort"), port)
        for entry in ports
    )


def _is_port(first: int | str | None, last: int | None, port: int) -> bool:
    if first is None:
        return True
    if isinstance(first, str):
        return QUEUE_PROXY_PORTS.get(port) == first
    return first <= port <= (last or first)


def _takes_source(rule: Document, source: Source, namespace: str) -> bool:
    peers = rule.get("from") or []
    return not peers or any(_is_peer(peer, source, namespace) for peer in peers)


def _is_peer(peer: Document, source: Source, namespace: str) -> bool:
    if block := peer.get("ipBlock"):
        return bool(source.addresses) and all(_within(block, address) for address in source.addresses)
    if "namespaceSelector" in peer:
        if not matches(peer["namespaceSelector"] or {}, source.namespace_labels):
            return False
    elif source.namespace != namespace:
        return False
    return matches(peer.get("podSelector") or {}, source.labels)


def _within(block: Document, address: str) -> bool:
    found = ip_address(address)
    return found in ip_network(block["cidr"]) and not any(
        found in ip_network(hole) for hole in block.get("except") or []
    )
