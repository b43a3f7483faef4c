"""What pods may ask the API server for: only web, only for EndpointSlices, and only where it watches them."""

from __future__ import annotations

from collections.abc import Iterator

from tests.manifests.checks.objects import Object, environment
from tests.manifests.checks.references.object_set import ObjectSet

ROLE = "Role.rbac.authorization.k8s.io"
BINDING = "RoleBinding.rbac.authorization.k8s.io"
RULES = [{"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["get", "list", "watch"]}]
ACCOUNT_FOLDER = "/var/run/secrets/kubernetes.io/serviceaccount"
MOUNT = {"name": "service-account", "mountPath": ACCOUNT_FOLDER, "readOnly": True}
AUTHORITY = {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}
"""A ConfigMap that Kubernetes keeps in every namespace."""
SOURCES = [{"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}}, {"configMap": AUTHORITY}]
VOLUME = {"name": MOUNT["name"], "projected": {"sources": SOURCES}}


def check(objects: ObjectSet, thing: Object) -> Iterator[str]:
    if thing.kind == ROLE and thing.document["rules"] != RULES:
        yield f"allows {thing.document['rules']}"
    if thing.kind == BINDING:
        yield from _binding(objects, thing)
    for container in thing.containers:
        watches = environment(container).get("ENDPOINT_SLICES", "false")
        mounted = MOUNT in container.get("volumeMounts", []) and VOLUME in thing.pod.get("volumes", [])
        bound = thing.pod.get("serviceAccountName") in _accounts(objects)
        if watches not in ("true", "false") or {mounted, bound} != {watches == "true"}:
            yield "watches EndpointSlices and has no token for that or may not, or the other way round"
    for volume in thing.pod.get("volumes") or []:
        for source in (volume.get("projected") or {}).get("sources") or []:
            if source.get("serviceAccountToken", {}).get("path", "token") != "token":
                yield f"volumes: nobody looks for the token of {volume['name']} there"


def _binding(objects: ObjectSet, thing: Object) -> Iterator[str]:
    role = thing.document["roleRef"]
    if role["kind"] != "Role" or (ROLE, role["name"]) not in objects.named:
        yield f"there is no {role}"
    for subject in thing.document["subjects"]:
        account = (subject["kind"], subject["name"])
        if account not in objects.named or subject.get("namespace") != thing.namespace:
            yield f"there is no {subject}"


def _accounts(objects: ObjectSet) -> set[str]:
    bindings = (thing for thing in objects.objects if thing.kind == BINDING)
    return {subject["name"] for thing in bindings for subject in thing.document["subjects"]}
