"""The cluster that KUBECONFIG points to, with an overlay deployed in it (SHANGCAI_OVERLAY, else deploy/laptop).

The overlay must use Knative, and scripts/doctor must find nothing wrong with the cluster. SHANGCAI_URL is the address
of its ingress, if the tests do not find it; SHANGCAI_KEY is a caller's key, if the overlay asks for one and is deployed
already. A namespace that the tests made is removed afterwards.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import yaml

from scripts.cluster import secrets
from tests.cluster.cluster import Cluster, listens, wait_for

ROOT = Path(__file__).parents[2]
KEY = "SHANGCAI_KEY"
"""Of a caller, where the overlay asks for one. The tests make one with the namespace."""
GATEWAYS = {
    "kourier": ("kourier-system", "kourier"),
    "istio": ("istio-system", "istio-ingressgateway"),
    "contour": ("contour-external", "envoy"),
}
"""Where the Service of each ingress is: namespace and name."""


@pytest.fixture(scope="session")
def overlay() -> Path:
    return (ROOT / os.environ.get("SHANGCAI_OVERLAY", "deploy/laptop")).resolve()


@pytest.fixture(scope="session")
def cluster(overlay: Path) -> Iterator[Cluster]:
    """The cluster, with the overlay deployed and everything ready."""
    if "KUBECONFIG" not in os.environ:
        pytest.skip("KUBECONFIG is not set: there is no cluster to test on")
    rendered = subprocess.run(["kubectl", "kustomize", overlay], capture_output=True, text=True, check=True).stdout
    documents = list(yaml.safe_load_all(rendered))
    namespace = next(item["metadata"]["name"] for item in documents if item["kind"] == "Namespace")
    found = Cluster(namespace)
    there = json.loads(found.run("get", "namespaces", "-o", "json"))["items"]
    made = namespace not in [item["metadata"]["name"] for item in there]
    try:
        if made and "secretKeyRef" in rendered:  # of deploy/components/callers
            key = secrets.make_key()
            os.environ[KEY] = key
            found.run("create", "namespace", namespace)
            found.run("create", "-f", "-", stdin=json.dumps(secrets.documents({"tests": key})))
        found.apply(overlay)
        yield found
    finally:
        if made:
            found.run("delete", "namespace", namespace, "--ignore-not-found", seconds=600)


@pytest.fixture(scope="session")
def ingress(cluster: Cluster) -> Iterator[str]:
    """The address of Knative's ingress: SHANGCAI_URL, its load balancer, a port of a node, or a port-forward."""
    if url := os.environ.get("SHANGCAI_URL"):
        yield url
        return
    network = cluster.get("configmap", "config-network", "--namespace=knative-serving")["data"]
    name = network.get("ingress-class", network.get("ingress.class", "istio"))
    namespace, service = GATEWAYS[name.partition(".")[0]]
    item = cluster.get("service", service, f"--namespace={namespace}")
    port = next(port for port in item["spec"]["ports"] if port["port"] == 80)
    balancers = item.get("status", {}).get("loadBalancer", {}).get("ingress") or []
    places = [(balancer.get("ip") or balancer["hostname"], 80) for balancer in balancers]
    if "nodePort" in port:
        nodes = cluster.get("nodes")["items"]
        addresses = [entry["address"] for node in nodes for entry in node["status"]["addresses"]]
        places += [(address, port["nodePort"]) for address in addresses]
    for host, number in places:
        if listens(host, number):
            yield f"http://{host}:{number}"
            return
    with cluster.forward(f"service/{service}", 80, namespace) as url:
        yield url


@pytest.fixture(scope="session")
def web(cluster: Cluster, ingress: str) -> Iterator[httpx.Client]:
    """A client of web through the ingress, whose timeout allows for a cold start."""
    host = urlsplit(cluster.get("services.serving.knative.dev", "web")["status"]["url"]).netloc
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
    headers = {"Host": host}
    if key := os.environ.get(KEY):
        headers["Authorization"] = f"Bearer {key}"
    with httpx.Client(base_url=ingress, headers=headers, timeout=900, limits=limits, trust_env=False) as client:
        yield client


@pytest.fixture(scope="session")
def slots(cluster: Cluster) -> dict[str, int]:
    """containerConcurrency of each InferenceService."""
    items = cluster.get("inferenceservices.serving.kserve.io")["items"]
    return {item["metadata"]["name"]: item["spec"]["predictor"]["containerConcurrency"] for item in items}


@pytest.fixture
def ended_job() -> Callable[[httpx.Client, str], Any]:
    """Poll a job until it has ended, and return it."""

    def fetch(client: httpx.Client, where: str) -> Any:
        def ended() -> Any:
            job = client.get(where).raise_for_status().json()
            return job if job["state"] in ("completed", "failed", "cancelled") else None

        return wait_for(ended, f"{where} has ended", 900)

    return fetch
