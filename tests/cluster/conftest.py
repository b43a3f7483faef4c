"""The cluster that KUBECONFIG points to, with an overlay in a namespace of the tests' own, which goes with them.

SHANGCAI_OVERLAY is the overlay (deploy/laptop unless set); it must use Knative, and scripts/doctor must find nothing
wrong with the cluster for it. SHANGCAI_URL is the address of Knative's ingress, if the tests do not find it. With
SHANGCAI_NAMESPACE they use that namespace and leave it: models need not be fetched again for the next run. If it is
there already and its web asks for a key, SHANGCAI_KEY is one.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest

from scripts.cluster import secrets
from tests.cluster import deployment
from tests.cluster.asking import Asking
from tests.cluster.cluster import PAUSE_SECONDS, Cluster
from tests.support.processes import ROOT
from tests.support.waiting import wait_until

GATEWAYS = {
    "kourier": ("kourier-system", "kourier"),
    "istio": ("istio-system", "istio-ingressgateway"),
    "contour": ("contour-external", "envoy"),
}
"""Where the Service of each ingress is: namespace and name."""

NAMESPACE = {"apiVersion": "v1", "kind": "Namespace"}
ENDED = ("completed", "failed", "cancelled")


@pytest.fixture(scope="session")
def overlay() -> Path:
    if "KUBECONFIG" not in os.environ:
        pytest.skip("KUBECONFIG is not set: there is no cluster to test on")
    return (ROOT / os.environ.get("SHANGCAI_OVERLAY", "deploy/laptop")).resolve()


@pytest.fixture(scope="session")
def namespace(overlay: Path) -> Iterator[str]:
    """A new one, or SHANGCAI_NAMESPACE, with the Secrets that the overlay asks for."""
    kept = os.environ.get("SHANGCAI_NAMESPACE")
    name = kept or f"shangcai-tests-{uuid.uuid4().hex[:6]}"
    kubectl = Cluster(name)
    documents = deployment.render(overlay, name)
    kinds = [
        (item["kind"], item["metadata"]["name"]) for item in documents if "serving.knative.dev" in item["apiVersion"]
    ]
    assert ("Service", "web") in kinds, f"{overlay} has no Knative Service `web`: these tests are about Knative"
    there = kubectl.run("get", "namespace", name, "--ignore-not-found", "-o", "name").strip()
    try:
        if not there:
            kubectl.run("create", "-f", "-", stdin=json.dumps(NAMESPACE | {"metadata": {"name": name}}))
            if "web-callers" in json.dumps(documents):  # deploy/components/callers
                key = os.environ["SHANGCAI_KEY"] = secrets.make_key()
                kubectl.run("create", "-f", "-", stdin=json.dumps(secrets.documents({"tests": key})))
        yield name
    finally:
        if not kept:
            kubectl.run("delete", "namespace", name, seconds=600)


@pytest.fixture(scope="session")
def cluster(namespace: str, overlay: Path) -> Cluster:
    """The cluster, with the overlay deployed and everything ready."""
    found = Cluster(namespace)
    deployment.apply(found, overlay)
    return found


@pytest.fixture(scope="session")
def host(cluster: Cluster) -> str:
    """Of web, as Knative's ingress knows it."""
    url: str = cluster.get("services.serving.knative.dev", "web")["status"]["url"]
    return urlsplit(url).netloc


@pytest.fixture(scope="session")
def ingress(cluster: Cluster, host: str) -> Iterator[str]:
    """The address of Knative's ingress: SHANGCAI_URL, its load balancer, a port of a node, or a port-forward."""
    if url := os.environ.get("SHANGCAI_URL"):
        yield url
        return
    network = cluster.get("configmap", "config-network", "--namespace=knative-serving").get("data") or {}
    name = network.get("ingress-class", network.get("ingress.class", "istio")).partition(".")[0]
    assert name in GATEWAYS, f"where the ingress {name} listens is not known: set SHANGCAI_URL"
    namespace, service = GATEWAYS[name]
    item = cluster.get("service", service, f"--namespace={namespace}")
    port = next(port for port in item["spec"]["ports"] if port["port"] == 80)
    balancers = item.get("status", {}).get("loadBalancer", {}).get("ingress") or []
    places = [(balancer.get("ip") or balancer["hostname"], 80) for balancer in balancers]
    if "nodePort" in port:
        nodes = cluster.get("nodes")["items"]
        addresses = [entry["address"] for node in nodes for entry in node["status"]["addresses"]]
        places += [(address, port["nodePort"]) for address in addresses]
    for address, number in places:
        url = f"http://[{address}]:{number}" if ":" in address else f"http://{address}:{number}"
        if leads_to_web(url, host):
            yield url
            return
    with cluster.forward(f"service/{service}", 80, namespace) as url:
        yield url


def leads_to_web(url: str, host: str) -> bool:
    """Whether web answers there. Something else may listen at such an address, too."""
    timeout = httpx2.Timeout(60, connect=3)
    with suppress(httpx2.HTTPError, httpx2.InvalidURL):
        return httpx2.get(f"{url}/healthz", headers={"Host": host}, timeout=timeout, trust_env=False).status_code == 200
    return False


@pytest.fixture(scope="session")
def web(ingress: str, host: str) -> Iterator[httpx2.Client]:
    """A client of web through the ingress, whose timeout allows for a cold start."""
    limits = httpx2.Limits(max_connections=None, max_keepalive_connections=0)
    headers = {"Host": host}
    if key := os.environ.get("SHANGCAI_KEY"):
        headers["Authorization"] = f"Bearer {key}"
    with httpx2.Client(base_url=ingress, headers=headers, timeout=900, limits=limits, trust_env=False) as client:
        yield client


@pytest.fixture(scope="session")
def slots(cluster: Cluster) -> dict[str, int]:
    """containerConcurrency of each InferenceService."""
    items = cluster.get("inferenceservices.serving.kserve.io")["items"]
    return {item["metadata"]["name"]: item["spec"]["predictor"]["containerConcurrency"] for item in items}


@pytest.fixture
def ended_job(web: httpx2.Client) -> Callable[[str], Any]:
    """Poll a job until it has ended, and return it."""

    def fetch(where: str) -> Any:
        def ended() -> Any:
            job = web.get(where).raise_for_status().json()
            return job if job["state"] in ENDED else None

        return wait_until(ended, f"{where} has ended", 900, PAUSE_SECONDS)

    return fetch


@pytest.fixture
def asking(web: httpx2.Client) -> Callable[[], Asking]:
    """Makes clients that ask without a pause, for as long as a `with`."""
    return lambda: Asking(web)
