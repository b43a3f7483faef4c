"""Bounds that must fit what runs: quotas, requests on their way to a model, and who may use the store."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest

from tests.manifests.checks import quota
from tests.manifests.checks.kustomizations import render
from tests.manifests.checks.objects import Object, environment
from tests.manifests.checks.references import store, web
from tests.manifests.checks.references.object_set import ObjectSet


def rendered(folder: Path) -> ObjectSet:
    return ObjectSet([Object(copy.deepcopy(thing.document)) for thing in render(folder)])


@pytest.fixture
def bounded(combined: Path) -> ObjectSet:
    """deploy/events with the example of quotas."""
    return rendered(combined / "deploy" / "test-managed-redis")


def test_the_quota_is_twice_what_runs(bounded: ObjectSet) -> None:
    assert list(quota.check(bounded)) == []
    hard = bounded.named["ResourceQuota", "quota"].spec["hard"]
    for name, amount in (("requests.cpu", "14"), ("requests.memory", "56Gi"), ("requests.nvidia.com/gpu", "3")):
        before, hard[name] = hard[name], amount
        [problem] = quota.check(bounded)
        assert f"{name} is less than" in problem
        hard[name] = before
    del hard["requests.storage"]
    assert list(quota.check(bounded)) == ["ResourceQuota/quota: does not bound requests.storage"]


def test_a_quota_of_memory_goes_with_a_request_for_queue_proxy(bounded: ObjectSet) -> None:
    objects = [thing for thing in bounded.objects if thing.kind != "LimitRange"]
    [problem] = quota.check(ObjectSet(objects))
    assert "queue-proxy" in problem


@pytest.mark.parametrize("folder", ["gpu", "events"])
def test_where_callers_share_a_gpu_they_wait_in_web(root: Path, folder: str) -> None:
    objects = rendered(root / "deploy" / folder)
    thing = objects.named["Service.serving.knative.dev", "web"]
    [variable] = [each for each in thing.containers[0]["env"] if each["name"] == "MAX_IN_FLIGHT"]
    for number, right in ((15, False), (16, True), (24, True), (25, False), (80, False)):
        variable["value"] = str(number)
        found = [problem for problem in web.check(objects, thing) if problem.startswith("MAX_IN_FLIGHT")]
        assert (found == []) is right, number


def test_a_password_is_asked_for_where_there_is_one(combined: Path) -> None:
    with_password = rendered(combined / "deploy" / "test-artifacts")
    assert list(store.check_password(with_password)) == []
    redis = with_password.named["StatefulSet.apps", "redis"].containers[0]
    assert environment(redis).keys() == {"REDIS_PASSWORD"}
    redis["args"] = redis["args"][:-2]
    assert len(list(store.check_password(with_password))) == 1


def test_with_another_redis_ours_is_gone(combined: Path) -> None:
    managed = rendered(combined / "deploy" / "test-managed-redis")
    assert not [thing.title for thing in managed.objects if thing.name in ("redis", "store")]
