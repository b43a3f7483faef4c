"""Values that are only strings to schemas: quantities, and fields that take one of a few words."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from tests.manifests.checks.objects import Object, walk

BYTES = re.compile(r"[1-9]\d*[KMG]i")
"""Powers of 1024 only, so that a missing letter is found."""
QUANTITIES = {
    "cpu": re.compile(r"[1-9]\d*m?"),
    "memory": BYTES,
    "storage": BYTES,
    "sizeLimit": BYTES,
    "storageLimit": BYTES,
    "modelSize": BYTES,
    "pods": re.compile(r"[1-9]\d*"),
}
DEVICE = re.compile(r"nvidia\.com/(gpu|mig-\dg\.\d+gb)")
UNITS = {"": 1, "m": 1e-3, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}

WORDS = {
    "accessModes": {"ReadWriteOnce", "ReadWriteMany"},
    "limits.type": {"Container"},
    "medium": {"Memory"},
    "operator": {"Exists", "In"},
    "persistentVolumeReclaimPolicy": {"Delete"},
    "protocol": {"TCP"},
    "restartPolicy": {"OnFailure"},
    "runtimeClassName": {"nvidia"},
    "seccompProfile.type": {"RuntimeDefault", "Unconfined"},
    "tolerations.effect": {"NoSchedule"},
    "tolerations.key": {"nvidia.com/gpu"},
    "volumeMode": {"Filesystem"},
}
"""The allowed words, by the end of a path."""
NODE_LABELS = {
    "nvidia.com/gpu.present", "cloud.google.com/gke-accelerator", "eks.amazonaws.com/instance-gpu-name",
    "karpenter.k8s.aws/instance-gpu-name", "kubernetes.azure.com/accelerator",  # some of them, on a node with a GPU
    "kserve/localmodel",
}  # fmt: skip


def check(thing: Object) -> Iterator[str]:
    for path, value in walk(thing.spec):
        place = re.sub(r"\[\d+\]", "", path)
        field = place.rpartition(".")[2]
        if field == "resources":
            yield from _resources(path, value)
        if field in ("capacity", "defaultRequest"):
            yield from _quantities(path, value)
        if field == "hard":
            yield from _quantities(path, {name.removeprefix("requests."): amount for name, amount in value.items()})
        if field in ("sizeLimit", "storageLimit", "modelSize"):
            yield from _quantity(path, field, value)
        for end, words in WORDS.items():
            if f".{place}".endswith(f".{end}") and not isinstance(value, list) and value not in words:
                yield f"{path}: {value!r} is none of {sorted(words)}"
        if field == "maxUnavailable" and not (isinstance(value, int) or re.fullmatch(r"\d+%", value)):
            yield f"{path}: {value!r} is no number"
        if field == "port" and isinstance(value, str) and value.isdecimal():
            yield f"{path}: {value!r} would be the name of a port"
        if field == "nodeSelector":
            yield f"{path}: not every cluster has nodes with {value}"
        if field == "key" and "nodeAffinity" in place and value not in NODE_LABELS:
            yield f"{path}: no node has {value}"


def _resources(path: str, resources: dict[str, Any]) -> Iterator[str]:
    requests, limits = (resources.get(kind, {}) for kind in ("requests", "limits"))
    wrong = [*_quantities(f"{path}.requests", requests), *_quantities(f"{path}.limits", limits)]
    yield from wrong
    for name in () if wrong else requests.keys() & limits.keys():
        if number(requests[name]) > number(limits[name]):
            yield f"{path}.requests.{name}: is more than the limit"


def _quantities(path: str, amounts: dict[str, Any]) -> Iterator[str]:
    for name, amount in amounts.items():
        yield from _quantity(f"{path}.{name}", name, amount)


def _quantity(path: str, name: str, amount: Any) -> Iterator[str]:
    form = re.compile(r"[1-9]\d*") if DEVICE.fullmatch(name) else QUANTITIES.get(name)
    if form is None:
        yield f"{path}: is unknown"
    elif not form.fullmatch(str(amount)):
        yield f"{path}: {amount!r} is no quantity"


def number(quantity: Any) -> float:
    """The value of a quantity."""
    digits = re.match(r"\d+", str(quantity))
    assert digits
    return int(digits[0]) * UNITS[str(quantity)[digits.end() :]]
