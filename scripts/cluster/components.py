"""What cluster-up installs into a cluster, which versions, and what they ask of its node."""

from __future__ import annotations

from dataclasses import dataclass

# The versions that KServe 0.21 is released against (install/v0.21.0/kserve-knative-mode-dependency-install.sh in its
# repository); KServe is that of our SDK in pyproject.toml. That of Kubernetes is in local_cluster.py.
CERT_MANAGER = "1.17.0"
SERVING = "1.21.1"
KOURIER = "1.21.0"
EVENTING = "1.21.1"
KSERVE = "0.21.0"

GITHUB = "https://github.com"

CPUS = 4
MEMORY_GIB = 8
"""What the node must have: a test adds up what all pods ask for."""


@dataclass(frozen=True)
class Component:
    """What is installed from the manifests of a release on GitHub."""

    name: str
    version: str
    namespace: str
    repository: str
    release: str
    manifests: tuple[str, ...]
    requests: dict[str, tuple[int, int]]
    """What its pods ask for: millicores and MiB, by their names. A pod that asks for nothing is left out."""

    @property
    def mark(self) -> str:
        """What its namespace is annotated with once it runs."""
        return f"{self.name} {self.version}"

    @property
    def urls(self) -> list[str]:
        return [f"{GITHUB}/{self.repository}/releases/download/{self.release}/{name}" for name in self.manifests]


COMPONENTS = (
    Component(
        "cert-manager",  # for the certificates of KServe's webhooks
        CERT_MANAGER,
        "cert-manager",
        "cert-manager/cert-manager",
        f"v{CERT_MANAGER}",
        ("cert-manager.yaml",),
        {},  # deploy/charts/cert-manager/values.yaml
    ),
    Component(
        "Knative Serving",
        SERVING,
        "knative-serving",
        "knative/serving",
        f"knative-v{SERVING}",
        ("serving-crds.yaml", "serving-core.yaml"),
        # config/core/deployments
        {"activator": (300, 60), "autoscaler": (100, 100), "controller": (100, 100), "webhook": (100, 100)},
    ),
    Component(
        "Kourier",
        KOURIER,
        "kourier-system",
        "knative-extensions/net-kourier",
        f"knative-v{KOURIER}",
        ("kourier.yaml",),
        {"net-kourier-controller": (200, 200), "3scale-kourier-gateway": (200, 200)},  # config/300-*.yaml
    ),
    Component(
        "KServe",
        KSERVE,
        "kserve",
        "kserve/kserve",
        f"v{KSERVE}",
        ("kserve.yaml",),
        {"kserve-controller-manager": (100, 200)},  # config/manager; its other controllers are scaled to zero
    ),
)
EVENTS = Component(
    "Knative Eventing",
    EVENTING,
    "knative-eventing",
    "knative/eventing",
    f"knative-v{EVENTING}",
    ("eventing-crds.yaml", "eventing-core.yaml", "in-memory-channel.yaml", "mt-channel-broker.yaml"),
    {  # config/core/deployments, config/brokers/mt-channel-broker/deployments
        "eventing-controller": (100, 100),
        "eventing-webhook": (100, 50),
        "job-sink": (125, 64),
        "mt-broker-controller": (100, 100),
        "mt-broker-filter": (100, 100),
        "mt-broker-ingress": (100, 100),
    },
)
"""Only with --events."""

NODE = {
    "kube-apiserver": (250, 0),
    "kube-controller-manager": (200, 0),
    "kube-scheduler": (100, 0),
    "etcd": (100, 100),
    "coredns": (200, 140),  # two pods
    "kindnet": (100, 50),
}
"""The pods of a kind cluster of one node (kubernetes/kubernetes cmd/kubeadm/app/phases, kubernetes-sigs/kind
pkg/build/nodeimage/const_cni.go). minikube has a coredns and kindnet less."""

QUEUE_PROXY = (25, 0)
"""Beside each of our pods that Knative runs (knative/serving config/core/configmaps/deployment.yaml)."""
