"""scripts/top as a process, before a stub of web that writes down what it is asked."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Counter, start_http_server

from scripts.local import run_folder
from scripts.local.run_folder import RunFolder
from scripts.local.top import look as look_module
from scripts.local.top.__main__ import parse, show_once
from scripts.local.top.address import NotFound, find_address
from scripts.local.top.look import ANSWER_BYTES, Question, look
from tests.scripts.local.top.expositions import MODELS
from tests.support.processes import ROOT, free_port
from tests.support.waiting import SECONDS, wait_until


class StubWeb:
    """`/status` on one port; the metrics come from `prometheus_client`'s own server."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.keys: list[str | None] = []
        self.status = 200
        self.body = json.dumps({"models": MODELS}).encode()
        stub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                stub.asked.append(self.path)
                stub.keys.append(self.headers["Authorization"])
                self.send_response(stub.status)
                self.send_header("Content-Length", str(len(stub.body)))
                self.end_headers()
                with suppress(OSError):
                    self.wfile.write(stub.body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=[0.05], daemon=True)
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def web() -> Iterator[StubWeb]:
    stub = StubWeb()
    yield stub
    stub.close()


@pytest.fixture
def other_web() -> Iterator[StubWeb]:
    stub = StubWeb()
    yield stub
    stub.close()


@pytest.fixture(scope="module")
def metrics_url() -> Iterator[str]:
    registry = CollectorRegistry()
    Counter("shangcai_web_generation_tokens", "Tokens.", ["model"], registry=registry).labels("poet").inc(7)
    server, thread = start_http_server(0, "127.0.0.1", registry)
    yield f"http://127.0.0.1:{server.server_address[1]}/metrics"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(run_folder, "_SHARED", tmp_path)
    monkeypatch.delenv("PORT", raising=False)
    return tmp_path


def top(*flags: str) -> list[str]:
    return [sys.executable, "-m", "scripts.local.top", *flags]


def test_once_prints_plain_text_and_asks_web_alone(web: StubWeb, metrics_url: str) -> None:
    flags = ["--once", "--every", "0.1", "--url", web.url, "--metrics-url", metrics_url]
    ended = subprocess.run(top(*flags), cwd=ROOT, capture_output=True, text=True, timeout=SECONDS)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "\x1b" not in ended.stdout
    assert re.search(r"^poet +ready", ended.stdout, re.MULTILINE)
    assert re.search(r"^painter +asleep", ended.stdout, re.MULTILINE)
    assert set(web.asked) == {"/status"}


def test_without_a_run_one_line_says_so() -> None:
    """In the place of /tmp, where others may run one."""
    code = "import sys; from scripts.local import run_folder; from pathlib import Path;"
    code += "run_folder._SHARED = Path('/nonexistent'); from scripts.local.top.__main__ import main; sys.exit(main())"
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=SECONDS)
    assert ended.returncode == 1
    assert ended.stderr == "scripts/top: no scripts/run is running; --url says where web is\n"


def test_the_key_is_sent_to_web_and_not_to_its_metrics(
    web: StubWeb, monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    monkeypatch.setenv("SHANGCAI_KEY", "shangcai_x")
    look(web.url, f"{web.url}/metrics")
    assert dict(zip(web.asked, web.keys, strict=True)) == {"/status": "Bearer shangcai_x", "/metrics": None}


def test_a_key_that_no_header_can_hold_is_not_repeated(
    web: StubWeb, metrics_url: str, monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    monkeypatch.setenv("SHANGCAI_KEY", "shangcai_x\r\n")
    assert look(web.url, metrics_url).troubles == [
        "web does not say how its models are: SHANGCAI_KEY holds what no header can"
    ]


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (401, b"{}", "web does not say how its models are: status 401; SHANGCAI_KEY may hold a caller's key"),
        (200, b"<html>", "web does not say how its models are: what answers is not web"),
        (200, b"[]", "web does not say how its models are: what answers is not web"),
        (200, b" " * (ANSWER_BYTES + 1), "web does not say how its models are: the answer is longer than 4 MiB"),
    ],
)
def test_what_web_answers_wrongly_is_said(
    web: StubWeb, metrics_url: str, home: Path, status: int, body: bytes, said: str
) -> None:
    web.status, web.body = status, body
    found = look(web.url, metrics_url)
    assert (list(found.models), list(found.troubles)) == ([], [said])
    assert found.exposition is not None
    assert found.exposition.total("shangcai_web_generation_tokens_total", model="poet") == 7


@pytest.mark.parametrize("body", [b"", b"<html>\nis none\n</html>", b"# TYPE", b"up 1\n", b"\xff"])
def test_what_is_not_webs_metrics_is_said_in_one_line(
    web: StubWeb, other_web: StubWeb, home: Path, body: bytes
) -> None:
    other_web.body = body
    found = look(web.url, f"{other_web.url}/metrics")
    assert found.exposition is None
    assert found.troubles == [f"no metrics at {other_web.url}/metrics: what answers is not web's metrics"]


