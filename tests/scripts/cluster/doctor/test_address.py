"""scripts/doctor --url: what it prints for an address that works, is asleep, breaks off, or is something else."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.support.processes import free_port

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[4]
LIMIT = 120.0

Answer = tuple[int, str, bytes]
Serve = Callable[..., str]


def doctor(url: str, *flags: str) -> subprocess.CompletedProcess[str]:
    command = [str(ROOT / "scripts" / "doctor"), "--url", url, *flags]
    return subprocess.run(command, capture_output=True, text=True, timeout=LIMIT)


def stream(*events: tuple[str, dict[str, Any]]) -> Answer:
    text = "".join(f"event: {name}\ndata: {json.dumps(data)}\n\n" for name, data in events)
    return 200, "text/event-stream", text.encode()


def problem(status: int, **members: Any) -> Answer:
    return status, "application/problem+json", json.dumps({"status": status, **members}).encode()


def document(value: object) -> Answer:
    return 200, "application/json", json.dumps(value).encode()


PASSING: dict[str, Answer] = {
    "/healthz": document({"status": "ok"}),
    "/": document({"models": [{"name": "bard", "kind": "text"}, {"name": "brush", "kind": "image"}]}),
    "/openapi.json": document({"openapi": "3.1.0", "paths": {"/generate": {}}}),
    "text": document({"text": "春雨\n如酒"}),
    "stream": stream(
        ("status", {"state": "asleep"}),
        ("status", {"state": "running"}),
        ("token", {"text": "春"}),
        ("token", {"text": "雨"}),
        ("result", {"text": "春雨"}),
    ),
    "picture": (200, "image/png", b"\x89PNG and so on"),
    "mistake": problem(400, errors=[{"field": "prompt"}, {"field": "tone"}]),
}


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts a server that answers by path, or by the kind of request to /generate, and gives its address."""
    servers: list[ThreadingHTTPServer] = []

    def start(answers: dict[str, Answer], wanted: str | None = None) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send(self.path)

            def do_POST(self) -> None:
                asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                kind = "mistake" if "tone" in asked else "stream" if asked.get("stream") else "text"
                self.send("picture" if self.headers["Accept"] == "image/png" else kind)

            def send(self, name: str) -> None:
                status, media_type, body = answers[name]
                if self.headers["Authorization"] != wanted and name not in ("/", "/healthz", "/openapi.json"):
                    status, media_type, body = problem(401, title="no key")
                if self.headers["Host"] == "nobody":
                    status, media_type, body = 404, "text/plain", b""
                self.send_response(status)
                self.send_header("Content-Type", media_type)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None: ...

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_each_check_that_passes_is_one_line_with_its_time(serve: Serve) -> None:
    ended = doctor(serve(PASSING))
    assert (ended.returncode, ended.stderr) == (0, "")
    patterns = [
        r"health: 200 after \d+\.\d\d s",
        r"models: bard \(text\), brush \(image\)",
        r"openapi: OpenAPI 3\.1\.0, 1 paths",
        r"text: \d+\.\d\d s: 春雨 如酒",
        r"stream: asleep \d.* s → running .* s → token .* s → result .* s; 2 tokens",
        r"picture: \d+\.\d\d s: a PNG of 14 bytes",
        r"mistake: 400 that names prompt and tone",
    ]
    for line, pattern in zip(ended.stdout.splitlines(), patterns, strict=True):
        assert re.fullmatch(r"ok     " + pattern, line)


def test_a_key_is_sent_where_there_is_one(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    url = serve(PASSING, "Bearer shangcai_x")
    refused = doctor(url)
    assert refused.returncode == 1
    assert "no key" in refused.stdout
    monkeypatch.setenv("SHANGCAI_KEY", "shangcai_x")
    assert doctor(url).returncode == 0


@pytest.mark.parametrize(
    ("name", "answer", "said"),
    [
        ("/", document({"hello": "world"}), "models: GET / does not list models: is this Shangcai's web?"),
        ("/openapi.json", document({"paths": {}}), "openapi: /openapi.json does not describe /generate"),
        ("text", problem(503, detail="the model is loading"), "not 200: the model is loading"),
        ("text", document({"text": ""}), "text: the text is empty"),
        ("text", (200, "text/html", b"<html>"), "text: status 200 and no JSON: b'<html>'"),
        ("stream", stream(("status", {"state": "queued"})), "stream: the stream breaks off after"),
        ("stream", stream(("result", {"text": ""})), "stream: the stream has no token"),
        ("stream", stream(("error", {"title": "Full", "detail": "later"})), "stream: the stream ends with Full: later"),
        ("stream", problem(504, title="Too slow"), "not 200: Too slow"),
        ("picture", (200, "image/png", b"GIF"), "picture: 3 bytes that are no PNG"),
        ("mistake", document({"text": "春"}), "status 200 after"),
        ("mistake", problem(400, errors=[{"field": "prompt"}]), "the 400 does not name prompt and tone but {'prompt'}"),
    ],
)
def test_a_check_that_fails_is_one_line_and_the_others_still_run(
    serve: Serve, name: str, answer: Answer, said: str
) -> None:
    ended = doctor(serve({**PASSING, name: answer}))
    assert (ended.returncode, ended.stderr) == (1, "")
    [line] = [line for line in ended.stdout.splitlines() if line.startswith("wrong ")]
    assert said in line
    assert name == "/" or len(ended.stdout.splitlines()) == 7


def test_a_picture_is_asked_for_only_if_a_model_draws(serve: Serve) -> None:
    ended = doctor(serve({**PASSING, "/": document({"models": [{"name": "bard", "kind": "text"}]})}))
    assert ended.returncode == 0
    assert "picture" not in ended.stdout


def test_the_host_header_can_be_given(serve: Serve) -> None:
    url = serve(PASSING)
    assert doctor(url, "--host", "web.shangcai.example").returncode == 0
    ended = doctor(url, "--host", "nobody")
    assert (ended.returncode, ended.stdout) == (1, "wrong  health: status 404\n")


def test_a_closed_port_is_one_line_after_the_timeout() -> None:
    port = free_port()
    ended = doctor(f"http://127.0.0.1:{port}", "--timeout", "1")
    assert (ended.returncode, ended.stderr) == (1, "")
    [line] = ended.stdout.splitlines()
    assert line.startswith(f"wrong  health: 127.0.0.1:{port} cannot be reached: ")


def test_a_silent_server_is_one_line_after_the_timeout() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ended = doctor(f"http://127.0.0.1:{listener.getsockname()[1]}", "--timeout", "1")
    [line] = ended.stdout.splitlines()
    assert "cannot be reached: timed out" in line


def test_a_cold_start_is_waited_for(serve: Serve) -> None:
    answers = {**PASSING, "/healthz": problem(503)}
    url = serve(answers)
    command = [str(ROOT / "scripts" / "doctor"), "--url", url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        threading.Timer(1.0, lambda: answers.update(PASSING)).start()
        assert process.stdout.readline().startswith("ok     health: 200")


def test_the_embedded_models_pass() -> None:
    port = free_port()
    run = subprocess.Popen(
        [ROOT / "scripts" / "run", "--port", str(port)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        assert run.stdout
        printed = []
        for line in run.stdout:
            printed.append(line)
            if "Ctrl-C stops it" in line:
                break
        assert run.poll() is None, printed
        ended = doctor(f"http://127.0.0.1:{port}")
        assert (ended.returncode, len(ended.stdout.splitlines())) == (0, 7), ended.stdout
    finally:
        run.terminate()
        run.wait(60)
        assert run.stdout
        run.stdout.close()
