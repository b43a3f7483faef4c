"""A model hub on 127.0.0.1, as far as transformers and diffusers use one: for HF_ENDPOINT."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"
"""The only revision of every model, beside `main`."""


@dataclass
class FakeHub:
    """Folders as models by their ids; `asked` has the method and path of every request."""

    models: Mapping[str, Path]
    url: str = ""
    asked: list[str] = field(default_factory=list)

    def find(self, path: str) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body for a path of the hub."""
        parts = path.partition("?")[0].strip("/").split("/")
        is_api = parts[:2] == ["api", "models"]
        owner, name, *rest = parts[2:] if is_api else parts
        folder = self.models.get(f"{owner}/{name}")
        if folder is None:
            return 401, {"X-Error-Code": "RepoNotFound"}, b"{}"
        if is_api:
            files = sorted(one for one in folder.rglob("*") if one.is_file())
            names = [str(one.relative_to(folder)) for one in files]
            if "tree" in rest:
                rows = [self._row(one, path) for one, path in zip(files, names, strict=True)]
                return 200, {"Content-Type": "application/json"}, json.dumps(rows).encode()
            model = {"id": f"{owner}/{name}", "modelId": f"{owner}/{name}", "sha": COMMIT, "tags": [], "private": False}
            document = model | {"siblings": [{"rfilename": one} for one in names]}
            return 200, {"Content-Type": "application/json"}, json.dumps(document).encode()
        if rest[1] not in ("main", COMMIT):
            return 404, {"X-Error-Code": "RevisionNotFound"}, b""
        headers = {"X-Repo-Commit": COMMIT}
        file = folder.joinpath(*rest[2:])
        if not file.is_file():
            return 404, headers | {"X-Error-Code": "EntryNotFound"}, b""
        body = file.read_bytes()
        return 200, headers | {"ETag": f'"{hashlib.sha1(body).hexdigest()}"'}, body

    def _row(self, file: Path, path: str) -> dict[str, object]:
        return {"type": "file", "path": path, "size": file.stat().st_size, "oid": "0" * 40}


@contextmanager
def serve(models: Mapping[str, Path]) -> Iterator[FakeHub]:
    """A hub with these models, for as long as the context is open."""
    hub = FakeHub(models)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            hub.asked.append(f"{self.command} {self.path}")
            status, headers, body = hub.find(self.path)
            self.send_response(status)
            for name, value in (headers | {"Content-Length": str(len(body))}).items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        hub.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield hub
        server.shutdown()
