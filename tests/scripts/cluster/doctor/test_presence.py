"""doctor on what must be there, and on what is there and stands in the way."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from scripts.cluster.doctor.checks import api_server, storage
from scripts.cluster.doctor.checks.autoscaling import autoscaling
from scripts.cluster.doctor.checks.immutable import immutable
from scripts.cluster.doctor.checks.kserve import kserve
from scripts.cluster.doctor.cluster_state import ClusterState
from scripts.cluster.doctor.requirements import Requirements
from tests.scripts.cluster.doctor.overlay_objects import GPU, Object, broker, container, job, made, model, web

pytestmark = pytest.mark.slow

Found = Callable[..., list[str]]


@pytest.mark.parametrize(
    ("knative", "kubernetes", "wanted"),
    [
        ("1.19.4", "v1.31.9", "1.32"),
        ("1.20.0", "v1.32.0", ""),
        ("1.21.1", "v1.32.7", "1.33"),
        ("1.21.1", "v1.33.0-gke.100", ""),
        ("1.22.0", "v1.33.2", "1.34"),
        ("1.23.1", "v1.34.0", ""),
        ("1.30.0", "v1.33.0", "1.34"),
    ],
)
def test_kubernetes_is_as_new_as_knative_wants(
    cluster: Any, state: ClusterState, knative: str, kubernetes: str, wanted: str
) -> None:
    cluster.version = kubernetes
    for path in ("knative-serving/controller", "knative-eventing/eventing-controller"):
        cluster.deployment(path)["metadata"]["labels"]["app.kubernetes.io/version"] = knative
    finding = api_server.kubernetes(state, Requirements([web()]))
    assert finding.verdict == ("wrong" if wanted else "ok"), finding
    if wanted and wanted != "1.32":
        assert finding.text == (
            f"Kubernetes {kubernetes} is too old; {wanted} is needed: Knative Serving {knative} ends at once below it"
        )


def test_a_knative_that_is_not_used_does_not_count(cluster: Any, state: ClusterState) -> None:
    cluster.version = "v1.32.0"
    cluster.deployment("knative-serving/controller")["metadata"]["labels"]["app.kubernetes.io/version"] = "1.22.0"
    assert api_server.kubernetes(state, Requirements([model("Standard")])).verdict == "ok"


@pytest.mark.parametrize(
    ("version", "kind", "fix"),
    [
        ("monitoring.coreos.com/v1", "PodMonitor", "install the Prometheus operator, or leave the component"),
        ("monitoring.coreos.com/v1", "PrometheusRule", "install the Prometheus operator, or leave the component"),
        ("gateway.networking.k8s.io/v1", "HTTPRoute", "install the Gateway API with a controller, or leave"),
    ],
)
def test_an_optional_kind_must_be_served(cluster: Any, state: ClusterState, version: str, kind: str, fix: str) -> None:
    required = Requirements([made(version, kind, "web", spec={})])
    [line] = api_server.missing_kinds(api_server.served_kinds(state, required))
    assert line.verdict == "ok"
    del cluster.kinds[version]
    [line] = api_server.missing_kinds(api_server.served_kinds(state, required))
    assert (line.verdict, line.text) == ("wrong", f"{kind} of {version} is not served")
    assert line.fix.startswith(fix)


TOKEN = {"path": "token", "audience": "eventing.knative.dev/broker/elsewhere/default"}
SUBJECT = {"kind": "ServiceAccount", "name": "web", "namespace": "elsewhere"}


@pytest.mark.parametrize(
    ("thing", "named"),
    [
        (web(containers=[container(env=[{"name": "NAMESPACE", "value": "elsewhere"}])]), "NAMESPACE of Service web"),
        (model(containers=[container(env=[{"name": "NAMESPACE", "value": "elsewhere"}])]), "NAMESPACE of Inference"),
        (
            web(volumes=[{"name": "oidc", "projected": {"sources": [{"serviceAccountToken": TOKEN}]}}]),
            "the audience of the token of Service web",
        ),
        (
            made("rbac.authorization.k8s.io/v1", "RoleBinding", "reads", subjects=[SUBJECT]),
            "the subject of RoleBinding",
        ),
    ],
)
def test_an_overlay_in_a_namespace_names_no_other(found: Found, thing: Object, named: str) -> None:
    """kustomize moves objects, and what their texts say only where replacements tell it to."""
    account = made("v1", "ServiceAccount", "web")
    [line] = found(api_server.namespace, [account, thing])
    assert line.startswith(f"wrong {named}")
    assert "is elsewhere, and all is created in shangcai" in line
    assert found(api_server.namespace, json.loads(json.dumps([account, thing]).replace("elsewhere", "shangcai"))) == []


def test_an_account_of_others_may_be_in_their_namespace(found: Found) -> None:
    binding = made("rbac.authorization.k8s.io/v1", "RoleBinding", "reads", subjects=[{**SUBJECT, "name": "prometheus"}])
    assert found(api_server.namespace, [made("v1", "ServiceAccount", "web"), binding]) == []


def test_an_hpa_by_cpu_needs_metrics_server(cluster: Any, found: Found) -> None:
    standard = model("Standard", scaleMetric="cpu")
    assert found(autoscaling, [standard])[0].startswith("ok metrics.k8s.io/v1beta1 is served")
    del cluster.kinds["metrics.k8s.io/v1beta1"]
    [line] = found(autoscaling, [standard])
    assert line.startswith("wrong metrics.k8s.io/v1beta1 is not served, by which InferenceService text is scaled")
    assert "install metrics-server" in line
    metrics = [{"type": "Resource", "resource": {"name": "cpu"}}]
    scaler = made("autoscaling/v2", "HorizontalPodAutoscaler", "web", spec={"metrics": metrics})
    assert found(autoscaling, [scaler])[0].startswith("wrong metrics.k8s.io/v1beta1 is not served")
    assert found(autoscaling, [model(scaleMetric="concurrency")]) == []


def test_keda_must_be_served_where_it_scales(cluster: Any, found: Found) -> None:
    service = model("Standard", {"serving.kserve.io/autoscalerClass": "keda"})
    assert found(autoscaling, [service]) == [
        "wrong keda.sh/v1alpha1 is not served, by which InferenceService text is scaled — install KEDA"
    ]
    cluster.kinds["keda.sh/v1alpha1"] = ["scaledobjects/ScaledObject"]
    assert found(autoscaling, [service])[0].startswith("ok ")


def secret_of(name: str, key: str, **more: Any) -> Object:
    reference = {"name": name, "key": key, **more}
    return container(env=[{"name": "TOKEN", "valueFrom": {"secretKeyRef": reference}}])


def test_secrets_of_jobs_and_their_keys_are_needed(cluster: Any, found: Found) -> None:
    wants = [job(containers=[secret_of("hub", "HF_TOKEN")])]
    [line] = found(storage.secrets, wants)
    assert line.startswith("wrong Job download needs the Secret hub: ")
    cluster.put("shangcai/secrets", {"metadata": {"name": "hub"}, "data": {"token": "eA=="}})
    [line] = found(storage.secrets, wants)
    assert line.startswith("wrong the Secret hub lacks HF_TOKEN, which Job download needs")
    cluster.put("shangcai/secrets", {"metadata": {"name": "hub"}, "data": {"HF_TOKEN": "eA=="}})
    assert found(storage.secrets, wants) == ["ok the Secret hub is there"]


def test_secrets_that_pull_images_are_needed(found: Found) -> None:
    [line] = found(storage.secrets, [job(imagePullSecrets=[{"name": "registry"}])])
    assert line.startswith("wrong Job download needs the Secret registry: ")


def test_what_the_overlay_makes_or_can_do_without_is_not_missed(found: Found) -> None:
    own = made("v1", "Secret", "own", stringData={"key": "x"})
    claim = made("v1", "PersistentVolumeClaim", "models", spec={"storageClassName": "standard"})
    volumes = [{"name": "models", "persistentVolumeClaim": {"claimName": "models"}}]
    containers = [secret_of("own", "key"), secret_of("hub", "HF_TOKEN", optional=True)]
    overlay = [own, claim, job(containers=containers, volumes=volumes)]
    assert found(storage.secrets, overlay) == []
    assert found(storage.storage, overlay) == ["ok PersistentVolumeClaim models has the StorageClass standard"]


@pytest.mark.parametrize(
    ("wants", "owner"),
    [
        (job(volumes=[{"name": "m", "persistentVolumeClaim": {"claimName": "models"}}]), "Job download"),
        (
            model(containers=[container(env=[{"name": "STORAGE_URI", "value": "pvc://models/a"}])]),
            "InferenceService text",
        ),
    ],
)
def test_a_claim_of_somebody_else_must_be_there(cluster: Any, found: Found, wants: Object, owner: str) -> None:
    [line] = found(storage.storage, [wants])
    assert line.startswith(f"wrong there is no PersistentVolumeClaim models in shangcai, which {owner} mounts")
    cluster.put("shangcai/persistentvolumeclaims", {"metadata": {"name": "models"}})
    assert found(storage.storage, [wants]) == ["ok the PersistentVolumeClaim models is there"]


def test_models_that_share_a_volume_of_one_node_are_noted(found: Found) -> None:
    spec = {"accessModes": ["ReadWriteOnce"], "storageClassName": "standard"}
    claim = made("v1", "PersistentVolumeClaim", "models", spec=spec)
    env = [{"name": "STORAGE_URI", "value": "pvc://models/text"}]
    text, image = (model(containers=[container(env=env, resources={"limits": GPU})]) for _ in range(2))
    image["metadata"]["name"] = "image"
    lines = found(storage.storage, [claim, text, image])
    assert lines[0].startswith("note InferenceService text, InferenceService image share PersistentVolumeClaim models")
    spec["accessModes"] = ["ReadWriteMany"]
    assert [line for line in found(storage.storage, [claim, text, image]) if not line.startswith("ok ")] == []


def test_a_restricted_namespace_does_not_fetch_models(found: Found) -> None:
    env = [{"name": "STORAGE_URI", "value": "hf://somebody/model"}]
    label = "pod-security.kubernetes.io/enforce"
    namespace = made("v1", "Namespace", "shangcai", metadata={"labels": {label: "restricted"}})
    overlay = [namespace, model(containers=[container(env=env)])]
    [line] = [line for line in found(kserve, overlay) if not line.startswith("ok ")]
    assert line.startswith("wrong the namespace enforces the profile restricted, which KServe's container for hf:")
    namespace["metadata"]["labels"][label] = "baseline"
    assert [line for line in found(kserve, overlay) if not line.startswith("ok ")] == []


def test_models_from_images_need_a_kserve_and_a_kubernetes_that_mount_them(cluster: Any, found: Found) -> None:
    env = [{"name": "STORAGE_URI", "value": "oci+native://registry.test/model:1"}]
    namespace = made(
        "v1", "Namespace", "shangcai", metadata={"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}
    )
    overlay = [namespace, model(containers=[container(env=env)])]
    del cluster.objects["clusterstoragecontainers/default"]
    [line] = [line for line in found(kserve, overlay) if not line.startswith("ok ")]
    assert line.startswith("note Kubernetes v1.34.0 mounts oci+native://registry.test/model:1 only from 1.33 on")
    cluster.version = "v1.35.1"
    assert [line for line in found(kserve, overlay) if not line.startswith("ok ")] == []
    template = cluster.deployment("kserve/kserve-controller-manager")["spec"]["template"]
    template["spec"]["containers"][0]["image"] = "kserve/kserve-controller:v0.19.0"
    [line] = [line for line in found(kserve, overlay) if not line.startswith("ok ")]
    assert line.startswith("wrong KServe v0.19.0 does not know oci+native://registry.test/model:1")


def test_a_model_in_another_mode_must_be_deleted_first(cluster: Any, found: Found) -> None:
    there = {"metadata": {"name": "text"}, "status": {"deploymentMode": "RawDeployment"}}
    cluster.put("shangcai/inferenceservices", there)
    assert found(immutable, [model("Standard")]) == []
    assert found(immutable, [model("Knative")]) == [
        "wrong InferenceService text is there in the mode RawDeployment, and KServe refuses to make it Knative"
        " — delete it first: kubectl delete inferenceservice text -n shangcai"
    ]


@pytest.mark.parametrize(
    ("there", "said"),
    [
        (broker("Kafka", "kafka"), "with the class Kafka, and Knative refuses to make it MTChannelBasedBroker"),
        (broker("MTChannelBasedBroker", "other"), "with another config, which Knative refuses to change"),
    ],
)
def test_a_broker_that_differs_must_be_deleted_first(cluster: Any, found: Found, there: Object, said: str) -> None:
    wanted = broker("MTChannelBasedBroker", "channel")
    cluster.put("shangcai/brokers", wanted)
    assert found(immutable, [wanted]) == []
    cluster.put("shangcai/brokers", there)
    assert found(immutable, [wanted]) == [
        f"wrong Broker default is there {said}"
        " — delete it first: kubectl delete broker.eventing.knative.dev default -n shangcai"
    ]


def test_a_job_that_differs_must_be_deleted_first(cluster: Any, found: Found) -> None:
    there = job(containers=[container(args=["a"], terminationMessagePath="/dev/termination-log")], dnsPolicy="Default")
    cluster.put("shangcai/jobs", there)
    assert found(immutable, [job(containers=[container(args=["a"])])]) == []
    [line] = found(immutable, [job(containers=[container(args=["b"])])])
    assert line.startswith("wrong Job download is there with another pod template, which Kubernetes refuses to change")
    assert line.endswith("kubectl delete job download -n shangcai")
