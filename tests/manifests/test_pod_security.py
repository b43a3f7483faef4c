"""What the profile `restricted` forbids is found in pods of ours that are changed so."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.manifests.checks import kustomizations, pod_security
from tests.manifests.checks.objects import Object, restores
from tests.manifests.checks.references.object_set import ObjectSet

ROOT = Path(__file__).parents[2]


def rendered(folder: str) -> list[Object]:
    return [Object(copy.deepcopy(thing.document)) for thing in kustomizations.render(ROOT / folder)]


def redis() -> dict[str, Any]:
    """Redis's pod: it has settings of both the pod and the container."""
    [pod] = [thing.pod for thing in rendered("knative/redis") if thing.name == "redis" and thing.pod]
    return pod


def test_every_pod_fits() -> None:
    """Of the overlays and the runtime, too, which are no whole deployments."""
    pods = [thing for folder in kustomizations.all_of(ROOT) for thing in kustomizations.render(folder)]
    pods = [thing for thing in pods if thing.containers]
    assert "ServingRuntime.serving.kserve.io/shangcai" in {thing.title for thing in pods}
    assert [(thing.title, problem) for thing in pods for problem in pod_security.unexpected(thing)] == []


def test_only_what_is_restored_is_granted_more() -> None:
    grants = ["kserve-container: allowPrivilegeEscalation", "kserve-container: capabilities"]
    grants.append("kserve-container: seccompProfile")
    for folder in kustomizations.all_of(ROOT):
        for thing in kustomizations.render(folder):
            wanted = grants if folder.name == "restore" and thing.containers else []
            assert list(pod_security.violations(thing.pod)) == wanted, f"{folder}: {thing.title}"


def test_a_namespace_of_what_is_restored_enforces_nothing() -> None:
    objects = [*rendered("kserve/overlays/restore"), *rendered("deploy/laptop")]
    objects = [thing for thing in objects if thing.kind == "Namespace" or any(map(restores, thing.containers))]
    for enforced in ("restricted", "baseline"):
        [problem] = level(objects, enforced)
        assert problem.startswith("the namespace must enforce privileged: InferenceService.serving.kserve.io/image")
    assert level(objects, "privileged") == []


@pytest.mark.parametrize(
    ("place", "value", "problem"),
    [
        (("hostNetwork",), True, "hostNetwork: is the node's"),
        (("volumes",), [{"name": "x", "hostPath": {"path": "/"}}], "volumes: hostPath"),
        (("securityContext", "runAsUser"), 0, "redis: runAsNonRoot"),
        (("securityContext", "runAsNonRoot"), False, "redis: runAsNonRoot"),
        (("securityContext", "seccompProfile", "type"), "Unconfined", "redis: seccompProfile"),
        (("containers", 0, "securityContext", "runAsUser"), 0, "redis: runAsNonRoot"),
        (("containers", 0, "securityContext", "privileged"), True, "redis: privileged"),
        (("containers", 0, "securityContext", "allowPrivilegeEscalation"), True, "redis: allowPrivilegeEscalation"),
        (("containers", 0, "securityContext", "capabilities", "drop"), ["KILL"], "redis: capabilities"),
        (("containers", 0, "securityContext", "capabilities", "add"), ["SYS_ADMIN"], "redis: capabilities"),
        (("containers", 0, "securityContext"), {}, "redis: allowPrivilegeEscalation"),
        (("containers", 0, "ports", 0, "hostPort"), 6379, "redis: hostPort"),
        (("containers", 0, "readinessProbe", "tcpSocket", "host"), "10.0.0.1", "redis: readinessProbe.tcpSocket.host"),
        (("initContainers",), [{"name": "fetch", "image": "x"}], "fetch: seccompProfile"),
    ],
)
def test_what_is_forbidden_is_found(place: tuple[str | int, ...], value: Any, problem: str) -> None:
    pod = redis()
    parent: Any = pod
    for key in place[:-1]:
        parent = parent[key]
    parent[place[-1]] = value
    if place == ("initContainers",):
        pod["securityContext"].pop("seccompProfile")
    assert problem in list(pod_security.violations(pod))


def level(objects: list[Object], enforced: str | None) -> list[str]:
    [namespace] = [thing for thing in objects if thing.kind == "Namespace"]
    namespace.labels.pop(pod_security.ENFORCE)
    if enforced is not None:
        namespace.labels[pod_security.ENFORCE] = enforced
    return list(pod_security.check(ObjectSet(objects)))


def test_a_namespace_says_what_holds() -> None:
    assert level(rendered("deploy/laptop"), "restricted") == []
    for enforced in (None, "baseline"):
        [problem] = level(rendered("deploy/laptop"), enforced)
        assert "does not enforce the profile restricted" in problem


def test_a_model_that_kserve_fetches_needs_baseline() -> None:
    objects = rendered("deploy/gpu")
    [text] = [thing for thing in objects if thing.kind.startswith("InferenceService") and thing.name == "text"]
    [uri] = [variable for variable in text.containers[0]["env"] if variable["name"] == "STORAGE_URI"]
    uri["value"] = "hf://Qwen/Qwen3-4B-Instruct-2507"
    [problem] = level(objects, "restricted")
    assert problem.endswith("KServe fetches models in the pods of InferenceService.serving.kserve.io/text")
    assert level(objects, "baseline") == []


def test_the_pods_that_the_guides_start_fit() -> None:
    guides = "\n".join(page.read_text() for page in sorted((ROOT / "docs").glob("*.md")))
    pods = [json.loads(pod)["spec"] for pod in re.findall(r"--overrides='(\{.*?\})'", guides, re.DOTALL)]
    assert pods
    assert [list(pod_security.violations(pod)) for pod in pods] == [[] for _ in pods]
