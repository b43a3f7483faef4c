"""Events on a real cluster: a publisher, the Broker, the predictors, a subscriber; then a rollout to events mode."""

from __future__ import annotations

import json
import os
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.cluster.cluster import Cluster, wait_for
from tests.cluster.prompts import POEM

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
REQUESTED = "ai.shangcai.generation.requested.v1"
COMPLETED = "ai.shangcai.generation.completed.v1"

SUBSCRIBER = """
import http.server, json, sys

refused = set()


class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.read_body().decode()
        event = {name[3:].lower(): value for name, value in self.headers.items() if name.lower().startswith("ce-")}
        first = event["id"] not in refused
        refused.add(event["id"])
        print(json.dumps({**event, "data": json.loads(body), "refused": first}), flush=True)
        self.send_response(503 if first else 202)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def read_body(self):
        if "Content-Length" in self.headers:
            return self.rfile.read(int(self.headers["Content-Length"]))
        body = b""  # in chunks
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def log_message(self, *arguments):
        pass


http.server.ThreadingHTTPServer(("", 8080), Handler).serve_forever()
"""
"""Prints each event as a line of JSON, and refuses each the first time."""

PUBLISHER = """
import json, sys, urllib.request

url, attributes, data = sys.argv[1], json.loads(sys.argv[2]), sys.argv[3]
headers = {"ce-" + name: value for name, value in attributes.items()} | {"Content-Type": "application/json"}
with urllib.request.urlopen(urllib.request.Request(url, data.encode(), headers), timeout=60) as answer:
    print(answer.status)
"""


@pytest.fixture(scope="module")
def probe(cluster: Cluster) -> Iterator[str]:
    """The name of a pod that receives all results and can send events."""
    name = f"probe-{uuid.uuid4().hex[:8]}"
    meta = {"name": name, "labels": {"app": name}}
    container = cluster.get("services.serving.knative.dev", "web")["spec"]["template"]["spec"]["containers"][0]
    shell = {"name": "probe", "image": container["image"], "command": ["python", "-c", SUBSCRIBER]}
    shell["securityContext"] = container["securityContext"]
    ref = {"apiVersion": "v1", "kind": "Service", "name": name}
    backoff = {"retry": 5, "backoffPolicy": "linear", "backoffDelay": "PT1S"}
    ports = [{"port": 80, "targetPort": 8080}]
    trigger = {
        "broker": "default",
        "filters": [{"exact": {"type": COMPLETED}}],
        "subscriber": {"ref": ref},
        "delivery": backoff,
    }
    policy = {"podSelector": {"matchLabels": meta["labels"]}, "ingress": [{}], "policyTypes": ["Ingress"]}
    objects: list[dict[str, Any]] = [
        {"apiVersion": "v1", "kind": "Pod", "spec": {"containers": [shell]}},
        {"apiVersion": "v1", "kind": "Service", "spec": {"selector": meta["labels"], "ports": ports}},
        {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "spec": policy},
        {"apiVersion": "eventing.knative.dev/v1", "kind": "Trigger", "spec": trigger},
    ]
    manifests = yaml.safe_dump_all([{**item, "metadata": meta} for item in objects])
    try:
        cluster.run("apply", "-f", "-", stdin=manifests)
        ready = ["--for=condition=Ready", "--timeout=300s"]
        cluster.run("wait", f"pod/{name}", f"triggers.eventing.knative.dev/{name}", *ready, seconds=310)
        yield name
    finally:
        cluster.run("delete", "--ignore-not-found", "--wait=false", "-f", "-", stdin=manifests)


@pytest.fixture
def publish(cluster: Cluster, probe: str) -> Callable[..., str]:
    """Send an event to the Broker, and return its subject, which is new unless an id is given."""

    def send(data: dict[str, Any], **attributes: str) -> str:
        subject = attributes.get("id") or str(uuid.uuid4())
        event = {"specversion": "1.0", "id": subject, "source": "urn:test", "type": REQUESTED, "subject": subject}
        broker = cluster.get("brokers.eventing.knative.dev", "default")["status"]["address"]["url"]
        sent = [broker, json.dumps({**event, "model": "text", **attributes}), json.dumps(data)]
        assert cluster.run("exec", probe, "--", "python", "-c", PUBLISHER, *sent, seconds=900).strip() == "202"
        return subject

    return send


@pytest.fixture
def deliveries(cluster: Cluster, probe: str) -> Callable[[str], list[Any]]:
    """The deliveries to the pod that have a subject."""

    def read(subject: str) -> list[Any]:
        events = [json.loads(line) for line in cluster.run("logs", probe).splitlines()]
        return [event for event in events if event["subject"] == subject]

    return read


def test_a_request_has_a_result_that_is_delivered_until_it_is_accepted(
    publish: Callable[..., str], deliveries: Callable[[str], list[Any]]
) -> None:
    subject = publish(POEM)
    accepted = wait_for(lambda: [entry for entry in deliveries(subject) if not entry["refused"]], "a result", 900)
    assert accepted[0]["data"]["text"].strip()
    assert accepted[0]["causationid"] == subject
    refused = [entry for entry in deliveries(subject) if entry["refused"]]
    assert [entry["id"] for entry in refused] == [accepted[0]["id"]]


def test_the_same_request_twice_is_generated_once(
    publish: Callable[..., str], deliveries: Callable[[str], list[Any]]
) -> None:
    subject = publish(POEM)
    wait_for(lambda: len(deliveries(subject)) == 2, "a result, refused and accepted", 900)
    publish(POEM, id=subject)
    wait_for(lambda: len(deliveries(subject)) > 2, "the result again", 300)
    replies = deliveries(subject)
    assert len({entry["id"] for entry in replies}) == 1
    assert len({entry["data"]["text"] for entry in replies}) == 1  # without a seed, a second generation would differ


@pytest.fixture(scope="module")
def events_mode(
    cluster: Cluster, overlay: Path, web: httpx.Client, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[int]]:
    """Roll out the component that sends web's requests to the Broker; yields the statuses of answers meanwhile."""
    container = cluster.get("services.serving.knative.dev", "web")["spec"]["template"]["spec"]["containers"][0]
    if {"name": "DISPATCH", "value": "events"} in container["env"]:
        pytest.skip("the overlay is in events mode already")
    folder = tmp_path_factory.mktemp("events").resolve()
    component = ROOT / "deploy" / "components" / "events"
    document = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [os.path.relpath(overlay, folder)],
        "components": [os.path.relpath(component, folder)],
    }
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(document))
    statuses: list[int] = []
    over = threading.Event()

    def ask() -> None:
        while not over.is_set():
            statuses.append(web.post("/generate", json=POEM).status_code)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        cluster.apply(folder)
    finally:
        over.set()
        asking.join(900)
    yield statuses
    cluster.apply(overlay)


def test_a_rollout_loses_no_request(cluster: Cluster, events_mode: list[int]) -> None:
    assert len(events_mode) > 1
    assert set(events_mode) == {200}
    for service in ("web", "text-predictor"):
        [traffic] = cluster.get("services.serving.knative.dev", service)["status"]["traffic"]
        assert traffic["revisionName"] == cluster.latest_revision(service)
        label = f"serving.knative.dev/service={service}"
        assert len(cluster.get("revisions.serving.knative.dev", "-l", label)["items"]) > 1


def test_in_events_mode_a_client_sees_no_difference(events_mode: list[int], web: httpx.Client) -> None:
    result = web.post("/generate", json=POEM).raise_for_status().json()
    assert result["model"] == "text"
    assert result["text"].strip()
