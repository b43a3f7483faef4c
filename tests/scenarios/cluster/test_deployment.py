"""How tests/cluster puts an overlay into a namespace of its own, and when that is ready."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.cluster import deployment
from tests.support.processes import ROOT

SHORT = {"autoscaling.knative.dev/window": "6s", "autoscaling.knative.dev/scale-to-zero-pod-retention-period": "15s"}


@pytest.mark.parametrize("overlay", ["deploy/laptop", "deploy/laptop-events", "deploy/gpu", "deploy/events"])
def test_an_overlay_is_all_in_the_namespace_and_falls_asleep_soon(overlay: str) -> None:
    documents = deployment.render(ROOT / overlay, "elsewhere", "stamp")
    for item in documents:
        metadata, text = item["metadata"], json.dumps(item)
        assert metadata["name" if item["kind"] == "Namespace" else "namespace"] == "elsewhere"
        assert ".shangcai.svc" not in text
        assert "/shangcai/default" not in text
        annotations = metadata.get("annotations") or {}
        if item["apiVersion"].startswith("serving.knative.dev/"):
            template = item["spec"]["template"]
            annotations = template["metadata"]["annotations"]
            env = {entry["name"]: entry.get("value") for entry in template["spec"]["containers"][0]["env"]}
            assert (env["NAMESPACE"], env["IDLE_SECONDS"]) == ("elsewhere", "15")
        if item["kind"] == "InferenceService" or item["apiVersion"].startswith("serving.knative.dev/"):
            assert annotations.items() >= {**SHORT, deployment.STAMP: "stamp"}.items()


def service(stamp: str, created: str, ready: str, observed: int = 2) -> Any:
    return {
        "kind": "Service",
        "metadata": {"generation": 2},
        "spec": {"template": {"metadata": {"annotations": {deployment.STAMP: stamp}}}},
        "status": {
            "observedGeneration": observed,
            "latestCreatedRevisionName": created,
            "latestReadyRevisionName": ready,
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }


def test_ready_is_only_what_was_applied() -> None:
    assert deployment.is_ready(service("new", "web-2", "web-2"), "new")
    assert not deployment.is_ready(service("old", "web-1", "web-1"), "new")  # KServe has not seen the change yet
    assert not deployment.is_ready(service("new", "web-2", "web-1"), "new")
    assert not deployment.is_ready(service("new", "web-1", "web-1", observed=1), "new")
    assert not deployment.is_ready({"kind": "Job", "metadata": {"generation": 1}}, "new")