def test_both_are_asked_at_once(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    """Neither question has an answer before the other one is asked."""
    both = threading.Barrier(2)
    monkeypatch.setattr(look_module, "_answer", lambda *_: f"asked with {both.wait(SECONDS)} to come")
    assert look("http://x", "http://x/metrics").troubles == [
        "web does not say how its models are: what answers is not web",
        "no metrics at http://x/metrics: what answers is not web's metrics",
    ]


def test_a_web_that_is_silent_is_said_to_be_once(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setattr(look_module, "ANSWER_SECONDS", 0.3)
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        found = look(url, f"{url}/metrics")
    assert found.troubles == [f"neither web nor its metrics at {url}/metrics can be read: timed out"]


def test_an_answer_that_drips_is_not_waited_for() -> None:
    gone = threading.Event()
    asked = Question(lambda: gone.wait(SECONDS))
    assert asked.answer(0) == (None, "timed out")
    gone.set()
    assert asked.answer(time.monotonic() + SECONDS) == (True, None)


@pytest.mark.parametrize("wrong", ["web", "metrics"])
def test_once_ends_with_1_where_either_could_not_be_read(
    web: StubWeb, metrics_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], wrong: str
) -> None:
    gone = f"http://127.0.0.1:{free_port()}"
    urls = ["--url", gone if wrong == "web" else web.url, "--metrics-url", gone if wrong == "metrics" else metrics_url]
    monkeypatch.setattr(sys, "argv", ["scripts/top", "--once", "--every", "3600", *urls])  # one look is enough
    assert show_once(parse()) == 1
    assert capsys.readouterr().out.count("Connection refused") == 1


def test_where_web_is_comes_from_the_run_of_this_user(home: Path) -> None:
    with pytest.raises(NotFound, match="no scripts/run is running"):
        find_address(None, None)
    model = {"slots": 4}
    folders = []
    for port in (8080, 8090, 8091):
        folder = RunFolder(port)
        assert folder.hold()
        folders.append((folder, folder.open_notices(0)))
        state = {"port": port, "metrics_url": f"http://127.0.0.1:1{port}/metrics", "models": {"poet": model, "x": {}}}
        assert folder.write(state)

    usual = find_address(None, None)
    assert (usual.url, usual.metrics_url) == ("http://127.0.0.1:8080", "http://127.0.0.1:18080/metrics")
    assert usual.slots == {"poet": 4}
    assert find_address("localhost:8090/", None).metrics_url == "http://127.0.0.1:18090/metrics"
    assert find_address("http://elsewhere/x/", None).metrics_url == "http://elsewhere:9464/metrics"

    for folder, notices in folders[:1]:
        notices.close()
        folder.release()
    with pytest.raises(NotFound, match="on the ports 8090, 8091; "):
        find_address(None, None)
    for folder, notices in folders[1:]:
        notices.close()
        folder.release()


class Terminal:
    """scripts/top in a terminal of its own."""

    def __init__(self, *flags: str) -> None:
        self.end, inner = pty.openpty()
        self.process = subprocess.Popen(
            top(*flags),
            cwd=ROOT,
            stdin=inner,
            stdout=inner,
            stderr=inner,
            env={**os.environ, "TERM": "xterm"},
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # so that it has Ctrl-C
        )
        os.close(inner)
        self.shown = ""
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self) -> None:
        with suppress(OSError):  # it has ended
            while chunk := os.read(self.end, 65536):
                self.shown += chunk.decode(errors="replace")

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self.reader.join()
        os.close(self.end)


@pytest.fixture
def terminal() -> Iterator[Callable[..., Terminal]]:
    opened: list[Terminal] = []

    def start(*flags: str) -> Terminal:
        opened.append(Terminal(*flags))
        return opened[-1]

    yield start
    for one in opened:
        one.close()


@pytest.mark.parametrize("how", ["q", "Ctrl-C", "SIGTERM"])
def test_it_ends_cleanly_and_leaves_the_terminal_as_it_was(
    web: StubWeb, metrics_url: str, terminal: Callable[..., Terminal], how: str
) -> None:
    one = terminal("--every", "60", "--url", web.url, "--metrics-url", metrics_url)
    wait_until(lambda: "painter" in one.shown)
    if how == "SIGTERM":
        one.process.send_signal(signal.SIGTERM)
    else:
        os.write(one.end, b"q" if how == "q" else b"\x03")
    assert one.process.wait(SECONDS) == 0
    wait_until(lambda: "\x1b[?1049l" in one.shown, "the other screen is left")
    assert "Traceback" not in one.shown


def test_a_web_that_is_away_is_looked_for_again(terminal: Callable[..., Terminal], metrics_url: str) -> None:
    gone = f"http://127.0.0.1:{free_port()}"
    one = terminal("--every", "0.1", "--url", gone, "--metrics-url", metrics_url)
    wait_until(lambda: one.shown.count("Connection refused") > 2)
    assert one.process.poll() is None
