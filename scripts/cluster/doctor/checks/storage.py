"""Whether there are the volumes and Secrets that an overlay requires."""

from __future__ import annotations

from collections.abc import Iterator

from scripts.cluster.doctor.cluster_state import ClusterState, NotFound
from scripts.cluster.doctor.finding import Finding
from scripts.cluster.doctor.requirements import Requirements

MADE_SECRETS = ("web-callers", "predictor-token")
"""By scripts/make-secrets."""


def storage(cluster: ClusterState, required: Requirements) -> Iterator[Finding]:
    yield from foreign_claims(cluster, required)
    yield from shared_claims(required)
    if not required.claims:
        return
    classes = {item["metadata"]["name"]: item for item in cluster.items("storageclasses")}
    mark = "storageclass.kubernetes.io/is-default-class"
    default = [
        name for name, item in classes.items() if (item["metadata"].get("annotations") or {}).get(mark) == "true"
    ]
    for owner, name in required.claims:
        if name is None and not default:
            yield Finding("wrong", f"there is no default StorageClass, and {owner} names none", f"annotate one: {mark}")
        elif name is not None and name not in classes:
            yield Finding("wrong", f"there is no StorageClass {name}, which {owner} names", "make it, or name another")
        else:
            yield Finding("ok", f"{owner} has the StorageClass {name or default[0]}")


def foreign_claims(cluster: ClusterState, required: Requirements) -> Iterator[Finding]:
    for name, owner in required.foreign_claims.items():
        try:
            cluster.get("persistentvolumeclaim", name, "-n", required.namespace)
            yield Finding("ok", f"the PersistentVolumeClaim {name} is there")
        except NotFound:
            what = f"there is no PersistentVolumeClaim {name} in {required.namespace}, which {owner} mounts"
            yield Finding("wrong", what, "make it before, or add it to the overlay")


def shared_claims(required: Requirements) -> Iterator[Finding]:
    """A volume that one node at a time may have, for models that want a GPU each: those may be on different nodes."""
    for claim in required.of("", "PersistentVolumeClaim"):
        name = claim["metadata"]["name"]
        owners = [pod.owner for pod in required.pods if name in pod.claims() and pod.devices()]
        if len(owners) > 1 and set(claim["spec"]["accessModes"]) <= {"ReadWriteOnce", "ReadWriteOncePod"}:
            what = f"{', '.join(owners)} share PersistentVolumeClaim {name}, which only one node at a time may have"
            yield Finding("note", what, "give each its own, or their pods wait for each other (Multi-Attach)")


def secrets(cluster: ClusterState, required: Requirements) -> Iterator[Finding]:
    for name, use in required.secrets.items():
        made = f"scripts/make-secrets NAME | kubectl create -n {required.namespace} -f -"
        fix = made if name in MADE_SECRETS else "make it with kubectl create secret"
        try:
            found = cluster.get("secret", name, "-n", required.namespace)
        except NotFound as error:
            yield Finding("wrong", f"{use.owner} needs the Secret {name}: {error}", fix)
            continue
        if missing := sorted(use.keys - set(found.get("data") or {})):
            what = f"the Secret {name} lacks {', '.join(missing)}, which {use.owner} needs"
            yield Finding("wrong", what, "add that, or delete the Secret and make it anew")
        else:
            yield Finding("ok", f"the Secret {name} is there")
