"""What cluster-up installs into a cluster, and which versions."""

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


@dataclass(frozen=True)
class Component:
    """What is installed from the manifests of a release on GitHub."""

    name: str
    version: str
    namespace: str
    repository: str
    release: str
    manifests: tuple[str, ...]

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
    ),
    Component(
        "Knative Serving",
        SERVING,
        "knative-serving",
        "knative/serving",
        f"knative-v{SERVING}",
        ("serving-crds.yaml", "serving-core.yaml"),
    ),
    Component(
        "Kourier",
        KOURIER,
        "kourier-system",
        "knative-extensions/net-kourier",
        f"knative-v{KOURIER}",
        ("kourier.yaml",),
    ),
    Component(
        "Knative Eventing",
        EVENTING,
        "knative-eventing",
        "knative/eventing",
        f"knative-v{EVENTING}",
        ("eventing-crds.yaml", "eventing-core.yaml", "in-memory-channel.yaml", "mt-channel-broker.yaml"),
    ),
    Component("KServe", KSERVE, "kserve", "kserve/kserve", f"v{KSERVE}", ("kserve.yaml",)),
)
