"""Kubernetes objects as they are rendered."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

POD_SPECS = {
    "Service.serving.knative.dev": ("spec", "template"),
    "Deployment.apps": ("spec", "template"),
    "StatefulSet.apps": ("spec", "template"),
    "DaemonSet.apps": ("spec", "template"),
    "Job.batch": ("spec", "template"),
}


@dataclass(frozen=True)
class Object:
    document: dict[str, Any]

    def __hash__(self) -> int:
        """Of the text: what is found in an object is cached, and 1 is wrong where True is right."""
        return hash(repr(self.document))

    @property
    def kind(self) -> str:
        """With its group, as kubectl prints it: Service, Service.serving.knative.dev."""
        group, slash, _ = self.document["apiVersion"].rpartition("/")
        return f"{self.document['kind']}.{group}" if slash else str(self.document["kind"])

    @property
    def version(self) -> str:
        return str(self.document["apiVersion"]).rpartition("/")[2]

    @property
    def name(self) -> str:
        return str(self.document["metadata"]["name"])

    @property
    def namespace(self) -> str:
        return str(self.document["metadata"].get("namespace", ""))

    @property
    def title(self) -> str:
        return f"{self.kind}/{self.name}"

    @property
    def spec(self) -> dict[str, Any]:
        spec: dict[str, Any] = self.document.get("spec") or {}
        return spec

    @property
    def labels(self) -> dict[str, str]:
        return self.document["metadata"].get("labels") or {}

    @property
    def annotations(self) -> dict[str, str]:
        return self.document["metadata"].get("annotations") or {}

    @property
    def template(self) -> dict[str, Any]:
        """Metadata and spec of the pods that it makes; empty if it makes none."""
        if self.kind == "InferenceService.serving.kserve.io":  # its own labels and annotations are copied to its pods
            metadata = {"labels": self.labels, "annotations": self.annotations}
            return {"metadata": metadata, "spec": self.spec["predictor"]}
        if self.kind == "ServingRuntime.serving.kserve.io":
            return {"metadata": {}, "spec": self.spec}
        template: Any = self.document
        for key in POD_SPECS.get(self.kind, ()):
            template = template[key]
        return template if self.kind in POD_SPECS else {}

    @property
    def pod(self) -> dict[str, Any]:
        return self.template.get("spec") or {}

    @property
    def containers(self) -> list[dict[str, Any]]:
        return self.pod.get("containers") or []

    @property
    def is_knative(self) -> bool:
        """Whether Knative makes its pods, so that Knative's restrictions apply."""
        standard = self.annotations.get("serving.kserve.io/deploymentMode") == "Standard"
        return self.kind in ("Service.serving.knative.dev", "ServingRuntime.serving.kserve.io") or (
            self.kind == "InferenceService.serving.kserve.io" and not standard
        )


SLEEP = ["sleep", "infinity"]
"""The command of a container that only holds an image, or a place."""


def our_image(container: dict[str, Any]) -> str | None:
    """The image of ours that it runs: web or predictor; None for others, and where it only sleeps."""
    if container.get("command") == SLEEP:
        return None
    found = re.search(r"(?:^|/)shangcai/(web|predictor):", container["image"])
    return found[1] if found else None


def restores(container: dict[str, Any]) -> bool:
    """Whether its image has a snapshot of a loaded model, to restore which it needs what others may not have."""
    return re.search(r"(?:^|/)shangcai/predictor:[^-]+-\w+$", container["image"]) is not None


RESTORING: dict[str, Any] = {
    "allowPrivilegeEscalation": True,
    "capabilities": {"drop": ["ALL"], "add": ["CHECKPOINT_RESTORE"]},
    "seccompProfile": {"type": "Unconfined"},
}
"""What such a container is granted, and no more."""


def environment(container: dict[str, Any]) -> dict[str, str]:
    """Names and values, with $(NAME) replaced by an earlier variable, as kubelet does. What comes from a Secret has a
    value that is made up."""
    values: dict[str, str] = {}
    for variable in container.get("env") or []:
        if "value" in variable:
            value = str(variable["value"])
        elif variable["name"] == "STORE_URL":
            value = "redis://from-the-secret-store:6379/0"
        else:
            value = "from-the-secret-{name}-{key}".format(**variable["valueFrom"]["secretKeyRef"])
        for name, known in values.items():
            value = value.replace(f"$({name})", known)
        values[variable["name"]] = value
    return values


def walk(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """All values within a value, with their paths."""
    yield path, value
    if isinstance(value, dict):
        for key, item in value.items():
            yield from walk(item, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from walk(item, f"{path}[{number}]")
