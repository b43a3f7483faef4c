"""A plausible cluster with Knative and KServe, as kubectl and clients see one: pods are processes of this machine.

web is the real one; predictors and the ingress are played. Each fault makes it misbehave in one way.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from contract.cloudevents import CloudEvent
from scripts.reliability.deployment import redis_server
from tests.support.processes import ROOT, free_port
from tests.support.scripted_cluster.api_server import ApiServer
from tests.support.scripted_cluster.discovery import kubeconfig
from tests.support.scripted_cluster.objects import Document, Objects, Place, condition, place_of
from tests.support.scripted_cluster.predictor import Predictor
from tests.support.scripted_cluster.service import METHODS, SPEED, Process, Server, Service

FAULTS = frozenset(
    {
        "forgets jobs",
        "generates twice",
        "has no route in a rollout",
        "holds requests while a pod goes",
        "keeps what is cancelled",
        "lets too many into a pod",
        "wakes no pod",
    }
)
BROKER = ROOT / "tests" / "scenarios" / "events" / "broker.py"
TICK_SECONDS = 0.05
KSERVE_SECONDS = 0.3
"""How long KServe takes to see a change; until then its InferenceService is as Ready as before."""

COLD_SECONDS = 2.0
"""The start of a predictor."""


@dataclass
class Program:
    """A process whose output is kept, and which serves once its port takes connections."""

    command: list[str]
    environment: dict[str, str]
    output: Path

    def __post_init__(self) -> None:
        self.port = free_port()
        self.running: subprocess.Popen[bytes] | None = None

    def launch(self) -> None:
        kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        environment = {**kept, **self.environment, "PYTHONPATH": str(ROOT), "PORT": str(self.port)}
        with self.output.open("ab") as output:
            self.running = subprocess.Popen(self.command, stdout=output, stderr=output, cwd=ROOT, env=environment)

    async def start(self) -> None:
        self.launch()
        while not await self.serves():
            await asyncio.sleep(TICK_SECONDS)
            assert self.running is not None
            if self.running.poll() is not None:  # its port was taken meanwhile
                self.port = free_port()
                self.launch()

    async def serves(self) -> bool:
        if self.running is None or self.running.poll() is not None:
            return False
        with suppress(OSError):
            _, writer = await asyncio.open_connection("127.0.0.1", self.port)
            writer.close()
            return True
        return False

    async def stop(self) -> None:
        if self.running is not None and self.running.poll() is None:
            self.running.send_signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                await asyncio.to_thread(self.running.wait, 10)
            self.running.kill()
            await asyncio.to_thread(self.running.wait)


class ScriptedCluster:
    """The API server, the ingress and what runs behind them, until `close`."""

    def __init__(self, folder: Path, faults: frozenset[str], drain_seconds: float) -> None:
        assert faults <= FAULTS
        self.folder, self.faults = folder, faults
        self.drain_seconds = drain_seconds
        self.objects = Objects()
        self.services: dict[tuple[str, str], Service] = {}
        self.programs: dict[tuple[str, str], Program] = {}
        """Pods that are not Knative's."""
        self.brokers: dict[str, Program] = {}
        self.triggers: dict[str, str] = {}
        """What each namespace's Broker was told of its Triggers."""
        self.replies: dict[tuple[str, str], CloudEvent] = {}
        self.errors: list[BaseException] = []
        self._seen: dict[str, float] = {}
        self._redis = redis_server()
        self.redis = self._redis.__enter__()
        self.api = ApiServer(self.objects, self)
        self._over = threading.Event()
        self._started = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))
        self._thread.start()
        self._started.wait(60)
        self.kubeconfig = folder / "kubeconfig"
        self.kubeconfig.write_text(json.dumps(kubeconfig(self.api.url)))

    def close(self) -> None:
        self._over.set()
        self._thread.join()
        self.api.close()
        self._redis.__exit__(None, None, None)

    def remove_eventing(self) -> None:
        for item in self.objects.list("apps/v1", "deployments", "knative-eventing"):
            self.objects.remove(place_of(item))

    # What the API server asks of pods

    def port(self, namespace: str, pod: str) -> int:
        for service in self.services.values():
            for revision in service.revisions:
                for found in revision.pods:
                    if found.document["metadata"]["name"] == pod:
                        return found.process.port
        return self.programs[namespace, pod].port

    def logs(self, namespace: str, pod: str) -> str:
        return self.programs[namespace, pod].output.read_text(errors="replace")

    def execute(self, namespace: str, pod: str, command: list[str]) -> tuple[int, bytes, bytes]:
        assert (namespace, pod) in self.programs
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run([sys.executable, *command[1:]], capture_output=True, env=environment, cwd=ROOT)
        return done.returncode, done.stdout, done.stderr

    # What pods run

    def process(self, namespace: str, service: str, template: Document) -> Process:
        if service.endswith("-predictor"):
            name = service.removesuffix("-predictor")
            predictor = Predictor(name, self.replies, self.faults)
            return Server(predictor.app, COLD_SECONDS)
        [container] = template["spec"]["containers"]
        environment = {"HOST": "127.0.0.1", "K_SERVICE": service}
        for entry in container["env"]:
            # Of the Secrets only that of the store is part of these manifests: it says redis://redis:6379/0.
            text = entry.get("value", "redis://redis:6379/0")
            environment[entry["name"]] = self._value(namespace, text.replace("$(NAMESPACE)", namespace))
        if "forgets jobs" in self.faults:
            del environment["STORE_URL"]
        output = self.folder / f"{namespace}-{service}.log"
        return Program([sys.executable, "-m", "web"], environment, output)

    def _value(self, namespace: str, text: str) -> str:
        """With addresses of this machine in the place of the cluster's."""

        def address(found: re.Match[str]) -> str:
            return f"http://127.0.0.1:{self._service(namespace, found[1]).server.port}"

        if "broker-ingress" in text:  # is there before the Broker
            broker = f"http://127.0.0.1:{self._broker_program(namespace).port}/default"
            text = re.sub(r"http://[a-z-]*broker-ingress\.knative-eventing[^\"]*", broker, text)
        text = re.sub(rf"http://([a-z-]+)\.{namespace}\.svc\.cluster\.local", address, text)
        return re.sub(r"redis://redis:6379/0", self.redis, text)

    # Controllers

    async def _run(self) -> None:
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=0)
        async with httpx2.AsyncClient(trust_env=False, timeout=None, limits=limits) as self.client:
            ingress = Server(Starlette(routes=[Route("/{path:path}", self._ingress, methods=METHODS)]))
            await ingress.start()
            for document in system(ingress.port):
                self.objects.put(document)
            self._started.set()
            while not self._over.is_set():
                try:
                    with self.objects.lock:
                        self._reconcile()
                    await self._close_removed()
                    await self._tell_brokers()
                except Exception as error:
                    self.errors.append(error)
                await asyncio.sleep(TICK_SECONDS)
            for service in self.services.values():
                await service.close()
            for program in [*self.programs.values(), *self.brokers.values()]:
                await program.stop()
            await ingress.stop()

    async def _ingress(self, request: Request) -> Response:
        name, namespace, *_ = [*request.headers["host"].split("."), "", ""]
        service = self.services.get((namespace, name))
        return await service.answer(request) if service else PlainTextResponse("no route", 404)

    def _service(self, namespace: str, name: str) -> Service:
        if (namespace, name) not in self.services:
            service = self.services[namespace, name] = Service(self, self.client, namespace, name)
            service.do(service.server.start())
        return self.services[namespace, name]

    def _reconcile(self) -> None:
        for item in self.objects.list("eventing.knative.dev/v1", "brokers"):
            self._broker(item)
        for item in self.objects.list("serving.kserve.io/v1beta1", "inferenceservices"):
            self._inference_service(item)
        for item in self.objects.list("serving.knative.dev/v1", "services"):
            self._service(item["metadata"]["namespace"], item["metadata"]["name"]).reconcile(item)
        for item in self.objects.list("v1", "pods"):
            self._pod(item)
        for resource in ("statefulsets", "deployments"):
            for item in self.objects.list("apps/v1", resource):
                self._status(item, updatedReplicas=1, readyReplicas=1)
        for version, resource in (("eventing.knative.dev/v1", "triggers"), ("sources.knative.dev/v1", "sinkbindings")):
            for item in self.objects.list(version, resource):
                self._status(item, conditions=condition(True))

    def _status(self, item: Document, **status: Any) -> None:
        status = {"observedGeneration": item["metadata"]["generation"], **status}
        if item.get("status") != status:
            item["status"] = status
            self.objects.touch(item)

    def _inference_service(self, item: Document) -> None:
        metadata, predictor = item["metadata"], item["spec"]["predictor"]
        seen = self._seen.setdefault(
            f"{metadata['uid']} {json.dumps([metadata.get('annotations'), predictor])}", time.monotonic()
        )
        if time.monotonic() - seen < KSERVE_SECONDS:
            return
        template = {
            "metadata": {"annotations": metadata["annotations"]},
            "spec": {"containerConcurrency": predictor["containerConcurrency"], "containers": predictor["containers"]},
        }
        name = f"{metadata['name']}-predictor"
        place = Place("serving.knative.dev/v1", "services", metadata["namespace"], name)
        found = self.objects.get(place)
        if found is None or found["spec"]["template"] != template:
            service = {"name": name, "namespace": metadata["namespace"]}
            document = {"apiVersion": place.version, "kind": "Service", "metadata": service}
            found = self.objects.put({**document, "spec": {"template": template}})
        status = found.get("status") or {}
        observed = {
            "observedGeneration": status.get("observedGeneration", 0)
        }  # the Knative Service's, as KServe has it
        observed["conditions"] = status.get("conditions", condition(False))
        self._status(item, **observed)

    def _broker(self, item: Document) -> None:
        namespace = item["metadata"]["namespace"]
        url = f"http://127.0.0.1:{self._broker_program(namespace).port}/default"
        self._status(item, conditions=condition(namespace in self.triggers), address={"url": url})

    def _broker_program(self, namespace: str) -> Program:
        if namespace not in self.brokers:
            program = Program([], {}, self.folder / f"{namespace}-broker.log")
            program.command = [sys.executable, str(BROKER), json.dumps({"port": program.port})]
            program.launch()
            self.brokers[namespace] = program
        return self.brokers[namespace]

    async def _tell_brokers(self) -> None:
        for namespace, program in self.brokers.items():
            triggers = [
                trigger
                for item in self.objects.list("eventing.knative.dev/v1", "triggers", namespace)
                for trigger in self._trigger(item)
            ]
            told = json.dumps({"triggers": triggers})
            if told != self.triggers.get(namespace) and await program.serves():
                url = f"http://127.0.0.1:{program.port}/config"
                (await self.client.put(url, content=told)).raise_for_status()
                self.triggers[namespace] = told

    def _trigger(self, item: Document) -> Iterator[Document]:
        """For each alternative of its filters one; `cesql` has none, as every request here names its model."""
        spec, metadata = item["spec"], item["metadata"]
        subscriber, namespace = spec["subscriber"], metadata["namespace"]
        name = subscriber["ref"]["name"]
        if subscriber["ref"]["apiVersion"] == "v1":
            port = self.programs[namespace, name].port if (namespace, name) in self.programs else 9
        else:
            port = self._service(namespace, name).server.port
        delivery = spec.get("delivery", {})
        found = {
            "subscriber": f"http://127.0.0.1:{port}{subscriber.get('uri', '/')}",
            "retry": delivery.get("retry", 0),
            "backoffPolicy": delivery.get("backoffPolicy", "exponential"),
            "backoffDelay": 1 / SPEED,
        }
        for number, attributes in enumerate(alternatives(spec)):
            yield {**found, "name": f"{metadata['name']}-{number}", "filter": attributes}

    def _pod(self, item: Document) -> None:
        """One that is not Knative's: its command runs, with another port."""
        metadata = item["metadata"]
        key = metadata["namespace"], metadata["name"]
        if "serving.knative.dev/service" in (metadata.get("labels") or {}):
            return
        if key not in self.programs:
            [container] = item["spec"]["containers"]
            program = Program([sys.executable, *container["command"][1:]], {}, self.folder / f"{key[1]}.log")
            program.launch()
            self.programs[key] = program
        self._status(item, phase="Running", conditions=condition(True))

    async def _close_removed(self) -> None:
        """What is no object any more runs no longer."""
        there = {(item["metadata"]["namespace"], item["metadata"]["name"]) for item in self.objects.list("v1", "pods")}
        for key in [key for key in self.programs if key not in there]:
            await self.programs.pop(key).stop()
        spaces = {item["metadata"]["name"] for item in self.objects.list("v1", "namespaces")}
        for key in [key for key in self.services if key[0] not in spaces]:
            await self.services.pop(key).close()
        for namespace in [name for name in self.brokers if name not in spaces]:
            await self.brokers.pop(namespace).stop()


