"""Objects of an overlay, as far as doctor reads them."""

from __future__ import annotations

from typing import Any

Object = dict[str, Any]

GPU = {"nvidia.com/gpu": "1"}
GPU_TAINT = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
PART_OF = {"app.kubernetes.io/part-of": "shangcai"}


def made(version: str, kind: str, name: str, **parts: Any) -> Object:
    metadata = {"name": name, "namespace": "shangcai", **parts.pop("metadata", {})}
    return {"apiVersion": version, "kind": kind, "metadata": metadata, **parts}


def container(**fields: Any) -> Object:
    return {"name": "main", "image": "registry.test/predictor:1", **fields}


def job(**spec: Any) -> Object:
    containers = spec.pop("containers", None) or [container()]
    return made("batch/v1", "Job", "download", spec={"template": {"spec": {"containers": containers, **spec}}})


def web(**spec: Any) -> Object:
    """A Service of Knative."""
    template = {"metadata": {"labels": PART_OF}, "spec": {"containers": [container()], **spec}}
    return made("serving.knative.dev/v1", "Service", "web", spec={"template": template})


def model(mode: str = "Knative", annotations: dict[str, str] | None = None, **predictor: Any) -> Object:
    """An InferenceService."""
    containers = predictor.pop("containers", None) or [container()]
    metadata = {"annotations": {"serving.kserve.io/deploymentMode": mode, **(annotations or {})}, "labels": PART_OF}
    spec = {"predictor": {"containers": containers, **predictor}}
    return made("serving.kserve.io/v1beta1", "InferenceService", "text", metadata=metadata, spec=spec)


def gpu_model(**predictor: Any) -> Object:
    return model(containers=[container(resources={"limits": GPU})], tolerations=[GPU_TAINT], **predictor)


def policy(*rules: Object, selector: Object | None = None) -> Object:
    spec = {"podSelector": selector or {}, "policyTypes": ["Ingress"], "ingress": list(rules)}
    return made("networking.k8s.io/v1", "NetworkPolicy", "knative", spec=spec)


def broker(name: str, config: str) -> Object:
    """A Broker of a class, with a ConfigMap."""
    metadata = {"annotations": {"eventing.knative.dev/broker.class": name}}
    spec = {"config": {"apiVersion": "v1", "kind": "ConfigMap", "name": config}}
    return made("eventing.knative.dev/v1", "Broker", "default", metadata=metadata, spec=spec)
