"""What makes pods: accounts, volumes, ports and probes, beside the other objects of its folder."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.manifests.checks.objects import Object, environment, our_image
from tests.manifests.checks.references.access import ACCOUNT_FOLDER
from tests.manifests.checks.references.object_set import ObjectSet
from tests.manifests.checks.references.secrets import CALLERS_FOLDER

PROBES = {
    "web": {"readinessProbe": "/readyz", "livenessProbe": "/healthz"},
    "predictor": {"readinessProbe": "/v2/health/ready", "livenessProbe": "/v2/health/live"},
}
"""Which route answers which probe: only the first tells whether a request would be answered."""
PORT = 8080
"""Where both of our servers listen."""
METRICS_PORT = 9464
"""Where web's metrics are, which no pod declares: with Knative it may declare one port only."""


def check(objects: ObjectSet, thing: Object) -> Iterator[str]:
    account = thing.pod.get("serviceAccountName")
    if account and ("ServiceAccount", account) not in objects.named:
        yield f"there is no service account {account}"
    if account and account != (thing.name if our_image(thing.containers[0]) == "web" else "predictor"):
        yield f"the service account {account} belongs to another workload"
    priority = thing.pod.get("priorityClassName")
    if priority and ("PriorityClass.scheduling.k8s.io", priority) not in objects.named:
        yield f"there is no PriorityClass {priority}"
    for volume in thing.pod.get("volumes") or []:
        claim = volume.get("persistentVolumeClaim")
        if claim and ("PersistentVolumeClaim", claim["claimName"]) not in objects.named:
            yield f"there is no claim {claim['claimName']}"
    for container in thing.containers:
        yield from _probes(container)
        if image := our_image(container):
            yield from _our_container(container, image)
        yield from _storage_uri(objects, thing, container)
    if thing.kind in ("Deployment.apps", "StatefulSet.apps", "DaemonSet.apps"):
        selector = thing.spec["selector"]["matchLabels"]
        if not selector.items() <= thing.template["metadata"]["labels"].items():
            yield f"the selector {selector} does not select its own pods"
    if thing.kind == "StatefulSet.apps" and ("Service", thing.spec["serviceName"]) not in objects.named:
        yield f"there is no service {thing.spec['serviceName']}"
    if thing.kind == "Namespace":
        others = {other.namespace for other in objects.objects if other.namespace}
        if thing.name != others.pop():
            yield "is not the namespace of the others"


def _probes(container: dict[str, Any]) -> Iterator[str]:
    image = our_image(container)
    ports = {str(port["containerPort"]) for port in container.get("ports") or []}
    ports |= {port["name"] for port in container.get("ports") or [] if "name" in port}
    for name in ("readinessProbe", "livenessProbe"):
        probe = container.get(name)
        if image and probe is None:
            yield f"{name} is missing"
        for handler in ("httpGet", "tcpSocket"):
            if probe and handler in probe and str(probe[handler]["port"]) not in ports:
                yield f"{name}: there is no port {probe[handler]['port']}"
        if image and probe and probe["httpGet"]["path"] != PROBES[image][name]:
            yield f"{name}: {probe['httpGet']['path']} is no route for it"


def _our_container(container: dict[str, Any], image: str) -> Iterator[str]:
    if not any(port["containerPort"] == PORT for port in container["ports"]):
        yield f"the image listens on {PORT}"
    mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
    if mounts - {"/artifacts", CALLERS_FOLDER, "/oidc", ACCOUNT_FOLDER} != (
        {"/tmp"} if image == "web" else {"/tmp", "/dev/shm"}
    ):
        yield f"mounts {sorted(mounts)}"
    if "/oidc" in mounts and "K_SINK" not in environment(container):
        yield "has a token for events, and sends none"
    artifacts = environment(container).get("ARTIFACTS_URL")
    if ("/artifacts" in mounts) != (artifacts == "file:///artifacts"):
        yield "ARTIFACTS_URL and the volume do not match"


def _storage_uri(objects: ObjectSet, thing: Object, container: dict[str, Any]) -> Iterator[str]:
    uri = environment(container).get("STORAGE_URI", "")
    if uri.startswith("pvc://"):
        claim, _, folder = uri.removeprefix("pvc://").partition("/")
        if ("PersistentVolumeClaim", claim) not in objects.named or claim != f"{thing.name}-model" or not folder:
            yield f"{uri} is no folder of its own claim"
    elif uri and "PREDICTOR_MODEL" in environment(container):
        yield "has both a STORAGE_URI and a PREDICTOR_MODEL"
