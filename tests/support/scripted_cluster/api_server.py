"""The API server, over HTTP and complete enough for the real kubectl: apply, wait, delete, logs, exec, port-forward."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Protocol
from urllib.parse import parse_qs, urlsplit

import yaml

from tests.support.scripted_cluster import spdy
from tests.support.scripted_cluster.discovery import discovery
from tests.support.scripted_cluster.objects import KINDS, Document, Objects, Place, place_of

VERSION = "v1.34.0"
WATCH_SECONDS = 0.05
INITIAL_EVENTS_END = {"annotations": {"k8s.io/initial-events-end": "true"}, "resourceVersion": "1"}
"""Of the bookmark after what is there when a watch begins, where it is asked for."""


class Pods(Protocol):
    """What runs in pods."""

    def port(self, namespace: str, pod: str) -> int: ...
    def logs(self, namespace: str, pod: str) -> str: ...
    def execute(self, namespace: str, pod: str, command: list[str]) -> tuple[int, bytes, bytes]: ...


@dataclass
class Request:
    """The path and query of a request, taken apart."""

    place: Place
    subresource: str
    query: dict[str, list[str]] = field(default_factory=dict)

    def option(self, name: str) -> str:
        return self.query.get(name, [""])[0]

    def selects(self, document: Document) -> bool:
        labels = document["metadata"].get("labels") or {}
        for term in filter(None, re.split(r",(?![^(]*\))", self.option("labelSelector"))):
            name, equal, value = term.replace("==", "=").partition("=")
            assert equal, f"only equality is known here: {term}"
            if labels.get(name) != value:
                return False
        for term in filter(None, self.option("fieldSelector").split(",")):
            name, _, value = term.partition("=")
            assert name == "metadata.name", term
            if document["metadata"]["name"] != value:
                return False
        return True


class NotFound(Exception):
    """No such path, or no such object."""


def parse(path: str, query: str) -> Request:
    found = re.fullmatch(r"/(?:api/(v1)|apis/([^/]+/[^/]+))/(.+)", path)
    if not found or (version := found[1] or found[2]) not in KINDS:
        raise NotFound(path)
    parts = found[3].split("/")
    namespace = ""
    if parts[0] == "namespaces" and len(parts) > 2:
        namespace, parts = parts[1], parts[2:]
    resource, name, subresource = [*parts, "", ""][:3]
    if resource not in [entry.partition("/")[0] for entry in KINDS[version]]:
        raise NotFound(path)
    return Request(Place(version, resource, namespace, name), subresource, parse_qs(query))


class ApiServer(ThreadingHTTPServer):
    """Serves `objects`, and what is in their pods."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, objects: Objects, pods: Pods) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.objects, self.pods = objects, pods
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.unknown: list[str] = []
        """Requests that are not served here."""
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def close(self) -> None:
        self.shutdown()
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Whoever asked has left: what a kubectl does that is ended."""

    def remove(self, place: Place) -> Document | None:
        if place.resource == "namespaces":
            for inner in self.objects.in_namespace(place.name):
                self.remove(inner)
        return self.objects.remove(place)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: ApiServer

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        if (found := discovery(parts.path, KINDS, VERSION)) is not None:
            return self.send(found)
        if "websocket" in self.headers.get("Upgrade", ""):  # kubectl then takes SPDY
            return self.fail(400, "BadRequest")
        return self.answer(self.read)

    def do_POST(self) -> None:
        if self.headers.get("Upgrade", "").startswith("SPDY"):
            return self.answer(self.upgrade)
        return self.answer(self.create)

    def do_PATCH(self) -> None:
        self.answer(self.patch)

    def do_DELETE(self) -> None:
        self.answer(self.delete)

    def answer(self, method: Callable[[Request], None]) -> None:
        parts = urlsplit(self.path)
        try:
            method(parse(parts.path, parts.query))
        except NotFound:
            if self.command != "GET":
                self.server.unknown.append(f"{self.command} {self.path}")
            self.fail(404, "NotFound")

    def read(self, request: Request) -> None:
        place = request.place
        if request.subresource == "log":
            return self.send_text(self.server.pods.logs(place.namespace, place.name))
        if request.option("watch") in ("true", "1"):
            return self.watch(request)
        if place.name:
            found = self.server.objects.get(place)
            if found is None:
                raise NotFound
            return self.send(found)
        with self.server.objects.lock:
            return self.send(
                {
                    "apiVersion": place.version,
                    "kind": f"{place.kind}List",
                    "metadata": {"resourceVersion": "1"},
                    "items": self.items(request),
                }
            )

    def items(self, request: Request) -> list[Document]:
        place = request.place
        found = self.server.objects.list(place.version, place.resource, place.namespace)
        return [item for item in found if request.selects(item)]

    def watch(self, request: Request) -> None:
        """Everything from the beginning, then what changes, until the client leaves or its time is over."""
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        seen: dict[str, Document] = {}
        first = True
        deadline = time.monotonic() + float(request.option("timeoutSeconds") or 300)
        while time.monotonic() < deadline:
            with self.server.objects.lock:
                now = {item["metadata"]["name"]: json.loads(json.dumps(item)) for item in self.items(request)}
            events = list(changes(seen, now))
            if first and request.option("sendInitialEvents") == "true":
                bookmark = {
                    "apiVersion": request.place.version,
                    "kind": request.place.kind,
                    "metadata": INITIAL_EVENTS_END,
                }
                events.append({"type": "BOOKMARK", "object": bookmark})
            first = False
            for event in events:
                line = json.dumps(event).encode() + b"\n"
                self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
                self.wfile.flush()
            seen = now
            time.sleep(WATCH_SECONDS)
        self.wfile.write(b"0\r\n\r\n")

    def create(self, request: Request) -> None:
        document = self.body()
        document["metadata"].setdefault("namespace", request.place.namespace)
        if not document["metadata"]["namespace"]:
            del document["metadata"]["namespace"]
        if self.server.objects.get(place_of(document)):
            return self.fail(409, "AlreadyExists")
        return self.send(self.server.objects.put(document), 201)

    def patch(self, request: Request) -> None:
        with self.server.objects.lock:
            old = self.server.objects.get(request.place)
            if old is None:
                raise NotFound
            self.send(self.server.objects.put(merged(old, self.body())))

    def delete(self, request: Request) -> None:
        if self.headers.get("Content-Length"):
            self.rfile.read(int(self.headers["Content-Length"]))
        removed = self.server.remove(request.place)
        if removed is None:
            raise NotFound
        self.send(removed)

    def upgrade(self, request: Request) -> None:
        place, pods = request.place, self.server.pods
        exec_ = request.subresource == "exec"
        protocol = "v4.channel.k8s.io" if exec_ else "portforward.k8s.io"
        self.send_response(101)
        self.send_header("Connection", "Upgrade")
        self.send_header("Upgrade", "SPDY/3.1")
        self.send_header("X-Stream-Protocol-Version", protocol)
        self.end_headers()
        self.close_connection = True
        if not exec_:
            return spdy.forward(self.rfile.read, self.connection, pods.port(place.namespace, place.name))

        def run() -> tuple[bytes, bytes, bytes]:
            status, output, errors = pods.execute(place.namespace, place.name, request.query["command"])
            cause = {"reason": "ExitCode", "message": str(status)}
            failure = {"status": "Failure", "reason": "NonZeroExitCode", "message": "", "details": {"causes": [cause]}}
            error = {"metadata": {}, **(failure if status else {"status": "Success"})}
            return json.dumps(error).encode(), output, errors

        return spdy.execute(self.rfile.read, self.connection, run)

    def body(self) -> Document:
        found: Document = yaml.safe_load(self.rfile.read(int(self.headers["Content-Length"])))
        return found

    def fail(self, code: int, reason: str) -> None:
        status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "code": code}
        self.send({**status, "message": f"{urlsplit(self.path).path}: {reason}"}, code)

    def send(self, document: Document, status: int = 200) -> None:
        with self.server.objects.lock:
            body = json.dumps(document).encode()
        self.send_bytes(body, "application/json", status)

    def send_text(self, text: str) -> None:
        self.send_bytes(text.encode(), "text/plain", 200)

    def send_bytes(self, body: bytes, kind: str, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


def changes(before: dict[str, Document], now: dict[str, Document]) -> Iterator[Document]:
    """Events of a watch."""
    for name, item in now.items():
        if name not in before:
            yield {"type": "ADDED", "object": item}
        elif item != before[name]:
            yield {"type": "MODIFIED", "object": item}
    for name, item in before.items():
        if name not in now:
            yield {"type": "DELETED", "object": item}


def merged(old: Any, patch: Any) -> Any:
    """RFC 7396. kubectl's strategic patches of the kinds that are changed here come to the same."""
    if not isinstance(patch, dict):
        return patch
    new = dict(old) if isinstance(old, dict) else {}
    for name, value in patch.items():
        if value is None:
            new.pop(name, None)
        else:
            new[name] = merged(new.get(name), value)
    return new
