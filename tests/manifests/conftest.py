"""Beside the folders of the tree, the parts that no folder there puts together are put together here."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.manifests.checks.kustomizations import ROOMS

ROOT = Path(__file__).parents[2]

COMBINATIONS: dict[str, tuple[list[str], list[str]]] = {
    "rabbitmq": (["kserve/overlays/cpu", "knative/overlays/rabbitmq", "knative/prewarm"], []),
    "oidc": (
        ["kserve/overlays/gpu", "knative/overlays/kafka"],
        ["knative/components/oidc", "knative/components/retry-after"],
    ),
    "laptop-events": (
        ["kserve/overlays/cpu", "knative/overlays/laptop"],
        ["deploy/components/events", "deploy/components/artifacts"],
    ),
}
"""Resources and components of what a user may put together."""


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def combine() -> Callable[[Path], list[Path]]:
    """Write the combinations into a tree; their folders."""

    def write(root: Path) -> list[Path]:
        folders = []
        for name, (resources, components) in COMBINATIONS.items():
            folder = root / "deploy" / f"test-{name}"
            folder.mkdir()
            example = yaml.safe_load((root / "deploy" / "laptop" / "kustomization.yaml").read_text())
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
            folders.append(folder)
        return folders

    return write


@pytest.fixture
def copied(tmp_path: Path, combine: Callable[[Path], list[Path]]) -> Path:
    """The three rooms in a tree of their own, with the combinations."""
    for room in ROOMS:
        shutil.copytree(ROOT / room, tmp_path / room)
    combine(tmp_path)
    return tmp_path
