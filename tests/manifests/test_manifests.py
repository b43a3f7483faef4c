"""Every folder that can be applied: rendered by kustomize, valid in every field, with references that match."""

from __future__ import annotations

import json
import os
import random
import re
import runpy
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from tests.manifests.checks import problems
from tests.manifests.checks.images import VERSION
from tests.manifests.checks.images import check as check_images
from tests.manifests.checks.kustomizations import FILE, FOLDERS, all_of, name, render, sources
from tests.manifests.checks.mutations import SORTS, Mutation, Sort, draw
from tests.manifests.checks.objects import Object, environment, our_image
from tests.manifests.checks.schemas import FOLDER, strict
from tests.manifests.checks.values import check as check_values
from tests.manifests.conftest import COMBINATIONS

MUTATIONS = int(os.environ.get("MANIFEST_MUTATIONS", "200"))
SEED = 20261124

needs_schemas = pytest.mark.skipif(not FOLDER.is_dir(), reason="the CRDs' schemas are not beside the repository")


def test_the_folders_that_are_promised_are_there(root: Path) -> None:
    found = {name(root, folder) for folder in all_of(root)}
    models = {"cpu", "gpu", "gpu-shared", "gpu-mig", "model-cache", "local-model-cache", "image-volumes"}
    overlays = models | {"standard", "standard-keda", "restore"}
    assert {f"kserve/overlays/{overlay}" for overlay in overlays} <= found
    assert {"kserve/runtime", "knative/base", "knative/cluster", "knative/cluster/eventing", "knative/prewarm"} <= found
    assert {f"deploy/{name}" for name in ("laptop", "laptop-events", "gpu", "events", "standard")} <= found


@pytest.mark.slow
def test_nothing_is_wrong(root: Path) -> None:
    assert list(problems(root)) == []


@pytest.mark.slow
def test_nothing_is_wrong_with_combinations_of_users(combined: Path) -> None:
    folders = [folder for folder in all_of(combined) if folder.name.startswith("test-")]
    assert len(folders) == len(COMBINATIONS)
    assert list(problems(combined, folders)) == []


@needs_schemas
def test_kinds_with_a_schema_are_checked_with_it(root: Path) -> None:
    kinds = {
        (thing.document["apiVersion"], thing.document["kind"]) for folder in all_of(root) for thing in render(folder)
    }
    files = {
        f"{version.replace('/', '_')}_{kind}.json"
        for version, kind in kinds
        if ".dev/" in version or ".io/v1" in version
    }
    others = {file for file in files if file.startswith("networking.k8s.io")}  # `typed` checks these
    assert files - others <= {file.name for file in FOLDER.iterdir()}


def test_every_source_is_used(root: Path) -> None:
    components = {
        file.parent
        for folder in FOLDERS
        for file in (root / folder).rglob(FILE)
        if "kind: Component" in file.read_text()
    }
    used = {file.resolve() for folder in [*all_of(root), *components] for file in sources(folder)}
    assert {file for folder in FOLDERS for file in (root / folder).rglob("*") if file.is_file()} == used


def test_the_two_predictors_differ_in_name_only(root: Path) -> None:
    text, image = (
        yaml.safe_load((root / "kserve" / "base" / f"{kind}.yaml").read_text()) for kind in ("text", "image")
    )
    text["metadata"]["name"] = text["metadata"]["labels"]["app.kubernetes.io/component"] = "image"
    assert text == image


def test_only_a_laptop_serves_whoever_reaches_it(root: Path) -> None:
    for folder in ("laptop", "laptop-events", "gpu", "events", "standard"):
        webs = [
            environment(thing.containers[0])
            for thing in render(root / "deploy" / folder)
            if thing.name == "web" and thing.containers
        ]
        assert [values["CALLERS"] for values in webs] == ["off" if folder.startswith("laptop") else "keys"]


def test_our_images_are_those_that_are_built(root: Path) -> None:
    containers = [container for folder in all_of(root) for thing in render(folder) for container in thing.containers]
    built = runpy.run_path(str(root / "scripts" / "cluster" / "build_images.py"))["IMAGES"]
    assert {our_image(container) for container in containers} - {None} == set(built)


