"""scripts/doctor against a cluster: the real kubectl, and a stub of the API server."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.processes import free_port

pytestmark = pytest.mark.slow

Break = Callable[[Any], object]


def wrong(ended: subprocess.CompletedProcess[str]) -> list[str]:
    assert ended.stderr == ""
    return [line.removeprefix("wrong  ") for line in ended.stdout.splitlines() if line.startswith("wrong ")]


@pytest.mark.parametrize(
    "overlay", [f"deploy/{name}" for name in ("gpu", "events", "laptop", "laptop-events", "standard")]
)
def test_nothing_is_wrong_with_a_complete_cluster(cluster: Any, overlay: str) -> None:
    ended = cluster.doctor("--overlay", overlay)
    assert (ended.returncode, wrong(ended)) == (0, [])
    assert ended.stdout.splitlines()[0] == "ok     Kubernetes v1.34.0"
    assert ended.stdout.splitlines()[-1] == "nothing is wrong"


def take(path: str) -> Break:
    return lambda cluster: cluster.objects.pop(path)


def drop(version: str) -> Break:
    return lambda cluster: cluster.kinds.pop(version)


def setting(path: str, data: dict[str, str]) -> Break:
    return lambda cluster: cluster.config(path, data)


def set_version(path: str, version: str) -> Break:
    return lambda cluster: cluster.deployment(path)["metadata"]["labels"].update({"app.kubernetes.io/version": version})


def stop(path: str) -> Break:
    return lambda cluster: cluster.deployment(path).update(status={})


def old_kserve(cluster: Any) -> None:
    container = cluster.deployment("kserve/kserve-controller-manager")["spec"]["template"]["spec"]["containers"][0]
    container["image"] = "registry.example:5000/kserve/kserve-controller:v0.15.2@sha256:00"


def taint(cluster: Any) -> None:
    other = {"key": "team", "value": "physics", "effect": "NoSchedule"}
    cluster.put("nodes", cluster.node("gpu", {"nvidia.com/gpu": "2"}, other))
    cluster.put("nodes", cluster.node("disk", labels={"nvidia.com/gpu.present": "true"}))  # for Jobs


def without_devices(cluster: Any) -> None:
    cluster.objects["nodes/gpu"]["status"]["allocatable"].pop("nvidia.com/gpu")


def deny(cluster: Any) -> None:
    cluster.denied.add("inferenceservices")


def old_kubernetes(cluster: Any) -> None:
    cluster.version = "v1.29.4"


IMAGE, TEXT = "InferenceService image", "InferenceService text"
MAXIMUM = {"max-revision-timeout-seconds": "300", "container-concurrency-max-limit": "8"}

FAULTS: list[dict[str, Break]] = [
    {"Service of serving.knative.dev/v1 is not served — install Knative Serving": drop("serving.knative.dev/v1")},
    {
        "Kubernetes v1.29.4 is too old; 1.32 is needed: KServe asks for it — upgrade Kubernetes": old_kubernetes,
        "Knative Serving 1.18.0 is too old; 1.19 is needed": set_version("knative-serving/controller", "1.18.0"),
        "Knative Eventing v1.9.7 is too old; 1.17": set_version("knative-eventing/eventing-controller", "v1.9.7"),
        "KServe v0.15.2 is too old; 0.16 is needed — upgrade KServe": old_kserve,
    },
    {
        "InferenceService of serving.kserve.io/v1beta1 is not served — install KServe": drop(
            "serving.kserve.io/v1beta1"
        ),
        "EventType of eventing.knative.dev/v1beta3 is not served": drop("eventing.knative.dev/v1beta3"),
        "Knative Serving is not there: no Deployment controller": take("knative-serving/deployments/controller"),
        "no node offers nvidia.com/gpu, of which InferenceService image wants 1": without_devices,
        "no node offers nvidia.com/gpu, of which InferenceService text wants 1": lambda cluster: None,
    },
    {
        "in knative-serving do not run: activator — look at: kubectl": stop("knative-serving/activator"),
        "KServe's controller kserve-controller-manager does not run": stop("kserve/kserve-controller-manager"),
        "the ConfigMap inferenceservice-config in kserve is not": take("kserve/configmaps/inferenceservice-config"),
        "the ingress kourier.ingress.networking.knative.dev does not": take("kourier-system/endpointslices/kourier-1"),
        "Brokers of class Kafka are not served: kafka-broker-rec": take(
            "knative-eventing/deployments/kafka-broker-receiver"
        ),
        "you may not create in shangcai: inferenceservices.serving.kserve.io — ask": deny,
    },
    {
        f"config-features in knative-serving: kubernetes.podspec-tolerations is disabled, and {IMAGE}": setting(
            "knative-serving/config-features",
            {"kubernetes.podspec-tolerations": "Disabled", "kubernetes.podspec-runtimeclassname": "Allowed"},
        ),
        "config-domain names no domain: web gets no address outside of the cluster — kubectl patch": setting(
            "knative-serving/config-domain", {"_example": "…"}
        ),
        "config-autoscaler: allow-zero-initial-scale is not true": setting("knative-serving/config-autoscaler", {}),
        f"config-defaults: max-revision-timeout-seconds is 300, and {IMAGE} wants 600": setting(
            "knative-serving/config-defaults", MAXIMUM
        ),
        "config-defaults: container-concurrency-max-limit is 8, and 16 is wanted": setting(
            "knative-serving/config-defaults", MAXIMUM
        ),
    },
    {
        "there is no default StorageClass, and PersistentVolumeClaim text-model names none": take(
            "storageclasses/standard"
        ),
        "there is no default StorageClass, and PersistentVolumeClaim image-model names none": lambda cluster: None,
        "there is no default StorageClass, and StatefulSet redis names none": lambda cluster: None,
        f"there is no RuntimeClass nvidia, which {IMAGE} wants": take("runtimeclasses/nvidia"),
        "Service web needs the Secret web-callers: ": take("shangcai/secrets/web-callers"),
        f"{IMAGE} does not tolerate the taints of the nodes with nvidia.com/gpu — tolerate team": taint,
        f"{TEXT} does not tolerate the taints of the nodes with nvidia.com/gpu — tolerate team": lambda cluster: None,
    },
]
"""Groups of faults that do not hide each other: the line that each is reported by, and how it is caused."""

WITH_EVENTS = (1, 2, 3)
"""The groups with a fault that only an overlay with events has."""


@pytest.mark.parametrize("number", range(len(FAULTS)))
def test_each_fault_is_one_line_that_says_how_to_fix_it(cluster: Any, number: int) -> None:
    faults = FAULTS[number]
    for break_cluster in faults.values():
        break_cluster(cluster)
    ended = cluster.doctor("--overlay", "deploy/events" if number in WITH_EVENTS else "deploy/gpu")
    assert ended.returncode == 1
    found = wrong(ended)
    assert len(found) == len(faults), found
    for line in faults:
        assert [entry for entry in found if entry.startswith(line)], (line, found)
    assert all(" — " in entry for entry in found)


def test_a_flag_of_eventing_is_required_only_if_a_trigger_needs_it(cluster: Any) -> None:
    cluster.config("knative-eventing/config-features", {})
    assert cluster.doctor("--overlay", "deploy/gpu").returncode == 0
    [line] = wrong(cluster.doctor("--overlay", "deploy/laptop-events"))
    assert line.startswith("config-features in knative-eventing: delivery-retryafter is disabled, and Trigger")


def test_only_what_the_overlay_uses_is_required(cluster: Any) -> None:
    for version in list(cluster.kinds):
        if "knative.dev" in version:
            del cluster.kinds[version]
    for path in list(cluster.objects):
        if path.startswith(("knative-", "kourier-", "runtimeclasses", "nodes")):
            del cluster.objects[path]
    ended = cluster.doctor("--overlay", "deploy/standard")
    assert (ended.returncode, wrong(ended)) == (0, [])


def test_too_few_gpus_for_all_models_at_once_are_only_a_note(cluster: Any) -> None:
    cluster.put("nodes", cluster.node("gpu", {"nvidia.com/gpu": "1"}))
    ended = cluster.doctor("--overlay", "deploy/gpu")
    assert ended.returncode == 0
    assert "note   the nodes offer 1 nvidia.com/gpu, and 2 are wanted if all models are awake" in ended.stdout


def test_an_overlay_may_be_in_any_folder(cluster: Any, tmp_path: Path) -> None:
    overlay = tmp_path / "mine"
    overlay.mkdir()
    claim = (
        "apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {name: mine, namespace: mine}\n"
        "spec: {accessModes: [ReadWriteOnce], storageClassName: fast, resources: {requests: {storage: 1Gi}}}\n"
    )
    (overlay / "claim.yaml").write_text(claim)
    (overlay / "kustomization.yaml").write_text("resources: [claim.yaml]\n")
    assert wrong(cluster.doctor("--overlay", str(overlay))) == [
        "there is no StorageClass fast, which PersistentVolumeClaim mine names — make it, or name another"
    ]


def test_an_overlay_that_does_not_render_is_one_line(cluster: Any, tmp_path: Path) -> None:
    (tmp_path / "kustomization.yaml").write_text("resources: [nothing.yaml]\n")
    for overlay, said in ((tmp_path, "does not render: "), (tmp_path / "none", "there is no overlay ")):
        ended = cluster.doctor("--overlay", str(overlay))
        assert ended.returncode == 1
        [line] = ended.stderr.splitlines()
        assert said in line


def test_an_unreachable_api_server_is_one_line(write_kubeconfig: Callable[[str], Path], cluster: Any) -> None:
    port = free_port()
    cluster.kubeconfig = write_kubeconfig(f"http://127.0.0.1:{port}")
    ended = cluster.doctor()
    assert (ended.returncode, ended.stdout) == (1, "")
    [line] = ended.stderr.splitlines()
    assert line.startswith("scripts/doctor: the API server does not answer: The connection to the server 127.0.0.1")


def test_a_silent_api_server_is_given_up_on(write_kubeconfig: Callable[[str], Path], cluster: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        cluster.kubeconfig = write_kubeconfig(f"http://127.0.0.1:{listener.getsockname()[1]}")
        begun = time.monotonic()
        ended = cluster.doctor()
    assert time.monotonic() - begun < 40
    assert ended.returncode == 1
    assert len(ended.stderr.splitlines()) == 1, ended.stderr


def test_without_kubectl_it_is_one_line(machine: Any, one_line: Callable[..., str]) -> None:
    assert one_line(machine.run("doctor")) == "scripts/doctor: kubectl is needed, and it is not on the PATH"
