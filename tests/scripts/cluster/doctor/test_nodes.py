"""doctor on nodes: labels, taints, RuntimeClasses, drivers and GPUs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from scripts.cluster.doctor.checks import gpus, images, nodes
from tests.scripts.cluster.doctor.overlay_objects import GPU_TAINT, container, gpu_model, job, model

pytestmark = pytest.mark.slow

Found = Callable[..., list[str]]
TAINT = {"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}
GPU_PRESENT = {"nvidia.com/gpu.present": "true"}


def test_a_job_may_ask_for_a_node_that_is_not_there(cluster: Any, found: Found) -> None:
    cluster.objects["nodes/gpu"]["metadata"]["labels"] = {}
    [line] = found(nodes.placement, [job(nodeSelector=GPU_PRESENT)])
    assert line.startswith("wrong no node has the label nvidia.com/gpu.present=true that Job download asks for")
    assert "GPU feature discovery" in line


def test_a_job_must_tolerate_the_node_that_it_asks_for(cluster: Any, found: Found) -> None:
    [line] = found(nodes.placement, [job(nodeSelector=GPU_PRESENT)])
    assert line == (
        "wrong Job download does not tolerate the taints of the nodes with nvidia.com/gpu.present=true"
        " — tolerate nvidia.com/gpu in the overlay"
    )
    [line] = found(nodes.placement, [job(nodeSelector=GPU_PRESENT, tolerations=[GPU_TAINT])])
    assert line.startswith("ok ")


@pytest.mark.parametrize(
    ("expression", "there"),
    [
        ({"key": "zone", "operator": "In", "values": ["a", "b"]}, True),
        ({"key": "zone", "operator": "NotIn", "values": ["a"]}, False),
        ({"key": "zone", "operator": "Exists"}, True),
        ({"key": "zone", "operator": "DoesNotExist"}, False),
        ({"key": "size", "operator": "Gt", "values": ["23"]}, True),
        ({"key": "size", "operator": "Lt", "values": ["23"]}, False),
    ],
)
def test_an_affinity_is_read_as_kubernetes_reads_it(
    cluster: Any, found: Found, expression: dict[str, Any], there: bool
) -> None:
    cluster.objects = {"nodes/only": cluster.node("only", labels={"zone": "a", "size": "24"})}
    terms = {"nodeSelectorTerms": [{"matchExpressions": [expression]}]}
    affinity = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}
    [line] = found(nodes.placement, [job(affinity=affinity)])
    assert line.startswith("ok " if there else "wrong "), line


def test_a_job_wants_its_runtime_class(cluster: Any, found: Found) -> None:
    del cluster.objects["runtimeclasses/nvidia"]
    [line] = found(nodes.runtime_classes, [job(runtimeClassName="nvidia")])
    assert line.startswith("wrong there is no RuntimeClass nvidia, which Job download wants")
    assert "EKS, GKE and AKS" in line
    assert "leave the component nvidia-runtime-class out" in line


def test_a_runtime_class_of_the_overlay_is_not_missed(cluster: Any, found: Found) -> None:
    del cluster.objects["runtimeclasses/nvidia"]
    own = {"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": "nvidia"}, "handler": "nvidia"}
    assert found(nodes.runtime_classes, [own, model(runtimeClassName="nvidia")]) == []


def test_a_priority_class_must_be_there(cluster: Any, found: Found) -> None:
    wants = job(priorityClassName="low")
    [line] = found(nodes.priority_classes, [wants])
    assert line.startswith("wrong there is no PriorityClass low, which Job download wants")
    own = {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": "low"}, "value": -1}
    assert found(nodes.priority_classes, [own, wants]) == []
    cluster.put("priorityclasses", own)
    assert found(nodes.priority_classes, [wants]) == ["ok the PriorityClass low is there"]


def gpu_node(cluster: Any, name: str, **labels: str) -> None:
    prefixed = {f"nvidia.com/{key.replace('__', '.').replace('_', '-')}": value for key, value in labels.items()}
    node = cluster.node(name, {"nvidia.com/gpu": "1"}, TAINT)
    node["metadata"]["labels"] = prefixed
    cluster.put("nodes", node)


@pytest.mark.parametrize("label", ["cuda__driver_version__major", "cuda__driver__major"])
def test_a_driver_that_is_too_old_for_torch_is_wrong(cluster: Any, found: Found, label: str) -> None:
    gpu_node(cluster, "gpu", **{label: "570"})
    [line] = found(gpus.drivers, [gpu_model()])
    assert line.startswith("wrong the node gpu has the driver 570, and torch wants 580 or later — a newer driver")
    gpu_node(cluster, "gpu", **{label: "580"})
    assert found(gpus.drivers, [gpu_model()]) == ["ok drivers are 580 or later on all nodes that models can run on"]


def test_volta_is_too_old_whatever_its_driver(cluster: Any, found: Found) -> None:
    volta = {"gpu__compute__major": "7", "gpu__compute__minor": "0"}
    gpu_node(cluster, "gpu", cuda__driver_version__major="580", **volta)
    [line] = found(gpus.drivers, [gpu_model()])
    assert line.startswith("wrong the node gpu has GPUs of compute capability 7.0, and torch wants 7.5 or later")


def test_one_old_node_among_others_is_a_note(cluster: Any, found: Found) -> None:
    gpu_node(cluster, "old", cuda__driver_version__major="550")
    [line] = found(gpus.drivers, [gpu_model()])
    assert line.startswith("note the node old has the driver 550")
    assert line.endswith("or keep the models off it")


def test_an_old_node_that_no_model_can_run_on_does_not_count(cluster: Any, found: Found) -> None:
    gpu_node(cluster, "old", cuda__driver_version__major="550")
    [line] = found(gpus.drivers, [gpu_model(nodeSelector=GPU_PRESENT)])
    assert line.startswith("ok ")


def test_without_labels_it_says_that_it_cannot_know(cluster: Any, found: Found) -> None:
    gpu_node(cluster, "gpu")
    [line] = found(gpus.drivers, [gpu_model()])
    assert line.startswith("note which driver is on gpu is not known here; torch wants 580 or later — nvidia-smi")


def test_models_without_gpus_want_no_driver(cluster: Any, found: Found) -> None:
    gpu_node(cluster, "gpu", cuda__driver_version__major="470")
    assert found(gpus.drivers, [model()]) == []


def test_images_that_nobody_can_pull_are_noted(cluster: Any, found: Found) -> None:
    [line] = found(images.images, [job(containers=[container(image="registry.example.com/shangcai/predictor:1")])])
    assert line.startswith("note registry.example.com/shangcai/predictor:1 is in no registry that there is")
    [line] = found(images.images, [model(containers=[container(image="dev.local/shangcai/web:0.2.0")])])
    assert line.startswith("note no node says that it has dev.local/shangcai/web:0.2.0")
    [line] = found(images.images, [model(containers=[container(image="dev.local/shangcai/web:0.1.0")])])
    assert line.startswith("ok ")