@pytest.mark.slow
@pytest.mark.parametrize("model", ["poet", pytest.param("painter", marks=pytest.mark.nightly)])
def test_slots_are_no_more_than_fit(root: Path, model: str) -> None:
    """For texts no more than plan says, which of pictures measures how many pay: on a busy machine fewer than fit."""
    things = [
        thing for thing in render(root / "kserve" / "overlays" / "cpu") if thing.document["kind"] == "InferenceService"
    ]
    [thing] = [one for one in things if environment(one.containers[0])["PREDICTOR_MODEL"] == f"/app/models/{model}"]
    memory = thing.containers[0]["resources"]["limits"]["memory"]
    plan = subprocess.run(
        [sys.executable, "-m", "predictor", "plan", "--model", f"models/{model}", "--memory", memory],
        cwd=root,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout
    planned = yaml.safe_load(plan)
    slots = thing.spec["predictor"]["containerConcurrency"]
    if model == "poet":
        assert planned["containerConcurrency"] >= slots
    once, slot = (size(plan, what) for what in ("once", "a slot"))
    assert size(plan, "of weights") + once + slots * slot < 0.9 * 2048


def size(plan: str, what: str) -> float:
    """MiB of something in a plan."""
    found = re.search(rf"([\d.]+) MiB {what}", plan)
    assert found
    return float(found[1])


# The checks themselves


@pytest.mark.parametrize(
    ("schema", "value", "valid"),
    [
        ({"type": "object", "properties": {"a": {"type": "string"}}}, {"a": "x"}, True),
        ({"type": "object", "properties": {"a": {"type": "string"}}}, {"b": "x"}, False),
        ({"type": "object", "properties": {"a": {"type": "object", "properties": {}}}}, {"a": {"b": 1}}, False),
        ({"type": "object", "x-kubernetes-preserve-unknown-fields": True}, {"b": 1}, True),
        ({"type": "object", "additionalProperties": {"type": "string"}}, {"b": "x"}, True),
        ({"type": "object", "additionalProperties": {"type": "string"}}, {"b": 1}, False),
        ({"type": "array", "items": {"type": "object", "properties": {}}}, [{"b": 1}], False),
        ({"x-kubernetes-int-or-string": True, "anyOf": [{"type": "integer"}]}, "x", True),
        ({"x-kubernetes-int-or-string": True}, [], False),
        ({"type": "string", "nullable": True}, None, True),
        ({"type": "string"}, None, False),
    ],
)
def test_schemas_are_as_strict_as_the_api_server(schema: dict[str, Any], value: Any, valid: bool) -> None:
    assert Draft202012Validator(strict(schema)).is_valid(value) is valid


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        ({"resources": {"requests": {"memory": "1Gi", "cpu": "100m"}, "limits": {"memory": "1Gi", "cpu": "1"}}}, None),
        ({"resources": {"requests": {"memory": "2Gi"}, "limits": {"memory": "2000Mi"}}}, "more than the limit"),
        ({"resources": {"requests": {"cpu": "2"}, "limits": {"cpu": "1500m"}}}, "more than the limit"),
        ({"resources": {"limits": {"memory": "2G"}}}, "no quantity"),
        ({"resources": {"limits": {"memory": 2}}}, "no quantity"),
        ({"resources": {"limits": {"nvidia.com/gpu": "500m"}}}, "no quantity"),
        ({"resources": {"limits": {"nvidia.com/gpus": "1"}}}, "unknown"),
        ({"volumes": [{"emptyDir": {"sizeLimit": "1Gi", "medium": "memory"}}]}, "none of"),
        ({"accessModes": ["ReadWriteMany", "ReadWriteEverywhere"]}, "none of"),
        ({"httpGet": {"port": 8080}}, None),
        ({"httpGet": {"port": "8080"}}, "name of a port"),
    ],
)
def test_values_are_of_their_form(spec: dict[str, Any], problem: str | None) -> None:
    found = list(check_values(Object({"spec": spec})))
    assert len(found) == (problem is not None)
    assert all(problem in one for one in found if problem)


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        ({"image": "registry.test:5000/us/shangcai/web:latest", "name": "web"}, "makes no"),
        ({"image": "shangcai/web"}, "is unknown"),
        ({"image": "valkey/valkey:8.1-alpine", "args": ["--maxmemory", "768mb"]}, None),
        ({"image": "valkey/valkey:8.1-alpine", "args": ["--maxmemory", "768mib"]}, "memory value"),
        ({"image": "valkey/valkey:8.1-alpine", "args": ["u--maxmemory", "768mb"]}, "config file"),
        ({"image": "valkey/valkey:8.1-alpine", "args": ["--save", "", "--maxmem", "768mb"]}, "Bad directive"),
        ({"image": "valkey/valkey:8.1-alpine", "args": [], "env": [{"name": "PORT", "value": "1"}]}, "reads something"),
        ({"image": f"shangcai/web:{VERSION}", "name": "web", "env": [{"name": "HOME", "value": "/root"}]}, "HOME"),
        ({"image": "valkey/valkey:8.1-alpine", "args": [], "envFrom": [{"secretRef": {"name": "x"}}]}, "envFrom"),
    ],
)
def test_images_and_their_arguments_are_known(document: dict[str, Any], problem: str | None) -> None:
    container = {
        "name": "redis",
        "ports": [{"containerPort": 6379}],
        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
        **document,
    }
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "spec": {"template": {"spec": {"containers": [container]}}},
    }
    found = list(check_images(Object(deployment)))
    assert len(found) == (problem is not None)
    assert all(problem in one for one in found if problem)


