"""`python -m web` as an operator meets it."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import takewhile

import httpx2
import pytest
import redis

from tests.support.processes import ROOT, listening
from web.settings import Settings
from wire.settings import read_settings

pytestmark = pytest.mark.slow

MODELS = json.dumps({"poet": "http://127.0.0.1:9"})
LIMIT = 20.0

Run = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def run() -> Iterator[Run]:
    processes: list[subprocess.Popen[str]] = []

    def start(*arguments: str, **environment: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=ROOT,
            env={"PATH": os.environ["PATH"], **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def test_the_application_imports_nothing_heavy(run: Run) -> None:
    heavy = {"torch", "kserve", "fastapi", "transformers", "predictor", "numpy"}
    out, err = run("-c", f"import sys, web.app, web.__main__; print({heavy} & sys.modules.keys())").communicate()
    assert (out.strip(), err) == ("set()", "")


def test_a_newer_store_ends_the_start_with_one_line(run: Run, redis_client: redis.Redis, redis_url: str) -> None:
    redis_client.set("shangcai:schema", "2")
    process = run("-m", "web", "--port", "0", MODELS=MODELS, STORE_URL=redis_url)
    _, err = process.communicate(timeout=LIMIT)
    assert process.returncode == 1
    [line] = err.splitlines()
    assert line.startswith("web: store_url: what is stored there has the version '2'")


@pytest.mark.parametrize(
    ("environment", "arguments", "named"),
    [
        ({}, [], "models"),
        ({"MODELS": "poet"}, [], "models"),
        ({"MODELS": "{}"}, [], "models"),
        ({"MODELS": '{"poet": 3}'}, [], 'must be a base URL, or {"url": a base URL, "kind": "text" or "image"}'),
        ({"MODELS": '{"painter": {"url": "http://x", "kind": "images"}}'}, [], "'text' or 'image'"),
        ({"MODELS": '{"painter": {"kind": "image"}}'}, [], "models.painter.url: is required where dispatch is rest"),
        ({"MODELS": MODELS, "DISPATCH": "pigeon"}, [], "dispatch"),
        ({"MODELS": MODELS, "KUBERNETES_SERVICE_HOST": "10.0.0.1"}, [], "callers: is required in a pod"),
        ({"MODELS": MODELS, "STORE_URL": "mysql://x"}, [], "redis://"),
        ({"MODELS": MODELS, "K_CE_OVERRIDES": "[]"}, [], "extensions"),
        ({"MODELS": '{"painter": {"url": "http://x", "sort": "image"}}'}, [], "models.painter.sort"),
        ({"MODELS": '{"painter": {"url": "ftp://x"}}'}, [], "http"),
        (
            {"MODELS": '{"poet": {"url": "http://x", "match": "(poem"}}'},
            [],
            "models.poet.match: must be a regular expression in the syntax of Rust's regex: unclosed group",
        ),
        (
            {"MODELS": '{"poet": {"url": "http://x", "match": "(?!x)"}}'},
            [],
            "models.poet.match: must be a regular expression in the syntax of Rust's regex: look-around, including "
            "look-ahead and look-behind, is not supported",
        ),
        (
            {"MODELS": '{"poet": {"url": "http://x", "match": "(\\\\w{500}){500}"}}'},
            [],
            "models.poet.match: must be a regular expression in the syntax of Rust's regex: Compiled regex exceeds",
        ),
        ({"MODELS": '{"poet": {"url": "http://x", "match": ""}}'}, [], "models.poet.match: String should have"),
        ({}, ["--models", '{"painter": {"url": "http://x", "kind": "images"}}'], "'text' or 'image'"),
        ({"MODELS": '{"poet": "ftp://x"}'}, [], "http"),
        ({"MODELS": '{"poet": "http://user:secret@x"}'}, [], "password"),
        ({"MODELS": '{"poet": "http://x?y"}'}, [], "path"),
        ({"MODELS": MODELS, "PORT": "70000"}, [], "port"),
        ({"MODELS": MODELS}, ["--read-seconds", "0"], "read-seconds"),
        ({"MODELS": MODELS}, ["--body-bytes", "many"], "body-bytes"),
    ],
)
def test_wrong_settings_are_one_clear_line(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    environment: dict[str, str],
    arguments: list[str],
    named: str,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as ended:
        read_settings(Settings, arguments)
    assert ended.value.code == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("python -m web: ")
    assert named in line
    assert "secret" not in line


def test_wrong_settings_end_the_process_with_that_line(run: Run) -> None:
    process = run("-m", "web", "--read-seconds", "0", MODELS=MODELS)
    out, err = process.communicate(timeout=LIMIT)
    assert (process.returncode, out) == (2, "")
    assert err.startswith("python -m web: --read-seconds: ")
    assert len(err.splitlines()) == 1


def test_a_bad_file_of_keys_is_one_clear_line(run: Run) -> None:
    process = run(
        "-m",
        "web",
        "--port",
        "0",
        MODELS=MODELS,
        CALLERS="keys",
        CALLERS_FILE="/no/such/file",
    )
    assert process.communicate(timeout=LIMIT) == ("", "web: /no/such/file: No such file or directory\n")
    assert process.returncode == 1


def test_a_port_in_use_is_one_clear_line(run: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        process = run("-m", "web", "--host", "127.0.0.1", "--models", MODELS, PORT=port)
        _, err = process.communicate(timeout=LIMIT)
    assert process.returncode == 1
    assert err == f"web: port {port} on 127.0.0.1 is in use\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_serves_until_it_is_told_to_stop(run: Run, number: signal.Signals) -> None:
    process = run("-m", "web", "--host", "127.0.0.1", "--port", "0", MODELS=MODELS)
    url = listening(process)
    assert httpx2.get(f"{url}/healthz", trust_env=False).json() == {"status": "ok"}
    assert httpx2.get(f"{url}/readyz", trust_env=False).json() == {"status": "ready"}
    headers = {"X-Request-Timeout": "2"}  # or the model server would be asked again for a while
    answer = httpx2.post(f"{url}/generate", json={"prompt": "x"}, headers=headers, timeout=LIMIT, trust_env=False)
    assert answer.status_code == 503
    process.send_signal(number)
    _, err = process.communicate(timeout=LIMIT)
    assert process.returncode == 0
    assert "Traceback" not in err


def test_an_accepted_request_is_finished_after_sigterm(run: Run, stream: Callable[..., bytes]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as upstream:
        upstream.settimeout(LIMIT)
        models = json.dumps({"poet": f"http://127.0.0.1:{upstream.getsockname()[1]}"})
        process = run("-m", "web", "--host", "127.0.0.1", "--port", "0", MODELS=models)
        url = httpx2.URL(listening(process))
        with socket.create_connection((url.host, url.port or 0), timeout=LIMIT) as client:
            body = b'{"prompt": "x"}'
            client.sendall(
                b"POST /generate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
            )
            connection, _ = upstream.accept()
            process.send_signal(signal.SIGTERM)
            assert any("Waiting for connections to close" in line for line in process.stderr or ())
            with connection:
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n" + stream("whole"))
            answer = b"".join(iter(lambda: client.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b'"text":"whole"' in answer
    assert process.wait(LIMIT) == 0


def test_what_is_not_finished_in_the_grace_is_told_so(run: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as upstream:
        upstream.settimeout(LIMIT)
        models = json.dumps({"poet": f"http://127.0.0.1:{upstream.getsockname()[1]}"})
        process = run("-m", "web", "--host", "127.0.0.1", "--port", "0", "--grace-seconds", "3", MODELS=models)
        url = listening(process)
        with ThreadPoolExecutor() as pool:
            asked = pool.submit(httpx2.post, f"{url}/generate", json={"prompt": "x"}, timeout=LIMIT, trust_env=False)
            connection, _ = upstream.accept()
            with connection:
                process.send_signal(signal.SIGTERM)
                answer = asked.result(LIMIT)
    assert answer.status_code == 503
    assert answer.json()["detail"] == "The server is shutting down."
    _, err = process.communicate(timeout=LIMIT)
    assert process.returncode == 0
    assert "Traceback" not in err


def test_a_connection_is_kept_for_as_long_as_is_set(run: Run) -> None:
    url = httpx2.URL(
        listening(run("-m", "web", "--host", "127.0.0.1", "--port", "0", MODELS=MODELS, KEEP_ALIVE_SECONDS="1"))
    )
    with socket.create_connection((url.host, url.port or 0), timeout=LIMIT) as client:
        for _ in range(2):
            client.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            answer = b""
            while not answer.endswith(b'{"status":"ok"}'):
                answer += client.recv(65536)
        assert client.recv(65536) == b""
    assert Settings(models=json.loads(MODELS)).keep_alive_seconds == 75


def test_what_is_no_request_is_answered_in_the_words_of_its_path(run: Run) -> None:
    url = httpx2.URL(listening(run("-m", "web", "--host", "127.0.0.1", "--port", "0", MODELS=MODELS)))
    with socket.create_connection((url.host, url.port or 0), timeout=LIMIT) as client:
        client.sendall(b"GET /v1/models HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n\r\n")
        answer = b"".join(iter(lambda: client.recv(4096), b""))
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] == "not-implemented"


@pytest.mark.parametrize(("hop", "status"), [("127.0.0.1/32", 200), ("10.0.0.0/8", 401)])
def test_a_trusted_hop_is_the_other_end_of_the_connection(run: Run, hop: str, status: int) -> None:
    """And not whom an X-Forwarded-For names, which uvicorn's own middleware takes from everybody at 127.0.0.1."""
    names = {"CALLERS": "header", "TRUSTED_HOPS": json.dumps([hop])}
    url = listening(run("-m", "web", "--host", "127.0.0.1", "--port", "0", MODELS=MODELS, **names))
    headers = {"X-Forwarded-User": "alice", "X-Forwarded-For": "10.0.0.1"}
    assert httpx2.get(f"{url}/status", headers=headers, trust_env=False).status_code == status


