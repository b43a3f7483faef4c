"""A Knative Service: its revisions and their pods, the activator in front of them, and falling asleep."""

from __future__ import annotations

import asyncio
import socket
import time
import uuid
from collections.abc import AsyncGenerator, Coroutine
from dataclasses import dataclass, field
from typing import Protocol

import httpx2
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from tests.support.scripted_cluster.objects import (
    Document,
    Objects,
    Place,
    condition,
    place_of,
    timestamp,
    true_since_now,
)

HOP = {"host", "connection", "transfer-encoding", "content-length", "keep-alive"}
METHODS = ["GET", "POST", "PUT", "DELETE"]
SPEED = 4.0
"""The window and the retention period pass so many times faster."""

POLL_SECONDS = 0.02


class Process(Protocol):
    """What runs in a pod, once it is started."""

    port: int

    async def start(self) -> None: ...
    async def stop(self) -> None: ...


@dataclass
class Server:
    """An ASGI app on a port of its own."""

    app: ASGIApp
    delay: float = 0
    """How long it takes to start."""

    def __post_init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port: int = self._socket.getsockname()[1]
        config = uvicorn.Config(self.app, lifespan="off", log_level="critical", timeout_graceful_shutdown=1)
        self._server = uvicorn.Server(config)
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        await asyncio.sleep(self.delay)
        self._task = asyncio.create_task(self._server.serve(sockets=[self._socket]))

    async def stop(self) -> None:
        self._server.should_exit = self._server.force_exit = True
        if self._task is not None:
            await self._task
        self._socket.close()


@dataclass(eq=False)
class Pod:
    """One pod, and its object."""

    document: Document
    process: Process
    slots: float
    taken: int = 0
    ready: bool = False
    going: bool = False


@dataclass(eq=False)
class Revision:
    """A template that was applied, and its pods."""

    name: str
    template: Document
    pods: list[Pod] = field(default_factory=list)
    used: float = field(default_factory=time.monotonic)

    @property
    def staying(self) -> list[Pod]:
        return [pod for pod in self.pods if not pod.going]

    @property
    def idle_seconds(self) -> float:
        annotations = self.template["metadata"]["annotations"]
        names = ("window", "scale-to-zero-pod-retention-period")
        return sum(float(annotations[f"autoscaling.knative.dev/{name}"].removesuffix("s")) for name in names) / SPEED


class Runtime(Protocol):
    """What makes the processes of pods, and what is scripted to go wrong."""

    objects: Objects
    faults: frozenset[str]
    drain_seconds: float

    def process(self, namespace: str, service: str, template: Document) -> Process: ...


