"""Standard mode in copies of deploy/standard, as a user changes them."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.manifests.checks import problems
from tests.manifests.checks.kustomizations import FILE, FOLDERS, render

KEDA = Path("kserve") / "overlays" / "standard-keda"


@pytest.fixture
def copy(root: Path, tmp_path: Path) -> Path:
    """A folder in deploy/ that is as deploy/standard is."""
    for source in FOLDERS:
        shutil.copytree(root / source, tmp_path / source)
    shutil.copytree(root / "deploy" / "standard", tmp_path / "deploy" / "mine")
    return tmp_path / "deploy" / "mine"


def change(folder: Path, **parts: Any) -> None:
    """Other values, or more items of a list, in its kustomization."""
    file = folder / FILE
    document = yaml.safe_load(file.read_text())
    for name, value in parts.items():
        document[name] = [*document[name], *value] if isinstance(value, list) else value
    file.write_text(yaml.safe_dump(document))


def replacements(kustomization: Path) -> list[dict[str, Any]]:
    """Those that the comment at the head of a kustomization shows."""
    comment = re.findall(r"^#   (.*)$", kustomization.read_text(), re.MULTILINE)
    shown: dict[str, list[dict[str, Any]]] = yaml.safe_load("\n".join(comment))
    return shown["replacements"]


def test_keda_counts_the_requests_of_its_own_namespace(root: Path, copy: Path) -> None:
    overlay = Path("..") / ".." / KEDA
    text = (copy / FILE).read_text().replace("../../kserve/overlays/standard", str(overlay))
    (copy / FILE).write_text(text)
    assert list(problems(copy.parents[1], [copy])) == []

    namespace = (copy / "namespace.yaml").read_text()
    (copy / "namespace.yaml").write_text(namespace.replace("name: shangcai", "name: other"))
    change(copy, namespace="other")
    assert [problem for problem in problems(copy.parents[1], [copy]) if "the query must be" in problem]

    change(copy, replacements=replacements(root / KEDA / FILE))
    assert list(problems(copy.parents[1], [copy])) == []
    queries = [
        metric["external"]["metric"]["query"]
        for thing in render(copy)
        if thing.document["kind"] == "InferenceService"
        for metric in thing.spec["predictor"]["autoScaling"]["metrics"]
    ]
    assert ['namespace="other"' in query for query in queries] == [True, True]


def test_web_gets_its_public_address_from_a_component(root: Path, copy: Path) -> None:
    """A cluster has a Gateway or a class of Ingresses, and nobody can guess its name."""
    public = {"HTTPRoute", "Ingress"}
    assert not public & {thing.document["kind"] for thing in render(root / "deploy" / "standard")}
    before = (copy / FILE).read_text()
    for component, kind in (("http-route", "HTTPRoute"), ("ingress", "Ingress")):
        (copy / FILE).write_text(before)
        change(copy, components=[f"../components/{component}"])
        assert list(problems(copy.parents[1], [copy])) == []
        assert public & {thing.document["kind"] for thing in render(copy)} == {kind}


def test_a_node_can_be_drained_of_each_workload(root: Path) -> None:
    """Pod by pod, and although one waits for a GPU. A budget that one pod uses up would forbid it for ever."""
    things = render(root / "deploy" / "standard")
    budgets = {thing.name: thing.spec for thing in things if thing.kind == "PodDisruptionBudget.policy"}
    assert set(budgets) == {"web", "text", "image"}
    for spec in budgets.values():
        assert (spec["maxUnavailable"], spec["unhealthyPodEvictionPolicy"]) == (1, "AlwaysAllow")
        assert "minAvailable" not in spec


@pytest.mark.parametrize("overlay", ["standard", "standard-keda"])
def test_gpus_take_one_base_for_another(copy: Path, overlay: str) -> None:
    """As docs/deploy-reference.md says: a copy of kserve/overlays/standard with ../gpu as its base."""
    kustomization = copy.parents[1] / "kserve" / "overlays" / "standard" / FILE
    kustomization.write_text(kustomization.read_text().replace("../cpu", "../gpu"))
    (copy / FILE).write_text((copy / FILE).read_text().replace("overlays/standard", f"overlays/{overlay}"))
    namespace = (copy / "namespace.yaml").read_text()
    (copy / "namespace.yaml").write_text(
        namespace.replace("enforce: restricted", "enforce: baseline")
    )  # KServe fetches
    assert list(problems(copy.parents[1], [copy])) == []
    predictors = [thing for thing in render(copy) if thing.document["kind"] == "InferenceService"]
    assert all(thing.containers[0]["resources"]["limits"]["nvidia.com/gpu"] == "1" for thing in predictors)