def start_log(process: subprocess.Popen[str]) -> list[str]:
    """What it logs until it serves. All of it: what is read beyond a line is lost for `communicate`."""
    assert process.stderr
    return list(takewhile(lambda line: "startup complete" not in line, process.stderr))


def test_without_a_sink_it_runs_and_says_once_what_it_waits_for(run: Run) -> None:
    models = json.dumps({"poet": {"kind": "text"}})
    process = run("-m", "web", "--host", "127.0.0.1", "--port", "0", MODELS=models, DISPATCH="events")
    log = start_log(process)
    [port] = [found[1] for line in log if (found := re.search(r"listening on \S+ port (\d+),", line))]
    with httpx2.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=LIMIT) as client:
        for _ in range(3):
            assert client.get("/healthz").status_code == 200
            assert client.get("/readyz").status_code == 503
            refused = client.post("/generate", json={"prompt": "x"})
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=LIMIT)
    assert process.returncode == 0
    [line] = [line for line in [*log, *err.splitlines()] if "K_SINK" in line or "WARNING" in line]
    assert line.rstrip().endswith("not ready: requests go as events, and K_SINK, their address, is not set")


@pytest.mark.parametrize(("proof", "warnings"), [({}, 1), ({"PREDICTOR_TOKEN": "a-token-of-the-predictors"}, 0)])
def test_an_inbox_that_believes_everybody_says_so_once(run: Run, proof: dict[str, str], warnings: int) -> None:
    """As in deploy/laptop-events, and not as in deploy/events."""
    in_pod = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "METRICS_PORT": "0"}
    inbox = {"ROUTES": "inbox", "EVENTS_OPEN": "true", **in_pod, **proof}
    process = run("-m", "web", "--host", "127.0.0.1", "--port", "0", MODELS=MODELS, **inbox)
    started = start_log(process)
    process.send_signal(signal.SIGTERM)
    lines = [line for line in started if "WARNING" in line]
    assert any("listening on" in line for line in started)
    assert len(lines) == warnings
    assert all("events are open" in line for line in lines)


