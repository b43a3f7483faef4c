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
    "rabbitmq": (
        ["kserve/overlays/cpu", "knative/overlays/rabbitmq", "knative/prewarm"],
        ["deploy/components/callers"],
    ),
    "oidc": (
        ["kserve/overlays/gpu", "knative/overlays/kafka", "knative/prewarm"],
        ["knative/components/oidc", "knative/components/retry-after", "deploy/components/callers"],
    ),
    "laptop-events": (
        ["kserve/overlays/cpu", "knative/overlays/laptop"],
        ["deploy/components/events", "deploy/components/artifacts"],
    ),
}
"""What a user may combine: resources, and components."""


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
            "resources": ["namespace.yaml", *paths[0]],
            "components": paths[1],
            "namespace": "shangcai",
            "replacements": example["replacements"],
        }
        (folder / "kustomization.yaml").write_text(yaml.safe_dump(document))
        shutil.copy(root / "deploy" / "laptop" / "namespace.yaml", folder)
    return root
