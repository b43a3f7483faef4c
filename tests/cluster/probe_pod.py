"""A pod of web's image that receives all results of the Broker, and sends events to it."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import yaml

from contract.cloudevents import COMPLETED, REQUESTED
from tests.cluster.cluster import Cluster

SUBSCRIBER = """
import http.server, json, os

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


http.server.ThreadingHTTPServer(("", int(os.environ["PORT"])), Handler).serve_forever()
"""
"""Prints each event as a line of JSON, and refuses each the first time."""

PUBLISHER = """
import os, sys
import httpx2
from contract.cloudevents import CloudEvent
from wire.cloudevents import signed, write_event

event, token = CloudEvent.model_validate_json(sys.argv[2]), os.environ.get("PREDICTOR_TOKEN")
headers, body = write_event(signed(event, token) if token else event)
print(httpx2.post(sys.argv[1], headers=headers, content=body, timeout=900, trust_env=False).status_code)
"""
"""As python -m web.publish does, but with an id that can be given a second time."""


@dataclass(frozen=True)
class Probe:
    """The pod, by its name."""

    cluster: Cluster
    name: str

    def publish(self, data: dict[str, Any], subject: str = "") -> str:
        """Send a request to the Broker; its id and subject, which are new unless given."""
        subject = subject or str(uuid.uuid4())
        event = {
            "id": subject,
            "source": "urn:shangcai:tests",
            "type": REQUESTED,
            "subject": subject,
            "datacontenttype": "application/json",
            "extensions": {"model": data["model"]},
            "data": json.dumps(data),
        }
        broker = self.cluster.get("brokers.eventing.knative.dev", "default")["status"]["address"]["url"]
        command = ["exec", self.name, "--", "python", "-c", PUBLISHER, broker, json.dumps(event)]
        assert self.cluster.run(*command, seconds=900).strip() == "202"
        return subject

    def deliveries(self, subject: str) -> list[Any]:
        """The deliveries to the pod that have that subject. A broken connection leaves other lines in its log."""
        lines = self.cluster.run("logs", self.name).splitlines()
        events = [json.loads(line) for line in lines if line.startswith("{")]
        return [event for event in events if event["subject"] == subject]


@contextmanager
def running(cluster: Cluster) -> Iterator[Probe]:
    """A probe with its Trigger, ready."""
    name = f"probe-{uuid.uuid4().hex[:8]}"
    meta = {"name": name, "labels": {"app": name}}
    [web] = cluster.get("services.serving.knative.dev", "web")["spec"]["template"]["spec"]["containers"]
    container = {
        "name": "probe",
        "image": web["image"],
        "command": ["python", "-c", SUBSCRIBER],
        "env": [
            {"name": "PORT", "value": "8080"},
            *(
                entry for entry in web["env"] if entry["name"] == "PREDICTOR_TOKEN"
            ),  # predictors take signed events only
        ],
        "resources": web["resources"],
        "securityContext": web["securityContext"],
    }
    objects: list[dict[str, Any]] = [
        {"apiVersion": "v1", "kind": "Pod", "spec": {"containers": [container]}},
        {
            "apiVersion": "v1",
            "kind": "Service",
            "spec": {"selector": meta["labels"], "ports": [{"port": 80, "targetPort": 8080}]},
        },
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "spec": {
                "podSelector": {"matchLabels": meta["labels"]},
                "policyTypes": ["Ingress", "Egress"],
                "ingress": [{}],
                "egress": [{}],
            },
        },
        {
            "apiVersion": "eventing.knative.dev/v1",
            "kind": "Trigger",
            "spec": {
                "broker": "default",
                "filter": {"attributes": {"type": COMPLETED}},  # which every class of Broker reads
                "subscriber": {"ref": {"apiVersion": "v1", "kind": "Service", "name": name}},
                "delivery": {"retry": 5, "backoffPolicy": "linear", "backoffDelay": "PT1S"},
            },
        },
    ]
    manifests = yaml.safe_dump_all([{**item, "metadata": meta} for item in objects])
    try:
        cluster.run("apply", "-f", "-", stdin=manifests)
        ready = ["--for=condition=Ready", "--timeout=300s"]
        cluster.run("wait", f"pod/{name}", f"triggers.eventing.knative.dev/{name}", *ready, seconds=310)
        yield Probe(cluster, name)
    finally:
        cluster.run("delete", "--ignore-not-found", "--wait=false", "-f", "-", stdin=manifests)
