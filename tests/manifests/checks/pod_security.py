"""Kubernetes' Pod Security Standards: whether the pods of a namespace are what its labels let in.

The profile `restricted` as of Kubernetes 1.34: kubernetes/pod-security-admission, the folder policy.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.manifests.checks.objects import RESTORING, Object, environment, restores, walk
from tests.manifests.checks.references.object_set import ObjectSet

ENFORCE = "pod-security.kubernetes.io/enforce"
VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}
HOSTS = ("hostNetwork", "hostPID", "hostIPC")


def check(objects: ObjectSet) -> Iterator[str]:
    """A namespace enforces `restricted` where all its pods fit, and `baseline` where KServe adds a container that does
    not. What Knative adds fits: knative/serving pkg/reconciler/revision/resources/queue.go."""
    level = next((thing.labels.get(ENFORCE) for thing in objects.objects if thing.kind == "Namespace"), None)
    fetching = sorted(thing.title for thing in objects.objects if _fetches(thing))
    restoring = sorted(thing.title for thing in objects.objects if any(map(restores, thing.containers)))
    if restoring and level != "privileged":
        yield f"the namespace must enforce privileged: {', '.join(restoring)} may gain a capability"
    if level == "restricted" and fetching:
        yield f"the namespace must enforce baseline: KServe fetches models in the pods of {', '.join(fetching)}"
    if level != "restricted" and not fetching and not restoring:
        yield "the namespace does not enforce the profile restricted, which all of its pods fit"
    for thing in objects.objects:
        yield from (f"{thing.title}: not restricted: {problem}" for problem in unexpected(thing))


def _fetches(thing: Object) -> bool:
    """Whether KServe's storage initializer is put into its pods, which has no securityContext. What pvc:// or
    oci+native:// names is mounted as it is, and `restricted` allows either kind of volume (kserve/kserve
    pkg/webhook/admission/pod/storage_initializer_injector.go)."""
    uris = [environment(container).get("STORAGE_URI", "pvc://") for container in thing.containers]
    return any(not uri.startswith(("pvc://", "oci+native://")) for uri in uris)


def unexpected(thing: Object) -> Iterator[str]:
    """What in it the profile `restricted` forbids, besides what a container that is restored is granted."""
    granted = {
        f"{container['name']}: {name}" for container in thing.containers if restores(container) for name in RESTORING
    }
    yield from (problem for problem in violations(thing.pod) if problem not in granted)


def violations(pod: dict[str, Any]) -> Iterator[str]:
    """What in the spec of a pod the profile `restricted` forbids; nothing for what is no pod."""
    of_pod = pod.get("securityContext") or {}
    yield from (f"{name}: is the node's" for name in HOSTS if pod.get(name))
    for volume in pod.get("volumes") or []:
        yield from (f"volumes: {kind}" for kind in sorted(volume.keys() - VOLUMES - {"name"}))
    if of_pod.get("runAsUser") == 0 or of_pod.get("sysctls"):
        yield "securityContext: is root's, or sets sysctls"
    for container in [*(pod.get("initContainers") or []), *(pod.get("containers") or [])]:
        yield from (f"{container['name']}: {problem}" for problem in _of_container(container, of_pod))


def _of_container(container: dict[str, Any], of_pod: dict[str, Any]) -> Iterator[str]:
    own = container.get("securityContext") or {}
    both = {name: own.get(name, of_pod.get(name)) for name in ("runAsNonRoot", "runAsUser", "seccompProfile")}
    capabilities = own.get("capabilities") or {}
    if own.get("privileged") or own.get("procMount", "Default") != "Default":
        yield "privileged"
    if own.get("allowPrivilegeEscalation") is not False:
        yield "allowPrivilegeEscalation"
    if "ALL" not in capabilities.get("drop", ()) or set(capabilities.get("add", ())) - {"NET_BIND_SERVICE"}:
        yield "capabilities"
    if both["runAsNonRoot"] is not True or both["runAsUser"] == 0:
        yield "runAsNonRoot"
    if (both["seccompProfile"] or {}).get("type") not in ("RuntimeDefault", "Localhost"):
        yield "seccompProfile"
    if any(port.get("hostPort") for port in container.get("ports") or []):
        yield "hostPort"
    for path, value in walk(container):
        if isinstance(value, dict) and "host" in value and path.rpartition(".")[2] in ("httpGet", "tcpSocket"):
            yield f"{path}.host"
