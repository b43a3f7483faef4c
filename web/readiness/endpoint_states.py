"""What is seen of the models' endpoints: EndpointSlices of the private Services of their Knative revisions.

Knative makes such a Service for each revision (`serverlessservice/resources/services.go` of knative/serving), of which
Kubernetes keeps the pods in EndpointSlices, with the labels of the Service (`endpointslice/utils.go` of
kubernetes/kubernetes). Where there is no pod, a slice without endpoints is left.

| endpoints, of all revisions | the model is |
|---|---|
| one is ready | ready |
| none is ready, and one is not on its way out | waking |
| none, or only some on their way out; also a pod that has no node yet: it has no address | asleep |
| no slice, as where Knative does not run it, or the watch is broken | as far as can be seen otherwise |
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Literal

import httpx2
from pydantic import BaseModel, Field

from web.readiness.states_file import ReportedState

TYPE_LABEL = "networking.internal.knative.dev/serviceType"
SERVICE_LABEL = "serving.knative.dev/service"


class _Conditions(BaseModel):
    """Absent means that it is not known, which counts as ready, and not as terminating."""

    ready: bool | None = None
    terminating: bool | None = None


class _Endpoint(BaseModel):
    conditions: _Conditions = _Conditions()


class _Metadata(BaseModel):
    name: str = ""
    resource_version: str = Field(default="", alias="resourceVersion")
    labels: dict[str, str] | None = None


class EndpointSlice(BaseModel):
    """The members that are read. That of a bookmark has a resourceVersion and nothing else."""

    metadata: _Metadata
    endpoints: list[_Endpoint] | None = None


class EndpointStates:
    """Of the models of these Knative Services, by the slices that are known. Calls `notify` with a model whose state
    has changed."""

    def __init__(self, services: Mapping[str, str], notify: Callable[[str], None] = lambda _: None) -> None:
        self.services = services
        """The Service of each model."""
        self.notify = notify
        self._slices: dict[str, EndpointSlice] = {}
        self._reports: dict[str, ReportedState] = {}

    def of(self, model: str) -> ReportedState | None:
        """None while nothing is known of it."""
        return self._reports.get(model)

    def replace(self, slices: Iterable[EndpointSlice]) -> None:
        """These are all; none where nothing is known any more."""
        self._slices = {each.metadata.name: each for each in slices}
        self._derive()

    def change(self, one: EndpointSlice, *, deleted: bool = False) -> None:
        if deleted:
            self._slices.pop(one.metadata.name, None)
        else:
            self._slices[one.metadata.name] = one
        self._derive()

    def _derive(self) -> None:
        for model, service in self.services.items():
            state, before = self._state(service), self._reports.get(model)
            if state == (before.state if before else None):
                continue
            if state is None:
                del self._reports[model]
            else:
                self._reports[model] = ReportedState(state=state, since=time.time())
            self.notify(model)

    def _state(self, service: str) -> Literal["asleep", "waking", "ready"] | None:
        slices = [one for one in self._slices.values() if (one.metadata.labels or {}).get(SERVICE_LABEL) == service]
        if not slices:
            return None
        staying = [
            endpoint.conditions
            for one in slices
            for endpoint in one.endpoints or ()
            if not endpoint.conditions.terminating
        ]
        if not staying:
            return "asleep"
        return "waking" if all(each.ready is False for each in staying) else "ready"


def knative_services(urls: Mapping[str, str | None]) -> tuple[str, dict[str, str]]:
    """A namespace, and the Services of the models that are in it: http://text-predictor.NAMESPACE.svc.cluster.local.
    It is that of the first one which has such a URL; empty where none has."""
    found: dict[str, tuple[str, str]] = {}
    for model, url in urls.items():
        service, namespace, svc, *_ = [*httpx2.URL(url or "").host.split("."), "", "", ""]
        if svc == "svc":
            found[model] = namespace, service
    chosen = next((namespace for namespace, _ in found.values()), "")
    return chosen, {model: service for model, (namespace, service) in found.items() if namespace == chosen}


class _ListMetadata(BaseModel):
    resource_version: str = Field(alias="resourceVersion", min_length=1)


class EndpointSliceList(BaseModel):
    """The members that are read."""

    metadata: _ListMetadata
    items: list[EndpointSlice]
