"""A stub of the Kubernetes API server, just complete enough for the real kubectl, with a cluster that lacks nothing."""

from __future__ import annotations

import json
import os
import re
import subprocess
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from scripts.cluster.doctor.checks.examination import Check
from scripts.cluster.doctor.cluster_state import ClusterState
from scripts.cluster.doctor.requirements import Requirements
from tests.support.scripted_cluster.discovery import discovery, kubeconfig

ROOT = Path(__file__).parents[4]
LIMIT = 60.0

KINDS = {
    "v1": [
        *("namespaces/Namespace", "nodes/Node", "configmaps/ConfigMap", "serviceaccounts/ServiceAccount"),
        *("services/Service", "persistentvolumeclaims/PersistentVolumeClaim"),
        *("secrets/Secret", "pods/Pod", "resourcequotas/ResourceQuota", "limitranges/LimitRange"),
    ],
    "apps/v1": ["deployments/Deployment", "statefulsets/StatefulSet", "daemonsets/DaemonSet"],
    "autoscaling/v2": ["horizontalpodautoscalers/HorizontalPodAutoscaler"],
    "rbac.authorization.k8s.io/v1": ["roles/Role", "rolebindings/RoleBinding"],
    "metrics.k8s.io/v1beta1": ["pods/PodMetrics"],
    "monitoring.coreos.com/v1": ["podmonitors/PodMonitor", "prometheusrules/PrometheusRule"],
    "gateway.networking.k8s.io/v1": ["httproutes/HTTPRoute", "gateways/Gateway"],
    "batch/v1": ["jobs/Job"],
    "policy/v1": ["poddisruptionbudgets/PodDisruptionBudget"],
    "networking.k8s.io/v1": ["networkpolicies/NetworkPolicy", "ingresses/Ingress"],
    "discovery.k8s.io/v1": ["endpointslices/EndpointSlice"],
    "storage.k8s.io/v1": ["storageclasses/StorageClass"],
    "scheduling.k8s.io/v1": ["priorityclasses/PriorityClass"],
    "node.k8s.io/v1": ["runtimeclasses/RuntimeClass"],
    "authorization.k8s.io/v1": ["selfsubjectaccessreviews/SelfSubjectAccessReview"],
    "serving.knative.dev/v1": ["services/Service"],
    "eventing.knative.dev/v1": ["brokers/Broker", "triggers/Trigger"],
    "eventing.knative.dev/v1beta3": ["eventtypes/EventType"],
    "messaging.knative.dev/v1": ["inmemorychannels/InMemoryChannel"],
    "sources.knative.dev/v1": ["sinkbindings/SinkBinding"],
    "serving.kserve.io/v1alpha1": ["clusterstoragecontainers/ClusterStorageContainer"],
    "serving.kserve.io/v1beta1": ["inferenceservices/InferenceService"],
}
LOADED = ["dev.local/shangcai/web:0.1.0", "dev.local/shangcai/predictor:0.1.0"]
DISCOVERED = {
    "nvidia.com/gpu.present": "true",
    "nvidia.com/cuda.driver-version.major": "580",
    "nvidia.com/gpu.compute.major": "8",
    "nvidia.com/gpu.compute.minor": "0",
}


def deployment(name: str, version: str = "", image: str = "", available: int = 1) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "labels": {"app.kubernetes.io/version": version} if version else {}},
        "spec": {"replicas": 1, "template": {"spec": {"containers": [{"name": "manager", "image": image}]}}},
        "status": {"availableReplicas": available},
    }


