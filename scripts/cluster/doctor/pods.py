"""The pods of an overlay, and what their specifications require."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from scripts.cluster.doctor.manifests import Document

POD_FLAGS = {
    "nodeSelector": "nodeselector",
    "tolerations": "tolerations",
    "affinity": "affinity",
    "topologySpreadConstraints": "topologyspreadconstraints",
    "runtimeClassName": "runtimeclassname",
    "initContainers": "init-containers",
    "securityContext": "securitycontext",
    "priorityClassName": "priorityclassname",
    "schedulerName": "schedulername",
    "hostIPC": "hostipc",
    "dnsPolicy": "dnspolicy",
    "dnsConfig": "dnsconfig",
}
"""Fields of a pod that Knative refuses unless its flag kubernetes.podspec-… allows them."""

VOLUME_FLAGS = {
    "persistentVolumeClaim": "persistent-volume-claim",
    "hostPath": "volumes-hostpath",
    "csi": "volumes-csi",
    "ephemeral": "volumes-ephemeral",
    "image": "volumes-image",
}


@dataclass(frozen=True)
class Pod:
    """A pod that Knative or KServe makes."""

    owner: str
    """Kind and name of the object that it is made for."""

    spec: Document
    annotations: dict[str, str]
    knative: bool
    """Whether Knative runs it."""

    service: Document
    """What holds timeout and concurrency: an InferenceService's predictor, or the spec of a Service's template."""

    @property
    def containers(self) -> list[Document]:
        return self.spec.get("containers") or []

    def devices(self) -> dict[str, int]:
        """How many it wants of each extended resource, such as nvidia.com/gpu."""
        found: dict[str, int] = {}
        for container in self.containers:
            for name, amount in (container.get("resources", {}).get("limits") or {}).items():
                if "/" in name:
                    found[name] = found.get(name, 0) + int(amount)
        return found

    def flags(self) -> Iterator[str]:
        """The flags of Knative that allow its fields."""
        for name, flag in POD_FLAGS.items():
            if self.spec.get(name):
                yield f"kubernetes.podspec-{flag}"
        for volume in self.spec.get("volumes") or []:
            for name, flag in VOLUME_FLAGS.items():
                if name in volume:
                    yield f"kubernetes.podspec-{flag}"
            if "persistentVolumeClaim" in volume and not volume["persistentVolumeClaim"].get("readOnly"):
                yield "kubernetes.podspec-persistent-volume-write"
        for container in self.containers:
            if any("fieldRef" in variable.get("valueFrom", {}) for variable in container.get("env") or []):
                yield "kubernetes.podspec-fieldref"

    def timeout(self) -> int:
        """Seconds; 0 for the default."""
        return int(self.service.get("timeout") or self.service.get("timeoutSeconds") or 0)

    def storage_uris(self) -> Iterator[str]:
        for container in self.containers:
            for variable in container.get("env") or []:
                if variable["name"] == "STORAGE_URI":
                    yield variable["value"]
