"""A copy of the manifests, with more combinations of their parts than the tree has."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import yaml

from tests.manifests.checks.kustomizations import FOLDERS

ROOT = Path(__file__).parents[2]

COMBINATIONS: dict[str, tuple[list[str], list[str]]] = {
    "signed": (
        ["kserve/overlays/cpu", "knative/base", "knative/prewarm"],
        [
            "knative/components/events",
            "knative/components/broker-memory",
            "deploy/components/callers",
            "deploy/components/signed-events",
        ],
    ),
    "oidc": (
        ["kserve/overlays/gpu", "knative/base", "knative/prewarm"],
        [
            "knative/components/events",
            "knative/components/broker-kafka",
            "knative/components/oidc",
            "knative/components/retry-after",
            "deploy/components/callers",
            "deploy/components/signed-events",
        ],
    ),
    "artifacts": (
        ["deploy/laptop-events"],
        ["deploy/components/artifacts", "deploy/components/redis-password", "deploy/components/progress-events"],
    ),
    "managed-redis": (
        ["deploy/events"],
        ["deploy/components/managed-redis", "deploy/components/progress-events", "deploy/components/quota"],
    ),
    "gpu": (
        ["deploy/gpu"],
        [
            "deploy/components/monitoring",
            "deploy/components/prefetch-images",
            "deploy/components/placeholder",
            "deploy/components/endpoint-slices",
        ],
    ),
    "images": (
        ["kserve/overlays/image-volumes", "knative/base"],
        ["kserve/components/nvidia-runtime-class", "deploy/components/callers"],
    ),
    "restored": (["kserve/overlays/restore", "knative/base"], ["deploy/components/callers"]),
    "standard": (
        ["deploy/standard"],
        ["deploy/components/monitoring", "deploy/components/http-route", "deploy/components/ingress"],
    ),
}
"""What a user may combine: resources, a whole deployment among them, and components."""


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@pytest.fixture(scope="module")
def combined(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the three folders, in which the combinations stand beside the others in deploy/."""
    root = tmp_path_factory.mktemp("manifests")
    for source in FOLDERS:
        shutil.copytree(ROOT / source, root / source)
    example = yaml.safe_load((root / "deploy" / "laptop" / "kustomization.yaml").read_text())
    for name, (resources, components) in COMBINATIONS.items():
        folder = root / "deploy" / f"test-{name}"
        folder.mkdir()
        paths = [[os.path.relpath(root / part, folder) for part in parts] for parts in (resources, components)]
        document = {
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "resources": paths[0],
            "components": paths[1],
            "namespace": "shangcai",
        }
        if not resources[0].startswith("deploy/"):
            document |= {"resources": ["namespace.yaml", *paths[0]], "replacements": example["replacements"]}
        (folder / "kustomization.yaml").write_text(yaml.safe_dump(document))
        namespace = (root / "deploy" / "laptop" / "namespace.yaml").read_text()
        if "kserve/overlays/gpu" in resources:  # KServe fetches its models
            namespace = namespace.replace("enforce: restricted", "enforce: baseline")
        if "kserve/overlays/restore" in resources:
            namespace = namespace.replace("enforce: restricted", "enforce: privileged")
        (folder / "namespace.yaml").write_text(namespace)
    return root
