"""Installs the components, and sets them up for a cluster of one node."""

from __future__ import annotations

import json

from scripts.cluster.commands import Failure
from scripts.cluster.components import Component
from scripts.cluster.kubectl import Kubectl
from scripts.cluster.local_cluster import NODE_PORT
from scripts.cluster.readiness import not_available

DOMAIN = "127.0.0.1.sslip.io"
"""A public name of this machine below which every Service has its own, for browsers. curl needs no such name."""

NETWORK = {"ingress-class": "kourier.ingress.networking.knative.dev", "mesh-compatibility-mode": "disabled"}
"""Of config-network; knative/cluster says why there is no mesh."""


def install(kubectl: Kubectl, component: Component) -> None:
    """Install a component, set it up and wait until it runs, unless it is there already; raises a Failure."""
    if kubectl.installed(component.namespace) == component.mark:
        kubectl.say(f"{component.mark} is there")
        return
    kubectl.say(f"installing {component.mark}")
    if component.name == "KServe":  # its manifests lack their namespace
        namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": component.namespace}}
        kubectl.apply(component.name, ["-f", "-"], json.dumps(namespace))
    for url in component.urls:
        # Server-side, because KServe's CRDs are too large for the annotation of a client-side apply.
        kubectl.apply(component.name, ["--server-side", "--force-conflicts", "-f", url])
    if component.name == "Kourier":
        _set_up_kourier(kubectl)
    if component.name == "KServe":
        _set_up_kserve(kubectl)
    query = ["get", "deployments", "-n", component.namespace, "-o", "json"]
    kubectl.wait(component.name, query, not_available, f"get pods -n {component.namespace}")
    kubectl.record_installed(component.name, component.namespace, component.mark)


def _set_up_kourier(kubectl: Kubectl) -> None:
    """Have Knative use it, without a mesh, and have it listen on NODE_PORT."""
    for name, data in (
        ("config-network", NETWORK),
        ("config-domain", {DOMAIN: ""}),
    ):
        patch = json.dumps({"data": data})
        kubectl.run("Kourier", "patch", "configmap", name, "-n", "knative-serving", "--type=merge", "-p", patch)
    # These two read config-network only when they start.
    kubectl.run(
        "Kourier", "rollout", "restart", "deployment/activator", "deployment/autoscaler", "-n", "knative-serving"
    )
    ports = {"spec": {"type": "NodePort", "ports": [{"port": 80, "nodePort": NODE_PORT}]}}
    kubectl.run("Kourier", "patch", "service", "kourier", "-n", "kourier-system", "-p", json.dumps(ports))


def _set_up_kserve(kubectl: Kubectl) -> None:
    """Without Istio, and without the controllers of kinds that are not used here."""
    name = "inferenceservice-config"
    config = kubectl.ask("get", "configmap", name, "-n", "kserve", "-o", "json")
    if config is None and not kubectl.cluster.commands.dry:  # its other settings must be kept
        raise Failure(f"KServe: its ConfigMap {name} cannot be read")
    ingress = json.loads(json.loads(config)["data"]["ingress"] if config else "{}")
    if config is None:
        kubectl.say(f"in `ingress` of {name}, set disableIstioVirtualHost to true; the rest stays")
    elif not ingress.get("disableIstioVirtualHost"):
        without_istio = json.dumps({**ingress, "disableIstioVirtualHost": True}, indent=2)
        patch = json.dumps({"data": {"ingress": without_istio}})
        kubectl.run("KServe", "patch", "configmap", name, "-n", "kserve", "--type=merge", "-p", patch)
        kubectl.run("KServe", "rollout", "restart", "deployment/kserve-controller-manager", "-n", "kserve")
    unused = ["llmisvc-controller-manager", "kserve-localmodel-controller-manager"]
    kubectl.run("KServe", "scale", "deployment", *unused, "-n", "kserve", "--replicas=0")