@pytest.fixture(scope="module")
def mutated(combined: Path) -> dict[Sort, list[tuple[Mutation, str]]]:
    """Typing errors of each sort, drawn by chance, with the contents of their files."""
    chance = random.Random(SEED)
    drawn: dict[Sort, list[tuple[Mutation, str]]] = {sort: [] for sort in SORTS}
    for mutation in draw(combined, MUTATIONS, SEED):
        drawn[mutation.sort].append((mutation, mutation.text(combined, chance)))
    return drawn


@pytest.mark.slow
@pytest.mark.parametrize("sort", SORTS)
@pytest.mark.parametrize("most", [10, pytest.param(MUTATIONS, marks=pytest.mark.nightly)])
def test_typing_errors_are_found(
    combined: Path, mutated: dict[Sort, list[tuple[Mutation, str]]], sort: Sort, most: int
) -> None:
    """The first `most` of a sort, each in a tree that is right otherwise. At least 95 % must be found."""
    users = folders_by_source(combined)
    missed = []
    for mutation, changed in mutated[sort][:most]:
        file = combined / mutation.file
        before = file.read_text()
        file.write_text(changed)
        try:
            if not any(problems(combined, users.get(file, []))):
                missed.append(f"{mutation}\n{difference(before, changed)}")
        finally:
            file.write_text(before)
    count = len(mutated[sort][:most])
    print(f"{count - len(missed)} of {count} typing errors were found: {sort}\n", "\n".join(missed))
    assert len(missed) <= 0.05 * count, "\n".join(missed)


def folders_by_source(root: Path) -> dict[Path, list[Path]]:
    """The folders that are rendered from each file, whole deployments first: they are checked most thoroughly."""
    users: dict[Path, list[Path]] = {}
    for folder in sorted(all_of(root), key=lambda folder: folder.parent.name != "deploy"):
        for file in {file.resolve() for file in sources(folder)}:
            users.setdefault(file, []).append(folder)
    return users


def difference(before: str, after: str) -> str:
    one, other = (list(yaml.safe_load_all(text)) for text in (before, after))
    lines: Iterable[str] = set(json.dumps(other, indent=1).splitlines()) - set(json.dumps(one, indent=1).splitlines())
    return "\n".join(f"    {line.strip()}" for line in lines)
