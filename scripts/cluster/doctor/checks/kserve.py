"""Whether KServe is installed and set up as an overlay requires."""

from __future__ import annotations

import json
from collections.abc import Iterator

from scripts.cluster.doctor.checks.ingress import ingress_class
from scripts.cluster.doctor.cluster_state import ClusterState, available, version_of
from scripts.cluster.doctor.finding import Finding, at_least, major_minor
from scripts.cluster.doctor.manifests import Document, labels_of
from scripts.cluster.doctor.requirements import KNATIVE_MODES, Requirements

KSERVE_MINIMUM = (0, 16)
"""The first in which the modes are called Knative and Standard (kserve/kserve#4608)."""

POD_SECURITY = "pod-security.kubernetes.io"

IMAGE_VOLUME = "oci+native://"
IMAGE_VOLUMES = (0, 20)
"""The first KServe that mounts models from images (kserve/kserve#5558)."""

IMAGES_MOUNTED = (1, 35)
"""The first Kubernetes that does so without a feature gate (kserve/kserve docs/samples/storage/oci-image-volume)."""

ISTIO_OPTIONAL = (0, 17)
"""The first that works where VirtualService is not served (kserve/kserve#4985)."""


def kserve(cluster: ClusterState, required: Requirements) -> Iterator[Finding]:
    name = "kserve-controller-manager"
    found = [item for item in cluster.deployments("kserve") if item["metadata"]["name"] == name]
    if not found:
        yield Finding("wrong", f"KServe is not there: no Deployment {name} in kserve", "install KServe")
        return
    version = version_of(found[0])
    yield at_least("KServe", version, KSERVE_MINIMUM)
    if not available(found[0]):
        yield Finding("wrong", f"KServe's controller {name} does not run", "look at: kubectl get pods -n kserve")
    config = {
        key: json.loads(value)
        for key, value in cluster.config_maps("kserve").get("inferenceservice-config", {}).items()
        if key in ("deploy", "ingress", "localModel")
    }
    if not config:
        yield Finding("wrong", "the ConfigMap inferenceservice-config in kserve is not there", "install KServe anew")
    default = config.get("deploy", {}).get("defaultDeploymentMode", "Knative")
    if required.without_mode and default not in KNATIVE_MODES:
        what = f"the default mode is {default}, and {', '.join(required.without_mode)} name none"
        yield Finding("wrong", what, "annotate them with serving.kserve.io/deploymentMode: Knative")
    if required.uses_knative:
        yield from istio(ingress_class(cluster), config.get("ingress", {}), version)
    if required.of("serving.kserve.io", "LocalModelCache") and not config.get("localModel", {}).get("enabled"):
        what = "inferenceservice-config: localModel.enabled is not true, and there are LocalModelCaches"
        yield Finding("wrong", what, "set it, with the jobNamespace for downloads")
    yield from models(cluster, required, version)


def models(cluster: ClusterState, required: Requirements, version: str) -> Iterator[Finding]:
    """Whether KServe and Kubernetes can bring the models to the pods."""
    uris = [uri for pod in required.pods for uri in pod.storage_uris() if not uri.startswith("pvc://")]
    mounted = [uri for uri in uris if uri.startswith(IMAGE_VOLUME)]
    if mounted and (major_minor(version) or IMAGE_VOLUMES) < IMAGE_VOLUMES:
        yield Finding("wrong", f"KServe {version} does not know {mounted[0]}", "upgrade KServe to 0.20")
    kubernetes = cluster.json("version", "-o", "json")["serverVersion"]["gitVersion"] if mounted else ""
    if (major_minor(kubernetes) or IMAGES_MOUNTED) < IMAGES_MOUNTED:
        what = f"Kubernetes {kubernetes} mounts {mounted[0]} only from 1.33 on, and with the gate ImageVolume"
        yield Finding("note", what, "open the gate for the API server and kubelet, or upgrade to 1.35")
    added = [uri for uri in uris if uri not in mounted]
    enforced = [labels_of(item).get(f"{POD_SECURITY}/enforce") for item in required.of("", "Namespace")]
    if added and "restricted" in enforced:
        what = f"the namespace enforces the profile restricted, which KServe's container for {added[0]} does not fit"
        yield Finding("wrong", what, f"write {POD_SECURITY}/enforce: baseline into the overlay's Namespace")
    fetched = [uri for uri in added if not uri.startswith("oci://")]
    if fetched and not cluster.items("clusterstoragecontainers.serving.kserve.io"):
        what = f"there is no ClusterStorageContainer, which would fetch {fetched[0]}"
        yield Finding("wrong", what, "apply kserve-cluster-resources.yaml of KServe's release")


def istio(name: str, ingress: Document, version: str) -> Iterator[Finding]:
    """KServe creates Istio's VirtualServices unless it is told not to."""
    if name.startswith("istio") or ingress.get("disableIstioVirtualHost"):
        return
    what = f"inferenceservice-config: ingress.disableIstioVirtualHost is not true, and the ingress is {name}"
    needed = (major_minor(version) or ISTIO_OPTIONAL) < ISTIO_OPTIONAL
    fix = "set it; until then KServe's controller " + ("fails" if needed else "names an address that is none")
    yield Finding("wrong" if needed else "note", what, fix)
