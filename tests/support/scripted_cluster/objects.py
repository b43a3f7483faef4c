"""What an API server keeps: objects by their kind, namespace and name, with their generations."""

from __future__ import annotations

import copy
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

Document = dict[str, Any]

KINDS = {
    "v1": [
        *("namespaces/Namespace", "nodes/Node", "configmaps/ConfigMap", "serviceaccounts/ServiceAccount"),
        *("services/Service", "secrets/Secret", "pods/Pod", "persistentvolumeclaims/PersistentVolumeClaim"),
        "events/Event",
    ],
    "apps/v1": ["deployments/Deployment", "statefulsets/StatefulSet"],
    "batch/v1": ["jobs/Job"],
    "policy/v1": ["poddisruptionbudgets/PodDisruptionBudget"],
    "rbac.authorization.k8s.io/v1": ["roles/Role", "rolebindings/RoleBinding"],
    "networking.k8s.io/v1": ["networkpolicies/NetworkPolicy"],
    "serving.knative.dev/v1": ["services/Service", "revisions/Revision"],
    "eventing.knative.dev/v1": ["brokers/Broker", "triggers/Trigger"],
    "eventing.knative.dev/v1beta3": ["eventtypes/EventType"],
    "sources.knative.dev/v1": ["sinkbindings/SinkBinding"],
    "messaging.knative.dev/v1": ["inmemorychannels/InMemoryChannel"],
    "serving.kserve.io/v1beta1": ["inferenceservices/InferenceService"],
    "autoscaling.internal.knative.dev/v1alpha1": ["podautoscalers/PodAutoscaler"],
}


@dataclass(frozen=True)
class Place:
    """Where an object is, or all objects of a kind where `name` is empty."""

    version: str
    resource: str
    namespace: str = ""
    name: str = ""

    @property
    def kind(self) -> str:
        return next(
            kind for name, _, kind in (entry.partition("/") for entry in KINDS[self.version]) if name == self.resource
        )


def place_of(document: Document) -> Place:
    version, kind = document["apiVersion"], document["kind"]
    resource = next(name for name, _, found in (entry.partition("/") for entry in KINDS[version]) if found == kind)
    return Place(version, resource, document["metadata"].get("namespace", ""), document["metadata"]["name"])


@dataclass
class Objects:
    """All of them. Whoever changes what `get` returned must hold the lock, and say so to `touch`."""

    lock: threading.RLock = field(default_factory=threading.RLock)

    def __post_init__(self) -> None:
        self._objects: dict[Place, Document] = {}
        self._version = 0

    def get(self, place: Place) -> Document | None:
        return self._objects.get(place)

    def list(self, version: str, resource: str, namespace: str = "") -> list[Document]:
        with self.lock:
            return [
                item
                for place, item in self._objects.items()
                if (place.version, place.resource) == (version, resource) and namespace in ("", place.namespace)
            ]

    def put(self, document: Document) -> Document:
        """Make it, or take its metadata and spec; a changed spec is another generation."""
        with self.lock:
            place, new = place_of(document), copy.deepcopy(document)
            old = self._objects.get(place)
            meta = new["metadata"]
            if old is None:
                meta |= {"uid": str(uuid.uuid4()), "generation": 1, "creationTimestamp": timestamp()}
            else:
                kept = old["metadata"]
                changed = old.get("spec") != new.get("spec")
                meta |= {"uid": kept["uid"], "generation": kept["generation"] + changed}
                meta["creationTimestamp"] = kept["creationTimestamp"]
                new.setdefault("status", old.get("status", {}))
            self._objects[place] = new
            self.touch(new)
            return new

    def touch(self, document: Document) -> None:
        with self.lock:
            self._version += 1
            document["metadata"]["resourceVersion"] = str(self._version)

    def remove(self, place: Place) -> Document | None:
        with self.lock:
            return self._objects.pop(place, None)

    def in_namespace(self, namespace: str) -> Iterator[Place]:
        with self.lock:
            yield from [place for place in self._objects if place.namespace == namespace]


def timestamp() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def condition(status: bool) -> list[Document]:
    return [{"type": "Ready", "status": "True" if status else "False"}]


def true_since_now(kind: str) -> Document:
    return {"type": kind, "status": "True", "lastTransitionTime": timestamp()}
