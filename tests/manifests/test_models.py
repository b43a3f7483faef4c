"""The models of the GPU overlays: what they need of a cluster, and where they come from."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.manifests.checks.kustomizations import render
from tests.manifests.checks.objects import Object, environment, walk


def predictors(folder: Path) -> dict[str, Object]:
    return {thing.name: thing for thing in render(folder) if thing.kind == "InferenceService.serving.kserve.io"}


@pytest.mark.parametrize(
    "overlay", ["gpu", "gpu-shared", "gpu-mig", "model-cache", "local-model-cache", "image-volumes"]
)
def test_a_gpu_is_described_in_full(root: Path, overlay: str) -> None:
    for thing in render(root / "kserve" / "overlays" / overlay):
        if thing.document["kind"] != "InferenceService":
            continue
        limits = thing.containers[0]["resources"]["limits"]
        [gpu] = [key for key in limits if key.startswith("nvidia.com/")]
        assert limits[gpu] == "1"
        assert "runtimeClassName" not in thing.pod
        assert thing.pod["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
        assert ("PREDICTOR_MEMORY" in environment(thing.containers[0])) == (overlay == "gpu-shared")
        assert thing.annotations["autoscaling.knative.dev/initial-scale"] == "0"


def test_a_turbo_model_has_its_own_steps_and_no_guidance(root: Path) -> None:
    """With 50 steps and a guidance of 5, its class's, it burns its pictures."""
    models = ("kserve/overlays/gpu", "kserve/overlays/gpu-shared", "kserve/overlays/gpu-mig", "deploy/gpu")
    for folder in (*models, "kserve/overlays/model-cache", "kserve/overlays/local-model-cache"):
        [image] = [
            environment(thing.containers[0])
            for thing in render(root / folder)
            if thing.document["kind"] == "InferenceService" and thing.document["metadata"]["name"] == "image"
        ]
        assert (image["PREDICTOR_STEPS"], image["PREDICTOR_GUIDANCE"]) == ("4", "0"), folder


@pytest.mark.parametrize(
    "folder", ["kserve/overlays/gpu", "kserve/overlays/model-cache", "deploy/gpu", "deploy/events"]
)
def test_nodes_with_gpus_need_no_label(root: Path, folder: str) -> None:
    """No feature discovery sets one on a cloud without NVIDIA's operator."""
    for thing in render(root / folder):
        paths = {path for path, _ in walk(thing.pod)}
        assert not [path for path in paths if "nodeSelector" in path or "required" in path], thing.title


def test_a_runtime_class_is_an_option(root: Path) -> None:
    """EKS, GKE and AKS have none without NVIDIA's operator."""
    for folder in ("gpu", "events"):
        classes = {thing.pod["runtimeClassName"] for thing in predictors(root / "deploy" / folder).values()}
        assert classes == {"nvidia"}
    assert not any("runtimeClassName" in thing.pod for thing in predictors(root / "deploy" / "standard").values())


def test_no_two_models_share_a_volume_of_one_node(root: Path) -> None:
    """On two nodes with one GPU each, the second that wakes would wait for the volume of the first (Multi-Attach)."""
    folder = root / "kserve" / "overlays" / "model-cache"
    uris = {name: environment(thing.containers[0])["STORAGE_URI"] for name, thing in predictors(folder).items()}
    claims = {name: uri.removeprefix("pvc://").partition("/")[0] for name, uri in uris.items()}
    assert claims == {"text": "text-model", "image": "image-model"}
    jobs = [thing for thing in render(folder) if thing.kind == "Job.batch"]
    mounted = [
        volume["persistentVolumeClaim"]["claimName"]
        for job in jobs
        for volume in job.pod["volumes"]
        if "persistentVolumeClaim" in volume
    ]
    assert sorted(mounted) == sorted(claims.values())
