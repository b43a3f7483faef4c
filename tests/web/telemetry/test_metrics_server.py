"""Metrics have a port of their own."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator

import httpx2
import pytest
from prometheus_client.metrics import MetricWrapperBase

from tests.support.processes import ROOT, free_port, listening
from web import metrics
from web.settings import Settings
from web.telemetry.metrics_server import serve_metrics

Run = Callable[..., "subprocess.Popen[str]"]

MODELS = json.dumps({"poet": "http://127.0.0.1:9"})
LIMIT = 20.0


@pytest.fixture
def run() -> Iterator[Run]:
    """Starts web with a port for metrics."""
    processes: list[subprocess.Popen[str]] = []

    def start(port: int) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "web", "--host", "127.0.0.1", "--port", "0", "--metrics-port", str(port)],
            cwd=ROOT,
            env={"PATH": os.environ["PATH"], "MODELS": MODELS},
            stderr=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(
    ("in_pod", "given", "served"),
    [(False, None, None), (True, None, 9464), (True, 0, None), (True, 9000, 9000), (False, 9000, 9000)],
)
def test_the_port_is_open_in_a_pod_and_elsewhere_where_it_is_set(
    monkeypatch: pytest.MonkeyPatch, in_pod: bool, given: int | None, served: int | None
) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    if in_pod:
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    settings = Settings(models={"poet": {"url": "http://poet.test"}}, callers="off", metrics_port=given)
    assert settings.open_metrics_port == served


async def test_there_are_none_where_the_clients_are(web: Callable[..., httpx2.AsyncClient]) -> None:
    assert (await web().get("/metrics")).status_code == 404


def test_a_port_in_use_is_one_clear_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"^port {port} on 127.0.0.1, for metrics, is in use$"):
            serve_metrics("127.0.0.1", port)


@pytest.mark.slow
def test_a_server_shows_all_its_metrics(run: Run) -> None:
    port = free_port()
    url = listening(run(port))
    with httpx2.Client(trust_env=False, timeout=LIMIT) as client:
        assert client.get(f"{url}/metrics").status_code == 404
        assert client.get(f"{url}/status").status_code == 200
        shown = client.get(f"http://127.0.0.1:{port}/metrics").text
    names = [metric._name for metric in vars(metrics).values() if isinstance(metric, MetricWrapperBase)]
    assert len(names) >= 40
    lines = shown.splitlines()
    missing = [name for name in names if not any(line.startswith(f"# HELP {name}") for line in lines)]
    assert missing == []
    assert 'shangcai_web_requests_total{model="",route="/status",status_class="2xx"} 1.0' in lines
    assert 'shangcai_web_num_requests_running{model="poet"} 0.0' in lines
    assert 'shangcai_web_jobs{model="poet",state="queued"} 0.0' in lines
    assert 'shangcai_web_model_state{model="poet",state="unknown"} 1.0' in lines
    assert "shangcai_web_picture_bytes 0.0" in lines
    assert any(line.startswith("shangcai_web_store_most_bytes 2.6") for line in lines)


@pytest.mark.slow
def test_a_port_in_use_ends_the_start(run: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        process = run(port)
        _, err = process.communicate(timeout=LIMIT)
    assert (process.returncode, err) == (1, f"web: port {port} on 127.0.0.1, for metrics, is in use\n")
