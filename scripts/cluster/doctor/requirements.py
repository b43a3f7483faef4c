"""What an overlay needs of a cluster, read from the manifests that it renders to."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

RENDER_SECONDS = 60.0
DEFAULT_NAMESPACE = "default"
KNATIVE_MODES = ("Knative", "Serverless")

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

Document = dict[str, Any]


class Unreadable(Exception):
    """An overlay that does not render; said in one line."""


@dataclass(frozen=True)
class Pod:
    """A pod that Knative or KServe makes: of whom, its specification, and its annotations."""

    owner: str
    spec: Document
    annotations: dict[str, str]
    knative: bool
    service: Document
    """What holds the settings beside the pod: the predictor, or the template's specification."""

    @property
    def containers(self) -> list[Document]:
        return self.spec.get("containers") or []

    def devices(self) -> dict[str, int]:
        """How many of each extended resource, such as nvidia.com/gpu."""
        found: dict[str, int] = {}
        for container in self.containers:
            for name, amount in (container.get("resources", {}).get("limits") or {}).items():
                if "/" in name:
                    found[name] = found.get(name, 0) + int(amount)
        return found

    def flags(self) -> Iterator[str]:
        """Knative's flags that its fields need."""
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
        return int(self.service.get("timeout") or self.service.get("timeoutSeconds") or 0)

    def storage_uris(self) -> Iterator[str]:
        for container in self.containers:
            for variable in container.get("env") or []:
                if variable["name"] == "STORAGE_URI":
                    yield variable["value"]


@dataclass(frozen=True)
class Needs:
    """The documents of an overlay, and what follows from them."""

    documents: list[Document] = field(repr=False)

    def of(self, group: str, kind: str) -> list[Document]:
        return [item for item in self.documents if group_of(item) == group and item["kind"] == kind]

    @cached_property
    def namespace(self) -> str:
        for item in self.documents:
            if name := item["metadata"].get("namespace"):
                return str(name)
        return DEFAULT_NAMESPACE

    @cached_property
    def kinds(self) -> list[tuple[str, str]]:
        """(apiVersion, kind), each once."""
        return list(dict.fromkeys((item["apiVersion"], item["kind"]) for item in self.documents))

    @cached_property
    def inference_services(self) -> list[Document]:
        return self.of("serving.kserve.io", "InferenceService")

    @cached_property
    def without_mode(self) -> list[str]:
        """InferenceServices whose mode is the cluster's default."""
        return [item["metadata"]["name"] for item in self.inference_services if not mode_of(item)]

    @cached_property
    def pods(self) -> list[Pod]:
        found = []
        for item in self.inference_services:
            predictor = item["spec"]["predictor"]
            knative = mode_of(item) in (*KNATIVE_MODES, "")
            found.append(Pod(name_of(item), predictor, annotations_of(item), knative, predictor))
        for item in self.of("serving.knative.dev", "Service"):
            template = item["spec"]["template"]
            found.append(Pod(name_of(item), template["spec"], annotations_of(template), True, template["spec"]))
        return found

    @cached_property
    def uses_knative(self) -> bool:
        return any(pod.knative for pod in self.pods)

    @cached_property
    def uses_eventing(self) -> bool:
        groups = {group_of(item) for item in self.documents}
        return bool(groups & {"eventing.knative.dev", "messaging.knative.dev", "sources.knative.dev"})

    @cached_property
    def flags(self) -> dict[str, str]:
        """Flags of config-features in knative-serving, each with one who needs it."""
        return {flag: pod.owner for pod in reversed(self.pods) if pod.knative for flag in pod.flags()}

    @cached_property
    def eventing_flags(self) -> dict[str, str]:
        """Flags of config-features in knative-eventing."""
        found = {}
        for item in self.documents:
            if "retryAfterMax" in (item.get("spec", {}).get("delivery") or {}):
                found["delivery-retryafter"] = name_of(item)
            if "audience" in (item.get("spec", {}).get("subscriber") or {}):
                found["authentication-oidc"] = name_of(item)
        return found

    @cached_property
    def broker_classes(self) -> list[str]:
        brokers = self.of("eventing.knative.dev", "Broker")
        return [annotations_of(item).get("eventing.knative.dev/broker.class", "") for item in brokers]

    @cached_property
    def claims(self) -> list[tuple[str, str | None]]:
        """Volumes that are asked for: by whom, and of which storage class, if it is named."""
        found = [(name_of(item), item["spec"].get("storageClassName")) for item in self.of("", "PersistentVolumeClaim")]
        for item in self.of("apps", "StatefulSet"):
            for template in item["spec"].get("volumeClaimTemplates") or []:
                found.append((name_of(item), template["spec"].get("storageClassName")))
        return found

    @cached_property
    def runtime_classes(self) -> dict[str, str]:
        return {pod.spec["runtimeClassName"]: pod.owner for pod in self.pods if pod.spec.get("runtimeClassName")}


def read(overlay: str) -> Needs:
    """Render an overlay with kubectl, which is also what makes JSON of it: a bare Python reads no YAML."""
    if not Path(overlay).is_dir():
        raise Unreadable(f"there is no overlay {overlay}")
    try:
        rendered = subprocess.run(
            ["kubectl", "kustomize", overlay], capture_output=True, text=True, timeout=RENDER_SECONDS
        )
        # A change that is made here, of no consequence, is what makes kubectl print any kind without asking a server.
        printed = subprocess.run(
            ["kubectl", "annotate", "--local", "-f", "-", "-o", "json", "shangcai.ai/read-by=doctor"],
            input=rendered.stdout,
            capture_output=True,
            text=True,
            timeout=RENDER_SECONDS,
        )
    except subprocess.TimeoutExpired as error:
        raise Unreadable(f"{overlay}: `kubectl {error.cmd[1]}` took longer than {RENDER_SECONDS:.0f} s") from None
    for step in (rendered, printed):
        if step.returncode:
            said = (step.stderr.strip() or "it does not say why").splitlines()[-1]
            raise Unreadable(f"{overlay} does not render: {said}")
    return Needs(list(documents_of(printed.stdout)))


def documents_of(text: str) -> Iterator[Document]:
    """JSON documents that stand one behind the other."""
    decoder = json.JSONDecoder()
    position = 0
    while position < len(text):
        document, position = decoder.raw_decode(text, position)
        yield document
        position += len(text[position:]) - len(text[position:].lstrip())


def group_of(item: Document) -> str:
    group, slash, _ = item["apiVersion"].partition("/")
    return group if slash else ""


def name_of(item: Document) -> str:
    return f"{item['kind']} {item['metadata']['name']}"


def annotations_of(item: Document) -> dict[str, str]:
    return item.get("metadata", {}).get("annotations") or {}


def mode_of(item: Document) -> str:
    return annotations_of(item).get("serving.kserve.io/deploymentMode", "")
