"""Machines with kind, kubectl and the others played by programs that write down how they were called."""

from __future__ import annotations

from typing import Any

import pytest

from tests.scripts.cluster.kubectl_answers import deployment, item, namespace_with, node_list

WEB = "http://web.shangcai.127.0.0.1.sslip.io"


@pytest.fixture
def bare(machine: Any) -> Any:
    """A machine with the tools and no cluster, on which everything goes well."""
    machine.have("kind", "kubectl", "docker", "curl")
    machine.answer("get namespace", errors="not found", status=1)
    machine.answer("get deployments", {"items": [deployment("controller")]})
    machine.answer("get configmap inferenceservice-config", {"data": {"ingress": '{"urlScheme": "http"}'}})
    machine.answer("image inspect", "sha256:1\nsha256:2\n")
    machine.answer("get services.serving.knative.dev,", {"items": [item("Service", "web", "True")]})
    machine.answer("get services.serving.knative.dev web", WEB)
    machine.answer("curl", {"text": "昨夜春风恶，\n今朝雨作泥。"})
    return machine


@pytest.fixture
def finished(bare: Any) -> Any:
    """The same machine after cluster-up."""
    bare.answer("kind get clusters", "other\nshangcai\n")
    bare.answer("get nodes", node_list(8080))
    for namespace, mark in (
        ("cert-manager", "cert-manager 1.17.0"),
        ("knative-serving", "Knative Serving 1.21.1"),
        ("kourier-system", "Kourier 1.21.0"),
        ("knative-eventing", "Knative Eventing 1.21.1"),
        ("kserve", "KServe 0.21.0"),
        ("kube-system", "sha256:1 sha256:2"),
    ):
        bare.answer(f"get namespace {namespace}", namespace_with(mark))
    return bare
