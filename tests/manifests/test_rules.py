"""What the webhooks of Knative and KServe refuse is found in manifests of ours that are changed so."""

from __future__ import annotations

import copy
from collections.abc import Collection
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.manifests.checks import knative, kustomizations
from tests.manifests.checks.objects import Object
from tests.manifests.checks.references import workloads
from tests.manifests.checks.references.object_set import ObjectSet

ROOT = Path(__file__).parents[2]
PREDICTOR = "InferenceService.serving.kserve.io/text"
WEB = "Service.serving.knative.dev/web"
TRIGGER = "Trigger.eventing.knative.dev/text-requests"
OF = {PREDICTOR: ("spec", "predictor"), WEB: ("spec", "template", "spec"), TRIGGER: ("spec",)}
FIRST = ("containers", 0)


@cache
def rendered() -> dict[str, Object]:
    return {thing.title: thing for thing in kustomizations.render(ROOT / "deploy" / "laptop-events")}


def changed(title: str, place: tuple[str | int, ...], value: Any) -> Object:
    document = copy.deepcopy(rendered()[title].document)
    parent: Any = document
    for key in (*OF[title], *place[:-1]):
        parent = parent[key]
    if isinstance(parent, list):
        parent.append(value)
    else:
        parent[place[-1]] = value
    return Object(document)


def found(thing: Object, flags: Collection[str]) -> list[str]:
    return [*knative.check(thing), *knative.check_flags([thing], flags)]


@pytest.mark.parametrize("title", [PREDICTOR, WEB, TRIGGER])
def test_nothing_is_found_in_them_as_they_are(title: str) -> None:
    assert found(rendered()[title], kustomizations.flags(ROOT)) == []


@pytest.mark.parametrize(
    ("title", "place", "value", "problem"),
    [
        (PREDICTOR, (*FIRST, "name"), "predictor", "must be called kserve-container"),
        (PREDICTOR, ("minReplicas",), 2, "beyond maxReplicas"),
        (PREDICTOR, ("timeout",), 601, "up to 600"),
        (PREDICTOR, ("containerConcurrency",), 0, "nothing bounds"),
        (PREDICTOR, ("containerConcurrency",), 1001, "nothing bounds"),
        (PREDICTOR, ("scaleTarget",), 15, "as many as there are slots"),
        (PREDICTOR, ("scaleMetric",), "cpu", "must be concurrency"),
        (PREDICTOR, (*FIRST, "env", -1), {"name": "PYTHONPATH", "value": "/x"}, "is reserved"),
        (PREDICTOR, (*FIRST, "readinessProbe", "failureThreshold"), 3, "without periodSeconds"),
        (PREDICTOR, (*FIRST, "startupProbe"), {"httpGet": {"path": "/", "port": 8080}}, "does not allow"),
        (PREDICTOR, ("hostNetwork",), True, "not known to Knative"),
        (PREDICTOR, ("initContainers",), [], "needs the feature kubernetes.podspec-init-containers"),
        (PREDICTOR, ("volumes", -1), {"name": "more", "emptyDir": {}}, "but not both"),
        (WEB, (*FIRST, "ports", 0), {"containerPort": 8081}, "takes exactly one"),
        (WEB, (*FIRST, "ports"), [{"containerPort": 8012}], "Knative's own"),
        (WEB, (*FIRST, "ports"), [{"containerPort": 8080, "name": "web"}], "does not know"),
        (WEB, (*FIRST, "env", -1), {"name": "PORT", "value": "1"}, "is reserved"),
        (WEB, (*FIRST, "env", -1), {"name": "MODELS", "value": "{}"}, "there twice"),
        (WEB, (*FIRST, "lifecycle"), {}, "does not allow"),
        (WEB, (*FIRST, "securityContext", "privileged"), False, "does not allow"),
        (WEB, ("timeoutSeconds",), 900, "up to 600"),
        (WEB, ("terminationGracePeriodSeconds",), 60, "not known to Knative"),
        (TRIGGER, ("delivery", "backoffDelay"), "1s", "no duration"),
        (TRIGGER, ("delivery", "backoffPolicy"), "expo", "retries have no delay"),
        (TRIGGER, ("delivery", "retries"), 3, "unknown"),
    ],
)
def test_what_is_refused_is_found(title: str, place: tuple[str | int, ...], value: Any, problem: str) -> None:
    assert any(problem in one for one in found(changed(title, place, value), kustomizations.flags(ROOT)))


def test_what_a_flag_allows_is_refused_without_it() -> None:
    assert any("retryAfterMax needs" in one for one in found(rendered()[TRIGGER], flags=()))
    claim = {"name": "tmp", "persistentVolumeClaim": {"claimName": "models"}}
    problems = found(changed(WEB, ("volumes", -1), claim), flags=())
    assert any("persistent-volume-claim" in one for one in problems)
    assert any("persistent-volume-write" in one for one in problems)


@pytest.mark.parametrize(("title", "other"), [(WEB, "/healthz"), (PREDICTOR, "/v2/health/live")])
def test_a_process_that_lives_is_not_yet_ready(title: str, other: str) -> None:
    objects = ObjectSet(list(rendered().values()))
    assert list(workloads.check(objects, rendered()[title])) == []
    thing = changed(title, (*FIRST, "readinessProbe", "httpGet", "path"), other)
    assert list(workloads.check(objects, thing)) == [f"readinessProbe: {other} is no route for it"]
