"""What a kubectl asks first: where the API server is, which kinds it serves, and what it knows of them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Document = dict[str, Any]
Kinds = Mapping[str, Sequence[str]]
"""By version, such as apps/v1: RESOURCE/KIND, such as deployments/Deployment."""

CLUSTER_WIDE = {
    "namespaces",
    "nodes",
    "storageclasses",
    "runtimeclasses",
    "priorityclasses",
    "clusterstoragecontainers",
}
VERBS = ["create", "delete", "get", "list", "patch", "watch"]
FIELD_VALIDATION = {"name": "fieldValidation", "in": "query"}
"""kubectl leaves validation to a server whose OpenAPI document has this parameter at a kind's PATCH."""


def kubeconfig(server: str) -> Document:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "scripted", "cluster": {"server": server}}],
        "users": [{"name": "scripted", "user": {}}],
        "contexts": [{"name": "scripted", "context": {"cluster": "scripted", "user": "scripted"}}],
        "current-context": "scripted",
    }


def discovery(path: str, kinds: Kinds, server: str) -> Document | None:
    """The answer of a server of that version to a GET; None where the path is about objects."""
    if path == "/version":
        return {"gitVersion": server, "major": "1", "minor": server.split(".")[1]}
    if path == "/api":
        return {"kind": "APIVersions", "versions": ["v1"]}
    if path == "/apis":
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": list(_groups(kinds))}
    if path == "/openapi/v3":
        names = [f"apis/{name}" if "/" in name else f"api/{name}" for name in kinds]
        return {"paths": {name: {"serverRelativeURL": f"/openapi/v3/{name}"} for name in names}}
    version = re.sub("^(/openapi/v3)?/apis?/", "", path)
    if version not in kinds:
        return None
    if path.startswith("/openapi/v3/"):
        return _openapi(version, kinds[version])
    return {"kind": "APIResourceList", "groupVersion": version, "resources": list(_resources(kinds[version]))}


def _groups(kinds: Kinds) -> Iterator[Document]:
    versions: dict[str, list[Document]] = {}
    for version in kinds:
        group, slash, name = version.partition("/")
        if slash:
            versions.setdefault(group, []).append({"groupVersion": version, "version": name})
    for group, served in versions.items():
        yield {"name": group, "versions": served, "preferredVersion": served[0]}


def _resources(names: Sequence[str]) -> Iterator[Document]:
    for name, _, kind in (entry.partition("/") for entry in names):
        yield {"name": name, "singularName": "", "kind": kind, "namespaced": name not in CLUSTER_WIDE, "verbs": VERBS}
        if name == "pods" and kind == "Pod":
            yield {"name": "pods/log", "singularName": "", "kind": "Pod", "namespaced": True, "verbs": ["get"]}


def _openapi(version: str, names: Sequence[str]) -> Document:
    group, _, short = version.rpartition("/")
    paths = {
        f"/{resource}/{{name}}": {
            "patch": {
                "parameters": [FIELD_VALIDATION],
                "x-kubernetes-group-version-kind": {"group": group, "version": short, "kind": kind},
                "responses": {},
            }
        }
        for resource, _, kind in (entry.partition("/") for entry in names)
    }
    return {"openapi": "3.0.0", "info": {"title": "Kubernetes", "version": version}, "paths": paths}
