"""The pods of an overlay, and what their specifications require."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from scripts.cluster.doctor.manifests import Document
from scripts.cluster.doctor.selectors import matches

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
    """A pod that Knative, KServe or Kubernetes makes."""

    owner: str
    """Kind and name of the object that it is made for."""

    spec: Document
    labels: dict[str, str]
    annotations: dict[str, str]
    knative: bool
    """Whether Knative runs it."""

    service: Document
    """What holds timeout and concurrency: an InferenceService's predictor, or the spec of a Service's template."""

    @property
    def containers(self) -> list[Document]:
        return self.spec.get("containers") or []

    @property
    def images(self) -> list[str]:
        containers = [*self.containers, *(self.spec.get("initContainers") or [])]
        return [container["image"] for container in containers if "image" in container]

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
            if container.get("securityContext", {}).get("capabilities", {}).get("add"):
                yield "kubernetes.containerspec-addcapabilities"
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

    def claims(self) -> Iterator[str]:
        """Names of the PersistentVolumeClaims that it mounts."""
        for volume in self.spec.get("volumes") or []:
            if "persistentVolumeClaim" in volume:
                yield volume["persistentVolumeClaim"]["claimName"]
        for uri in self.storage_uris():
            if uri.startswith("pvc://"):
                yield uri.removeprefix("pvc://").partition("/")[0]

    def chooses(self) -> str:
        """The labels of a node that it asks for, in words; empty if it may run on any."""
        parts = [f"{key}={value}" for key, value in (self.spec.get("nodeSelector") or {}).items()]
        for term in self._node_terms():
            parts += [expression["key"] for expression in term.get("matchExpressions") or []]
        return ", ".join(dict.fromkeys(parts))

    def may_choose(self, node: Document) -> bool:
        """Whether its node selector and the affinity that it must have let it run on a node."""
        labels = node["metadata"].get("labels") or {}
        if not matches({"matchLabels": self.spec.get("nodeSelector") or {}}, labels):
            return False
        terms = self._node_terms()
        return not terms or any(matches(term, labels) for term in terms)

    def tolerates(self, node: Document) -> bool:
        """Whether it tolerates a node's taints, except PreferNoSchedule."""
        taints = [taint for taint in node["spec"].get("taints") or [] if taint["effect"] != "PreferNoSchedule"]
        tolerations = self.spec.get("tolerations") or []
        return all(any(_tolerates(item, taint) for item in tolerations) for taint in taints)

    def _node_terms(self) -> list[Document]:
        affinity = (self.spec.get("affinity") or {}).get("nodeAffinity") or {}
        required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or {}
        terms: list[Document] = required.get("nodeSelectorTerms") or []
        return terms


def _tolerates(toleration: Document, taint: Document) -> bool:
    if toleration.get("effect") not in (None, "", taint["effect"]):
        return False
    if toleration.get("operator", "Equal") == "Exists":
        return toleration.get("key") in (None, "", taint["key"])
    return (toleration.get("key"), toleration.get("value", "")) == (taint["key"], taint.get("value", ""))