def test_a_full_web_is_alive(run: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as upstream:
        upstream.settimeout(LIMIT)
        models = json.dumps({"poet": f"http://127.0.0.1:{upstream.getsockname()[1]}"})
        url = listening(run("-m", "web", "--host", "127.0.0.1", "--port", "0", MODELS=models, MAX_CLIENTS="1"))
        with ThreadPoolExecutor() as pool, httpx2.Client(trust_env=False, timeout=LIMIT) as client:
            asked = pool.submit(httpx2.post, f"{url}/generate", json={"prompt": "x"}, timeout=LIMIT, trust_env=False)
            connection, _ = upstream.accept()
            for path in ("/healthz", "/readyz"):
                assert client.get(f"{url}{path}").status_code == 200
            refused = client.get(f"{url}/status")
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
            assert refused.json()["type"] == "urn:shangcai:problem:overloaded"
            with connection:
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
                assert asked.result(LIMIT).status_code == 400


def test_a_loop_that_cannot_go_on_ends_the_process_as_a_failure(run: Run) -> None:
    program = """
from web import __main__
from web.jobs import background_loops
from web.jobs.stores.memory_store import MemoryStore

async def overdue(self, now):
    raise RuntimeError("the handler is closed")

MemoryStore.overdue = overdue
background_loops.MOST_PAUSE_SECONDS = 0.01
__main__.main()
"""
    process = run("-c", program, "--host", "127.0.0.1", "--port", "0", MODELS=MODELS)
    _, err = process.communicate(timeout=LIMIT)
    assert process.returncode == 1
    assert "CRITICAL web.jobs.background_loops: the search for late jobs has failed 20 times in a row" in err
    assert err.count("Traceback") == 1


def test_help_names_every_setting(run: Run) -> None:
    out, _ = run("-m", "web", "--help").communicate(timeout=LIMIT)
    for name in Settings.model_fields:
        assert f"--{name.replace('_', '-')}" in out
    assert all(field.description for field in Settings.model_fields.values())