def alternatives(spec: Document) -> list[Document]:
    """The exact attributes of a Trigger's filter, of which one set must match."""
    if "filter" in spec:
        return [spec["filter"]["attributes"]]
    found: list[Document] = [{}]
    for entry in spec.get("filters", []):
        options = [option["exact"] for option in entry.get("any", [entry]) if "exact" in option]
        found = [{**one, **other} for one in found for other in options]
    return found


def system(port: int) -> list[Document]:
    """What is installed. The load balancer's name leads nowhere, the node's port to the ingress."""
    balancer = {"loadBalancer": {"ingress": [{"hostname": "ingress.invalid"}]}}
    kourier = {"ports": [{"name": "http2", "port": 80, "nodePort": port}]}
    network = {"ingress-class": "kourier.ingress.networking.knative.dev"}

    def item(version: str, kind: str, namespace: str, name: str, **members: Any) -> Document:
        metadata = {"name": name, **({"namespace": namespace} if namespace else {})}
        return {"apiVersion": version, "kind": kind, "metadata": metadata, **members}

    addresses = [{"type": "InternalIP", "address": "127.0.0.1"}, {"type": "Hostname", "address": "node.invalid"}]
    return [
        item("v1", "Node", "", "node", status={"addresses": addresses}),
        item("v1", "ConfigMap", "knative-serving", "config-network", data=network),
        item("v1", "Service", "kourier-system", "kourier", spec=kourier, status=balancer),
        item("apps/v1", "Deployment", "knative-eventing", "mt-broker-controller", spec={"replicas": 1}),
    ]


@contextmanager
def running(folder: Path, *faults: str, drain_seconds: float = 3) -> Iterator[ScriptedCluster]:
    """A pod takes `drain_seconds` to go: on a cluster it is 30 s, where a cold start takes 3."""
    cluster = ScriptedCluster(folder, frozenset(faults), drain_seconds)
    try:
        yield cluster
    finally:
        cluster.close()
