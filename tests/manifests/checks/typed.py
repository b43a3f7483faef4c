"""Typed models of every kind: a field that they do not have is lost in them, and so is found."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import kserve
import kubernetes_validate
from cloudcoil.models.knative_eventing.eventing import v1 as eventing_v1
from cloudcoil.models.knative_eventing.eventing import v1alpha1 as eventing_v1alpha1
from cloudcoil.models.knative_eventing.eventing import v1beta3 as eventing_v1beta3
from cloudcoil.models.knative_eventing.sources import v1 as sources_v1
from cloudcoil.models.knative_serving.serving import v1 as serving_v1
from kubernetes.client import models as kubernetes_models
from pydantic import BaseModel, ValidationError

from tests.manifests.checks.custom_kinds import CUSTOM_KINDS
from tests.manifests.checks.objects import Object

KUBERNETES = "1.34"
CORE_GROUPS = ("", "apps", "batch", "policy", "networking.k8s.io", "scheduling.k8s.io", "rbac.authorization.k8s.io")

KNATIVE: dict[tuple[str, str], type[BaseModel]] = {
    ("serving.knative.dev/v1", "Service"): serving_v1.Service,
    ("eventing.knative.dev/v1", "Broker"): eventing_v1.Broker,
    ("eventing.knative.dev/v1", "Trigger"): eventing_v1.Trigger,
    ("eventing.knative.dev/v1alpha1", "EventPolicy"): eventing_v1alpha1.EventPolicy,
    ("eventing.knative.dev/v1beta3", "EventType"): eventing_v1beta3.EventType,
    ("sources.knative.dev/v1", "SinkBinding"): sources_v1.SinkBinding,
    ("sources.knative.dev/v1", "PingSource"): sources_v1.PingSource,
}

KSERVE = {
    ("serving.kserve.io/v1beta1", "InferenceService"): "V1beta1InferenceService",
    ("serving.kserve.io/v1alpha1", "ServingRuntime"): "V1alpha1ServingRuntime",
    ("serving.kserve.io/v1alpha1", "LocalModelCache"): "V1alpha1LocalModelCache",
    ("serving.kserve.io/v1alpha1", "LocalModelNodeGroup"): "V1alpha1LocalModelNodeGroup",
}


def check(thing: Object) -> Iterator[str]:
    key = (thing.document["apiVersion"], thing.document["kind"])
    group = key[0].rpartition("/")[0]
    if key in KNATIVE:
        yield from _through_pydantic(KNATIVE[key], thing.document)
    elif key in KSERVE:
        yield from _misfits(thing.document, KSERVE[key], "")
    elif key in CUSTOM_KINDS:
        yield from (f"{error.json_path}: {error.message}" for error in CUSTOM_KINDS[key].iter_errors(thing.document))
    elif group in CORE_GROUPS:
        yield from _core(thing.document)
    else:
        yield f"the kind {key[1]} of {key[0]} is unknown"
    if thing.containers and group not in CORE_GROUPS:
        yield from _pod(thing.pod)


def _pod(spec: dict[str, Any]) -> Iterator[str]:
    """The part that is a pod's, by Kubernetes' own schema: those of Knative and KServe leave out most volumes."""
    fields = kubernetes_models.V1PodSpec.attribute_map.values()
    part = {name: value for name, value in spec.items() if name in fields}
    yield from _core({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "of-these"}, "spec": part})


def _core(document: dict[str, Any]) -> Iterator[str]:
    try:
        kubernetes_validate.validate(document, KUBERNETES, strict=True)
    except kubernetes_validate.ValidationError as error:
        yield f"{'.'.join(map(str, error.path))}: {error.message[:200]}"
    except (kubernetes_validate.SchemaNotFoundError, kubernetes_validate.InvalidSchemaError) as error:
        yield str(error)


def _through_pydantic(model: type[BaseModel], document: dict[str, Any]) -> Iterator[str]:
    document = _spelled_out(document)
    try:
        back = model.model_validate(document).model_dump(mode="json", by_alias=True, exclude_unset=True)
    except ValidationError as error:
        for item in error.errors():
            yield f"{'.'.join(map(str, item['loc']))}: {item['msg']}"
        return
    yield from _lost(document, back, "")


def _spelled_out(value: Any) -> Any:
    """With 1000m for 1 cpu: these models match a pattern with an integer, which pydantic refuses."""
    if isinstance(value, dict):
        return {
            key: f"{item}000m" if key == "cpu" and str(item).isdecimal() else _spelled_out(item)
            for key, item in value.items()
        }
    return [_spelled_out(item) for item in value] if isinstance(value, list) else value


NEWER = re.compile(r"\.delivery\.(timeout|retryAfterMax)$")
"""Fields that Knative reads but its CRDs and these models lack; `knative.check` knows them."""


def _lost(before: Any, after: Any, path: str) -> Iterator[str]:
    if isinstance(before, dict) and isinstance(after, dict):
        for key, value in before.items():
            where = f"{path}.{key}"
            if key in after:
                yield from _lost(value, after[key], where)
            elif not NEWER.search(where):
                yield f"{where}: unknown"
    elif isinstance(before, list) and isinstance(after, list):
        for number, (one, other) in enumerate(zip(before, after, strict=True)):
            yield from _lost(one, other, f"{path}[{number}]")
    elif before != after:
        yield f"{path}: {before!r} would become {after!r}"


SCALARS: dict[str, Callable[[Any], bool]] = {
    "str": lambda value: isinstance(value, str),
    "int": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "float": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "bool": lambda value: isinstance(value, bool),
    "object": lambda value: True,
    "datetime": lambda value: isinstance(value, str | datetime),
}


def _misfits(value: Any, kind: str, path: str) -> Iterator[str]:
    """What does not fit the class `kind` of KServe's SDK, or of the Kubernetes client that the SDK uses."""
    if inner := re.fullmatch(r"list\[(.+)\]", kind):
        if isinstance(value, list):
            for number, item in enumerate(value):
                yield from _misfits(item, inner[1], f"{path}[{number}]")
        else:
            yield f"{path}: must be a list"
    elif inner := re.fullmatch(r"dict\((\w+), (.+)\)|dict\[(\w+), (.+)\]", kind):
        if isinstance(value, dict):
            for key, item in value.items():
                yield from _misfits(item, inner[2] or inner[4], f"{path}.{key}")
        else:
            yield f"{path}: must be a mapping"
    elif kind in SCALARS:
        if not SCALARS[kind](value):
            yield f"{path}: {value!r} is no {kind}"
    elif kind in ("ResourceQuantity", "resource.Quantity", "K8sIoApimachineryPkgApiResourceQuantity"):
        yield from _quantity(value, path)
    else:
        yield from _members(value, kind, path)


def _members(value: Any, kind: str, path: str) -> Iterator[str]:
    model = getattr(kserve, kind, None) or getattr(kubernetes_models, kind, None)
    if model is None:
        return  # types that neither package has; the CRD's schema has them
    if not isinstance(value, dict):
        yield f"{path}: must be a mapping"
        return
    types = {model.attribute_map[name]: kind for name, kind in model.openapi_types.items()}
    for key, item in value.items():
        if key in types:
            yield from _misfits(item, types[key], f"{path}.{key}")
        else:
            yield f"{path}.{key}: unknown"


def _quantity(value: Any, path: str) -> Iterator[str]:
    if not re.fullmatch(r"[0-9.]+([kMGTPE]i?|m)?", str(value)):
        yield f"{path}: {value!r} is no quantity"
