"""What an overlay requires of a cluster, read from its rendered manifests."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from scripts.cluster.doctor.manifests import Document, annotations_of, group_of, labels_of, mode_of, name_of
from scripts.cluster.doctor.pods import Pod

DEFAULT_NAMESPACE = "default"
KNATIVE_MODES = ("Knative", "Serverless")
WORKLOADS = {"apps": ("Deployment", "StatefulSet", "DaemonSet"), "batch": ("Job", "CronJob")}


@dataclass(frozen=True)
class SecretUse:
    """A Secret without which a pod does not start."""

    owner: str
    """An object that needs it."""

    keys: frozenset[str]
    """What must be in it."""


@dataclass(frozen=True)
class Requirements:
    """Derived from the documents of an overlay."""

    documents: list[Document] = field(repr=False)

    def of(self, group: str, *kinds: str) -> list[Document]:
        """The documents of these kinds."""
        return [item for item in self.documents if group_of(item) == group and item["kind"] in kinds]

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
            predictor, name = item["spec"]["predictor"], item["metadata"]["name"]
            # KServe hands on the labels, and adds these (kserve/kserve pkg/constants).
            labels = {**labels_of(item), **(predictor.get("labels") or {}), "component": "predictor"}
            labels |= {"serving.kserve.io/inferenceservice": name}
            knative = mode_of(item) in (*KNATIVE_MODES, "")
            found.append(Pod(name_of(item), predictor, labels, annotations_of(item), knative, predictor))
        for item in self.of("serving.knative.dev", "Service"):
            template = item["spec"]["template"]
            labels = {**labels_of(template), "serving.knative.dev/service": item["metadata"]["name"]}
            found.append(Pod(name_of(item), template["spec"], labels, annotations_of(template), True, template["spec"]))
        for group, kinds in WORKLOADS.items():
            for item in self.of(group, *kinds):
                spec = item["spec"]["jobTemplate"]["spec"] if item["kind"] == "CronJob" else item["spec"]
                template = spec["template"]
                found.append(
                    Pod(name_of(item), template["spec"], labels_of(template), annotations_of(template), False, {})
                )
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
        """Flags of config-features in knative-serving, each with an object that needs it."""
        return {flag: pod.owner for pod in reversed(self.pods) if pod.knative for flag in pod.flags()}

    @cached_property
    def eventing_flags(self) -> dict[str, str]:
        """Flags of config-features in knative-eventing, each with an object that needs it."""
        found = {}
        for item in self.documents:
            if "retryAfterMax" in (item.get("spec", {}).get("delivery") or {}):
                found["delivery-retryafter"] = name_of(item)
            if "audience" in (item.get("spec", {}).get("subscriber") or {}):
                found["authentication-oidc"] = name_of(item)
        return found

    @cached_property
    def brokers(self) -> list[Document]:
        return self.of("eventing.knative.dev", "Broker")

    @cached_property
    def network_policies(self) -> list[Document]:
        return self.of("networking.k8s.io", "NetworkPolicy")

    @cached_property
    def claims(self) -> list[tuple[str, str | None]]:
        """Claims of volumes: the object that makes it, and its storage class, or None for the default one."""
        found = [(name_of(item), item["spec"].get("storageClassName")) for item in self.of("", "PersistentVolumeClaim")]
        for item in self.of("apps", "StatefulSet"):
            for template in item["spec"].get("volumeClaimTemplates") or []:
                found.append((name_of(item), template["spec"].get("storageClassName")))
        return found

    @cached_property
    def foreign_claims(self) -> dict[str, str]:
        """Claims that pods mount and the overlay does not make, each with an object that needs it."""
        made = {item["metadata"]["name"] for item in self.of("", "PersistentVolumeClaim")}
        return {name: pod.owner for pod in reversed(self.pods) for name in pod.claims() if name not in made}

    @cached_property
    def secrets(self) -> dict[str, SecretUse]:
        """Secrets that pods need and the overlay does not make, by their names."""
        made = {item["metadata"]["name"] for item in self.of("", "Secret")}
        found: dict[str, SecretUse] = {}
        for item in self.documents:
            for name, keys in _secrets(item):
                if name not in made:
                    known = found.get(name, SecretUse(name_of(item), frozenset()))
                    found[name] = SecretUse(known.owner, known.keys | keys)
        return found

    @cached_property
    def runtime_classes(self) -> dict[str, str]:
        """RuntimeClasses that the overlay does not make, each with an object that needs it."""
        made = {item["metadata"]["name"] for item in self.of("node.k8s.io", "RuntimeClass")}
        wanted = {name: pod.owner for pod in reversed(self.pods) if (name := pod.spec.get("runtimeClassName"))}
        return {name: owner for name, owner in wanted.items() if name not in made}


def _secrets(value: Any) -> Iterator[tuple[str, frozenset[str]]]:
    """Names and keys of Secrets within a document that must be there."""
    if isinstance(value, dict):
        found = value.get("secretKeyRef")
        if isinstance(found, dict) and "name" in found and not found.get("optional"):
            yield str(found["name"]), frozenset({str(found["key"])} if "key" in found else ())
        found = value.get("secretRef")
        if isinstance(found, dict) and "name" in found and not found.get("optional"):
            yield str(found["name"]), frozenset()
        found = value.get("secret")
        if isinstance(found, dict) and "secretName" in found and not found.get("optional"):
            yield str(found["secretName"]), frozenset(str(item["key"]) for item in found.get("items") or [])
        for entry in value.get("imagePullSecrets") or []:
            yield str(entry["name"]), frozenset()
    for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _secrets(part)
