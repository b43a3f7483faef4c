"""Whether there is what pods outside of Knative are scaled by."""

from __future__ import annotations

from collections.abc import Iterator

from scripts.cluster.doctor.cluster_state import ClusterState, NotFound
from scripts.cluster.doctor.finding import Finding
from scripts.cluster.doctor.manifests import Document, annotations_of, mode_of, name_of
from scripts.cluster.doctor.requirements import KNATIVE_MODES, Requirements

CLASS = "serving.kserve.io/autoscalerClass"


def autoscaling(cluster: ClusterState, required: Requirements) -> Iterator[Finding]:
    standard = [item for item in required.inference_services if mode_of(item) not in (*KNATIVE_MODES, "")]
    by_resources = [item for item in standard if scaled_by_resources(item)]
    by_resources += [item for item in required.of("autoscaling", "HorizontalPodAutoscaler") if reads_resources(item)]
    if by_resources:
        fix = "install metrics-server; until then it keeps as many pods as it has"
        yield served(cluster, "metrics.k8s.io/v1beta1", name_of(by_resources[0]), fix)
    by_keda = [item for item in required.inference_services if annotations_of(item).get(CLASS) == "keda"]
    if by_keda:
        yield served(cluster, "keda.sh/v1alpha1", name_of(by_keda[0]), "install KEDA")


def scaled_by_resources(service: Document) -> bool:
    """Whether KServe makes an HPA by CPU or memory for it: its default (kserve/kserve pkg/constants)."""
    metric = service["spec"]["predictor"].get("scaleMetric", "cpu")
    return annotations_of(service).get(CLASS, "hpa") == "hpa" and metric in ("cpu", "memory")


def reads_resources(scaler: Document) -> bool:
    return any(metric["type"] in ("Resource", "ContainerResource") for metric in scaler["spec"].get("metrics") or [])


def served(cluster: ClusterState, version: str, owner: str, fix: str) -> Finding:
    try:
        cluster.text("get", "--raw", f"/apis/{version}")
    except NotFound:
        return Finding("wrong", f"{version} is not served, by which {owner} is scaled", fix)
    return Finding("ok", f"{version} is served, by which {owner} is scaled")