class Service:
    """Of one Knative Service."""

    def __init__(self, runtime: Runtime, client: httpx2.AsyncClient, namespace: str, name: str) -> None:
        self.runtime, self.client = runtime, client
        self.namespace, self.name = namespace, name
        self.revisions: list[Revision] = []
        self.active: Revision | None = None
        self.server = Server(Starlette(routes=[Route("/{path:path}", self.answer, methods=METHODS)]))
        self._tasks: set[asyncio.Task[None]] = set()

    # Revisions and pods

    def reconcile(self, document: Document) -> None:
        """Roll out a changed template, let what is idle fall asleep, and write the status."""
        template = document["spec"]["template"]
        if not self.revisions or self.revisions[-1].template != template:
            self._evicted()
            self.revisions.append(Revision(f"{self.name}-{len(self.revisions) + 1:05}", template))
            self._start(self.revisions[-1])
        latest = self.revisions[-1]
        if self.active is not latest and any(pod.ready for pod in latest.pods):
            self.active = latest
        for revision in self.revisions:
            for pod in revision.staying:
                self._end_if_deleted(revision, pod)
            busy = any(pod.taken for pod in revision.pods) or not all(pod.ready for pod in revision.pods)
            if not busy and time.monotonic() - revision.used > revision.idle_seconds:
                for pod in revision.staying:
                    self.do(self._end(revision, pod))
        self._write_status(document, latest)

    def _write_status(self, document: Document, latest: Revision) -> None:
        ready = self.active is latest
        status = {
            "observedGeneration": document["metadata"]["generation"],
            "conditions": condition(ready),
            "url": f"http://{self.name}.{self.namespace}.example.com",
            "latestCreatedRevisionName": latest.name,
        }
        if self.active is not None:
            status["latestReadyRevisionName"] = self.active.name
            status["traffic"] = [{"latestRevision": True, "percent": 100, "revisionName": self.active.name}]
        if document.get("status") != status:
            document["status"] = status
            self.runtime.objects.touch(document)

    def _evicted(self) -> None:
        """A pod that the node has thrown out. Nobody deletes it."""
        document = self._document("evicted", "Failed")
        document["status"]["reason"] = "Evicted"
        self.runtime.objects.put(document)

    def _document(self, revision: str, phase: str) -> Document:
        labels = {"service": self.name, "configuration": self.name, "revision": revision}
        metadata = {
            "name": f"{revision}-deployment-{uuid.uuid4().hex[:10]}",
            "namespace": self.namespace,
            "labels": {f"serving.knative.dev/{name}": value for name, value in labels.items()},
        }
        status = {"phase": phase, "conditions": condition(False)}
        return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": []}, "status": status}

    def _start(self, revision: Revision) -> None:
        process = self.runtime.process(self.namespace, self.name, revision.template)
        document = self.runtime.objects.put(self._document(revision.name, "Pending"))
        slots = revision.template["spec"].get("containerConcurrency") or float("inf")
        if "lets too many into a pod" in self.runtime.faults:
            slots = float("inf")
        pod = Pod(document, process, slots)
        revision.pods.append(pod)
        self.do(self._begin(revision, pod))

    async def _begin(self, revision: Revision, pod: Pod) -> None:
        self._write_start(pod.document)
        await pod.process.start()
        if pod.going:
            await self._remove(revision, pod)
            return
        pod.ready = True
        revision.used = time.monotonic()
        conditions = [*pod.document["status"]["conditions"], true_since_now("Ready")]
        pod.document["status"] |= {"phase": "Running", "conditions": conditions}
        self.runtime.objects.touch(pod.document)
        self._write_autoscaler(revision)

    def _write_start(self, document: Document) -> None:
        """What a node says of a pod whose image it has, and whose container runs but does not serve yet."""
        name = document["metadata"]["name"]
        event = {"apiVersion": "v1", "kind": "Event", "reason": "Pulled", "lastTimestamp": timestamp()}
        metadata = {"name": f"{name}.pulled", "namespace": self.namespace}
        self.runtime.objects.put({**event, "metadata": metadata, "involvedObject": {"kind": "Pod", "name": name}})
        container = {"name": "kserve-container", "state": {"running": {"startedAt": timestamp()}}}
        document["status"] |= {"conditions": [true_since_now("PodScheduled")], "containerStatuses": [container]}
        self.runtime.objects.touch(document)

    def _write_autoscaler(self, revision: Revision) -> None:
        document = {"apiVersion": "autoscaling.internal.knative.dev/v1alpha1", "kind": "PodAutoscaler"}
        metadata = {"name": revision.name, "namespace": self.namespace}
        status = {"conditions": [true_since_now("Active")]}
        self.runtime.objects.put({**document, "metadata": metadata, "status": status})

    def _end_if_deleted(self, revision: Revision, pod: Pod) -> None:
        """A pod that somebody has deleted without a grace period; one that starts is gone once it has."""
        if self.runtime.objects.get(place_of(pod.document)) is None:
            pod.going = True
            if pod.ready:
                self.do(self._remove(revision, pod))

    async def _end(self, revision: Revision, pod: Pod) -> None:
        """As queue-proxy does: the process is told to end only after a pause, and stays Ready until then."""
        pod.going = True
        pod.document["metadata"]["deletionTimestamp"] = timestamp()
        self.runtime.objects.touch(pod.document)
        await asyncio.sleep(self.runtime.drain_seconds)
        while pod.taken:
            await asyncio.sleep(POLL_SECONDS)
        await self._remove(revision, pod)

    async def _remove(self, revision: Revision, pod: Pod) -> None:
        await pod.process.stop()
        if pod in revision.pods:
            revision.pods.remove(pod)
        metadata = pod.document["metadata"]
        self.runtime.objects.remove(Place("v1", "pods", self.namespace, metadata["name"]))

    def do(self, coroutine: Coroutine[None, None, None]) -> None:
        """Run it beside everything else."""
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        for revision in self.revisions:
            for pod in revision.pods:
                await pod.process.stop()
        await self.server.stop()

    # Requests

    async def answer(self, request: Request) -> Response:
        """What the activator does: wake a pod, wait for a free slot in one, pass the request on."""
        rolls_out = self.active is not None and self.active is not self.revisions[-1]
        if rolls_out and "has no route in a rollout" in self.runtime.faults:
            return PlainTextResponse("no route", 503)
        if (place := await self._place()) is None:
            return PlainTextResponse("no pod", 503)
        revision, pod = place
        headers = [(name, value) for name, value in request.headers.raw if name.decode() not in HOP]
        url = f"http://127.0.0.1:{pod.process.port}{request.url.path}?{request.url.query}".rstrip("?")

        def release() -> None:
            pod.taken -= 1
            revision.used = time.monotonic()

        try:
            content = await request.body()
            asked = self.client.build_request(request.method, url, headers=headers, content=content)
            response = await self.client.send(asked, stream=True)
        except httpx2.HTTPError as error:
            release()
            return PlainTextResponse(repr(error), 502)
        except BaseException:
            release()
            raise

        async def parts() -> AsyncGenerator[bytes]:
            try:
                async for part in response.aiter_raw():
                    yield part
            finally:
                release()
                await response.aclose()

        kept = {name: value for name, value in response.headers.items() if name not in HOP}
        return StreamingResponse(parts(), response.status_code, kept)

    async def _place(self) -> tuple[Revision, Pod] | None:
        while True:
            revision = self.active
            if revision is not None:
                for pod in revision.staying:
                    if pod.ready and pod.taken < pod.slots:
                        pod.taken += 1
                        return revision, pod
                slow = "holds requests while a pod goes" in self.runtime.faults
                if not (revision.pods if slow else revision.staying):
                    if "wakes no pod" in self.runtime.faults:
                        return None
                    self._start(revision)
            await asyncio.sleep(POLL_SECONDS)
