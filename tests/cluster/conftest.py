"""The cluster that KUBECONFIG points to, with an overlay deployed in it (SHANGCAI_OVERLAY, else deploy/laptop).

The overlay must be one with Knative, in a cluster of which scripts/doctor says that nothing is wrong. SHANGCAI_URL says
where its ingress is, if that is not found. The namespace is removed afterwards if it was made here.
"""

from __future__ import annotations

import json
import os
import re
import selectors
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx
import pytest
import yaml

ROOT = Path(__file__).parents[2]
READY_SECONDS = 1800.0
"""Pulling images and loading models, for the slowest cluster."""

GATEWAYS = {
    "kourier": ("kourier-system", "kourier"),
    "istio": ("istio-system", "istio-ingressgateway"),
    "contour": ("contour-external", "envoy"),
}
READY_KINDS = (
    "services.serving.knative.dev,inferenceservices.serving.kserve.io,brokers.eventing.knative.dev,"
    "triggers.eventing.knative.dev,sinkbindings.sources.knative.dev"
)
T = TypeVar("T")


def wait_for(holds: Callable[[], T | None], what: str, seconds: float = 120, pause: float = 1) -> T:
    """Poll until it holds; what it then is."""
    deadline = time.monotonic() + seconds
    while not (value := holds()):
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(pause)
    return value


@dataclass(frozen=True)
class Cluster:
    """What kubectl reaches; objects are those of `namespace`."""

    namespace: str

    def run(self, *arguments: str, stdin: str = "", seconds: float = 120) -> str:
        command = ["kubectl", "-n", self.namespace, *arguments]
        ended = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=seconds)
        assert ended.returncode == 0, f"{' '.join(command)}: {ended.stderr}"
        return ended.stdout

    def get(self, kind: str, *arguments: str) -> Any:
        return json.loads(self.run("get", kind, *arguments, "-o", "json"))

    def apply(self, folder: Path) -> None:
        """Apply an overlay, again while webhooks of a new cluster do not answer yet, and wait until it is ready."""
        wait_for(lambda: self._applied(folder), f"{folder} is applied", 300, 5)
        deadline = time.monotonic() + READY_SECONDS
        while waiting := self._waiting():
            assert time.monotonic() < deadline, f"not ready after {READY_SECONDS:g} s: {', '.join(waiting)}"
            time.sleep(2)

    def pods(self, service: str) -> list[Any]:
        """Pods of a Knative Service that are not on their way out."""
        pods = self.get("pods", "-l", f"serving.knative.dev/service={service}")["items"]
        return [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]

    def latest_revision(self, service: str) -> str:
        name: str = self.get("services.serving.knative.dev", service)["status"]["latestReadyRevisionName"]
        return name

    @contextmanager
    def forward(self, what: str, port: int, namespace: str = "") -> Iterator[str]:
        """The address of a port of this machine that leads to a port of a pod or Service."""
        command = ["kubectl", "-n", namespace or self.namespace, "port-forward", what, f":{port}"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
            try:
                assert process.stdout
                with selectors.DefaultSelector() as selector:
                    selector.register(process.stdout, selectors.EVENT_READ)
                    assert selector.select(60), f"no port-forward to {what}"
                found = re.search(r"127\.0\.0\.1:(\d+)", process.stdout.readline())
                assert found, f"no port-forward to {what}"
                yield f"http://127.0.0.1:{found[1]}"
            finally:
                process.terminate()

    def _applied(self, folder: Path) -> bool:
        with suppress(AssertionError):
            self.run("apply", "-k", str(folder), seconds=300)
            return True
        return False

    def _waiting(self) -> list[str]:
        """What is not Ready as it is described now."""
        found = []
        for item in self.get(READY_KINDS)["items"]:
            status = item.get("status", {})
            current = status.get("observedGeneration", 0) >= item["metadata"]["generation"]
            conditions = {entry["type"]: entry["status"] for entry in status.get("conditions", [])}
            if not current or conditions.get("Ready") != "True":
                found.append(f"{item['kind']} {item['metadata']['name']}")
        return found


def listens(host: str, port: int) -> bool:
    with suppress(OSError), socket.create_connection((host, port), timeout=3):
        return True
    return False


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
        found.apply(overlay)
        yield found
    finally:
        if made:
            found.run("delete", "namespace", namespace, "--ignore-not-found", seconds=600)


@pytest.fixture(scope="session")
def ingress(cluster: Cluster) -> Iterator[str]:
    """The address of Knative's ingress: said, or its load balancer, or a port of a node, or forwarded."""
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
    """A client of web through the ingress, as patient as a cold start needs."""
    host = urlsplit(cluster.get("services.serving.knative.dev", "web")["status"]["url"]).netloc
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
    with httpx.Client(base_url=ingress, headers={"Host": host}, timeout=900, limits=limits, trust_env=False) as client:
        yield client


@pytest.fixture(scope="session")
def slots(cluster: Cluster) -> dict[str, int]:
    """containerConcurrency of each InferenceService."""
    items = cluster.get("inferenceservices.serving.kserve.io")["items"]
    return {item["metadata"]["name"]: item["spec"]["predictor"]["containerConcurrency"] for item in items}


@pytest.fixture(scope="session")
def eventually() -> Callable[..., Any]:
    return wait_for


@pytest.fixture
def answered() -> Callable[[httpx.Client, str], Any]:
    """Fetch a job until it has ended; what it then is."""

    def fetch(client: httpx.Client, where: str) -> Any:
        def ended() -> Any:
            job = client.get(where).raise_for_status().json()
            return job if job["state"] in ("completed", "failed", "cancelled") else None

        return wait_for(ended, f"{where} has ended", 900)

    return fetch