class Cluster:
    """What the API server serves. Tests remove or change objects in it."""

    def __init__(self, kubeconfig: Path) -> None:
        self.version = "v1.34.0"
        self.kinds = {version: list(names) for version, names in KINDS.items()}
        self.denied: set[str] = set()
        """Resources that may not be created."""
        self.objects: dict[str, dict[str, Any]] = {}
        """By path: namespace/resource/name, or resource/name."""
        self.kubeconfig = kubeconfig

        for name in ("controller", "activator", "autoscaler", "webhook"):
            self.put("knative-serving/deployments", deployment(name, "1.21.1"))
        for name in ("eventing-controller", "kafka-broker-receiver", "mt-broker-ingress"):
            self.put("knative-eventing/deployments", deployment(name, "1.21.1"))
        self.put(
            "kserve/deployments", deployment("kserve-controller-manager", image="kserve/kserve-controller:v0.21.0")
        )
        network = {"ingress-class": "kourier.ingress.networking.knative.dev", "mesh-compatibility-mode": "disabled"}
        self.config("knative-serving/config-network", network)
        self.config("knative-serving/config-domain", {"_example": "…", "example.com": ""})
        flags = ["podspec-runtimeclassname", "podspec-tolerations", "podspec-securitycontext"]
        flags += ["podspec-persistent-volume-claim", "podspec-persistent-volume-write"]
        self.config("knative-serving/config-features", {f"kubernetes.{flag}": "enabled" for flag in flags})
        self.config("knative-serving/config-autoscaler", {"allow-zero-initial-scale": "true"})
        self.config("knative-serving/config-deployment", {"pod-is-always-schedulable": "true"})
        self.config("knative-serving/config-defaults", {})
        self.config("knative-eventing/config-features", {"delivery-retryafter": "enabled"})
        modes = {"deploy": '{"defaultDeploymentMode": "Standard"}', "ingress": '{"disableIstioVirtualHost": true}'}
        self.config("kserve/inferenceservice-config", modes)
        self.gateway("kourier-system", "kourier", {"app": "3scale-kourier-gateway"})
        default = {"storageclass.kubernetes.io/is-default-class": "true"}
        self.put("storageclasses", {"metadata": {"name": "standard", "annotations": default}})
        self.put("namespaces", {"metadata": {"name": "shangcai"}})
        for name, keys in (("web-callers", ("callers", "secret")), ("predictor-token", ("token",))):
            self.put("shangcai/secrets", {"metadata": {"name": name}, "data": dict.fromkeys(keys, "eA==")})
        self.put("runtimeclasses", {"metadata": {"name": "nvidia"}})
        self.put("clusterstoragecontainers", {"metadata": {"name": "default"}})
        taint = {"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}
        self.put("nodes", self.node("cpu"))
        self.put("nodes", self.node("gpu", {"nvidia.com/gpu": "2"}, taint))

    @staticmethod
    def node(
        name: str, devices: dict[str, str] | None = None, *taints: dict[str, str], labels: dict[str, str] | None = None
    ) -> dict[str, Any]:
        """A node; with devices it has the labels of GPU feature discovery, and with `labels` other ones."""
        allocatable = {"cpu": "8", **(devices or {})}
        named = {**(DISCOVERED if devices else {}), **(labels or {})}
        status = {"allocatable": allocatable, "images": [{"names": [image]} for image in LOADED]}
        return {"metadata": {"name": name, "labels": named}, "spec": {"taints": list(taints)}, "status": status}

    def gateway(self, namespace: str, service: str, labels: dict[str, str], **namespace_labels: str) -> None:
        """A Service of an ingress with a ready pod behind it, in a namespace with these labels."""
        own = {"kubernetes.io/metadata.name": namespace, **namespace_labels}
        self.put("namespaces", {"metadata": {"name": namespace, "labels": own}})
        pod = f"{service}-1"
        self.put(f"{namespace}/pods", {"metadata": {"name": pod, "labels": labels}})
        target = {"kind": "Pod", "name": pod, "namespace": namespace}
        endpoint = {"conditions": {"ready": True}, "addresses": ["10.0.0.7"], "targetRef": target}
        named = {"name": pod, "labels": {"kubernetes.io/service-name": service}}
        self.put(f"{namespace}/endpointslices", {"metadata": named, "endpoints": [endpoint]})

    def put(self, place: str, item: dict[str, Any]) -> None:
        self.objects[f"{place}/{item['metadata']['name']}"] = item

    def config(self, path: str, data: dict[str, str]) -> None:
        namespace, name = path.split("/")
        self.put(f"{namespace}/configmaps", {"metadata": {"name": name}, "data": data})

    def deployment(self, path: str) -> dict[str, Any]:
        namespace, name = path.split("/")
        return self.objects[f"{namespace}/deployments/{name}"]

    def answer(self, path: str, label: str) -> dict[str, Any] | None:
        """The document for a GET; None for a 404."""
        if (known := discovery(path, self.kinds, self.version)) is not None:
            return known
        version, _, rest = re.sub("^/apis?/", "", path).partition("/")
        if path.startswith("/apis/"):
            part, _, rest = rest.partition("/")
            version = f"{version}/{part}"
        if version not in self.kinds:
            return None
        place = rest if re.fullmatch("namespaces/[^/]+", rest) else rest.removeprefix("namespaces/")
        if place in self.objects:
            return {"apiVersion": version, "kind": self.kind(version, rest), **self.objects[place]}
        if self.kind(version, rest) and "/" in rest and place.split("/")[-1] not in self.names(version):
            return None
        found = [item for key, item in self.objects.items() if key.rpartition("/")[0] == place]
        name, _, value = label.partition("=")
        found = [item for item in found if not label or item["metadata"].get("labels", {}).get(name) == value]
        kind = self.kind(version, rest)
        items = [{"apiVersion": version, "kind": kind, **item} for item in found]
        return {"apiVersion": version, "kind": f"{kind}List", "metadata": {}, "items": items}

    def names(self, version: str) -> list[str]:
        return [entry.partition("/")[0] for entry in self.kinds[version]]

    def kind(self, version: str, rest: str) -> str:
        for name, _, kind in (entry.partition("/") for entry in self.kinds[version]):
            if name in rest.split("/"):
                return kind
        return ""

    def doctor(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        home = str(self.kubeconfig.parent)
        environment = {"PATH": os.environ["PATH"], "HOME": home, "KUBECONFIG": str(self.kubeconfig)}
        command = [str(ROOT / "scripts" / "doctor"), *arguments]
        return subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=LIMIT)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    cluster: Cluster

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        label = parse_qs(parts.query).get("labelSelector", [""])[0]
        found = self.cluster.answer(parts.path, label)
        if found is None:
            message = f'"{parts.path.rpartition("/")[2]}" not found'
            found = {
                "kind": "Status",
                "apiVersion": "v1",
                "status": "Failure",
                "reason": "NotFound",
                "message": message,
            }
            self.send({**found, "code": 404}, 404)
        else:
            self.send(found)

    def do_POST(self) -> None:
        """Only SelfSubjectAccessReviews are posted. kubectl sends Protobuf, which contains names as plain bytes."""
        review = self.rfile.read(int(self.headers["Content-Length"]))
        allowed = not any(name.encode() in review for name in self.cluster.denied)
        kind = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview"}
        self.send({**kind, "spec": {}, "status": {"allowed": allowed}}, 201)

    def send(self, document: dict[str, Any], status: int = 200) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def write_kubeconfig(tmp_path: Path) -> Callable[[str], Path]:
    def write(server: str) -> Path:
        path = tmp_path / "kubeconfig"
        path.write_text(json.dumps(kubeconfig(server)))
        return path

    return write


@pytest.fixture
def cluster(write_kubeconfig: Callable[[str], Path]) -> Iterator[Cluster]:
    class Served(Handler): ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Served)
    Served.cluster = Cluster(write_kubeconfig(f"http://127.0.0.1:{server.server_port}"))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield Served.cluster
    server.shutdown()
    server.server_close()


@pytest.fixture
def state(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> ClusterState:
    """What a check asks, in this process: the real kubectl answers from `cluster`."""
    monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig))
    monkeypatch.setenv("HOME", str(cluster.kubeconfig.parent))
    return ClusterState(None)


@pytest.fixture
def found(state: ClusterState) -> Callable[[Check, list[dict[str, Any]]], list[str]]:
    """The lines of a check for documents of an overlay, with their verdicts."""

    def run(check: Check, documents: list[dict[str, Any]]) -> list[str]:
        findings = check(state, Requirements(documents))
        return [f"{one.verdict} {one.text}" + (f" — {one.fix}" if one.fix else "") for one in findings]

    return run
