"""What an overlay requires of a cluster, read from its rendered manifests."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from scripts.cluster.doctor.manifests import Document, annotations_of, group_of, mode_of, name_of
from scripts.cluster.doctor.pods import Pod

DEFAULT_NAMESPACE = "default"
KNATIVE_MODES = ("Knative", "Serverless")


@dataclass(frozen=True)
class Requirements:
    """Derived from the documents of an overlay."""

    documents: list[Document] = field(repr=False)

    def of(self, group: str, kind: str) -> list[Document]:
        """The documents of a kind."""
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
    def broker_classes(self) -> list[str]:
        brokers = self.of("eventing.knative.dev", "Broker")
        return [annotations_of(item).get("eventing.knative.dev/broker.class", "") for item in brokers]

    @cached_property
    def claims(self) -> list[tuple[str, str | None]]:
        """Claims of volumes: the object that makes it, and its storage class, or None for the default one."""
        found = [(name_of(item), item["spec"].get("storageClassName")) for item in self.of("", "PersistentVolumeClaim")]
        for item in self.of("apps", "StatefulSet"):
            for template in item["spec"].get("volumeClaimTemplates") or []:
                found.append((name_of(item), template["spec"].get("storageClassName")))
        return found

    @cached_property
    def secrets(self) -> dict[str, str]:
        """Secrets without which no pod starts, each with an object that needs it."""
        return {name: name_of(item) for item in reversed(self.documents) for name in _secrets(item)}

    @cached_property
    def runtime_classes(self) -> dict[str, str]:
        """RuntimeClasses, each with an object that needs it."""
        return {pod.spec["runtimeClassName"]: pod.owner for pod in self.pods if pod.spec.get("runtimeClassName")}


def _secrets(value: Any) -> Iterator[str]:
    """The names of Secrets within a document that must be there."""
    if isinstance(value, dict):
        for key, name in (("secretKeyRef", "name"), ("secret", "secretName")):
            if isinstance(found := value.get(key), dict) and name in found and not found.get("optional"):
                yield str(found[name])
    for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _secrets(part)
