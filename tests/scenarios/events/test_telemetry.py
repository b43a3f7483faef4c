"""Real processes: where the time of a request went, found by its id at a collector of traces and in the logs."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx2
import pytest

from tests.support.waiting import wait_until
from tests.support.wire.collector import CollectedSpan, Collector, collecting

pytestmark = pytest.mark.slow

Start = Callable[..., Any]
CHUNKS = (
    '{"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]}',
    '{"choices": [{"index": 0, "delta": {"content": "whole"}, "finish_reason": "stop"}]}',
    '{"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}}',
    "[DONE]",
)
SECRETS = ("prompt-persimmon", "key-persimmon", "query-persimmon")


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as collector:
        yield collector


def lines(process: Any, request_id: str) -> list[dict[str, Any]]:
    """What a process has logged of a request and its jobs: the lines that have its seconds."""
    found = [json.loads(line) for line in process.log.splitlines() if line.startswith("{")]
    return [line for line in found if line.get("request_id") == request_id and "seconds" in line]


def line_of(process: Any, request_id: str, **members: Any) -> dict[str, Any]:
    def matching() -> list[dict[str, Any]]:
        return [line for line in lines(process, request_id) if members.items() <= line.items()]

    [line] = wait_until(matching, f"a line of {request_id} with {members}")
    return line


def assert_adds_up(line: dict[str, Any]) -> None:
    assert sum(line["phases"].values()) == pytest.approx(line["seconds"], rel=0.05, abs=0.005)


def collected(collector: Collector, request_id: str, name: str, service: str) -> list[CollectedSpan]:
    def found() -> list[CollectedSpan]:
        return [span for span in collector.of_request(request_id) if (span.name, span.service) == (name, service)]

    return wait_until(found, f"a span {name} of {request_id} from {service}")


def test_a_request_that_wakes_its_model_is_found(
    collector: Collector, start_web: Start, start_predictor: Start
) -> None:
    told = {"LOG_FORMAT": "json", "PREDICTOR_LOG_FORMAT": "json", **collector.variables}
    predictor = start_predictor("--name", "poet", wait=False, **told)
    web = start_web({"poet": predictor.url}, **told)
    wait_until(lambda: port_open(predictor.url), "the predictor's port is open")
    answer = httpx2.post(
        f"{web.url}/generate?token={SECRETS[2]}",
        json={"prompt": SECRETS[0], "max_tokens": 8, "stream": True},
        headers={"X-Request-Id": "woke", "Authorization": f"Bearer {SECRETS[1]}"},
        timeout=120,
        trust_env=False,
    )
    assert "event: result" in answer.text
    line = line_of(web, "woke", route="/generate")
    assert_adds_up(line)
    assert max(line["phases"], key=line["phases"].__getitem__) == "wake"
    assert (line["status"], line["model"], line["completion_tokens"]) == (200, "poet", 8)
    of_predictor = line_of(predictor, "woke", status=200)
    assert of_predictor["trace_id"] == line["trace_id"]
    assert_adds_up(of_predictor)
    [generation] = collected(collector, "woke", "generate poet", "shangcai-web")
    assert generation.trace_id == line["trace_id"]
    phases = {span.name: span.seconds for span in collector.under(generation)}
    assert sum(phases.values()) == pytest.approx(generation.seconds, rel=0.05)
    assert phases["wake"] == pytest.approx(line["phases"]["wake"], rel=0.05)
    assert collected(collector, "woke", "generate poet", "shangcai-predictor")
    everything = f"{web.log}{predictor.log}{collector.spans}"
    assert not [secret for secret in SECRETS if secret in everything]


def test_a_job_that_another_replica_goes_on_with_links_to_its_first_span(
    collector: Collector, start_web: Start, redis_server: Any
) -> None:
    told = {"STORE_URL": redis_server.url, "LOG_FORMAT": "json", "GRACE_SECONDS": "3", **collector.variables}
    with hanging() as model:
        first = start_web({"poet": model.url}, **told)
        made = httpx2.post(
            f"{first.url}/generate",
            json={"prompt": "雨"},
            headers={"X-Request-Id": "resumed", "Prefer": "respond-async"},
            trust_env=False,
        ).json()
        wait_until(lambda: model.asked == 1, "the model is asked")
        second = start_web({"poet": model.url}, **told)
        first.process.send_signal(signal.SIGTERM)
        assert first.process.wait(60) == 0
        model.answers.set()
        line = line_of(second, "resumed", status="completed")
    assert line["job_id"] == made["id"]
    assert_adds_up(line)
    assert line_of(first, "resumed", status="queued")["trace_id"] == line["trace_id"]
    [request] = collected(collector, "resumed", "POST /generate", "shangcai-web")

    def resumed() -> list[CollectedSpan]:  # the end of the first replica may have lost the span of its own run
        return [span for span in collector.of_request("resumed") if span.name == "job poet" and span.links]

    [run] = wait_until(resumed, "the span of the second run")
    assert run.links == [request.span_id]
    assert run.trace_id == request.trace_id == line["trace_id"]


def port_open(url: str) -> bool:
    try:
        httpx2.get(f"{url}/v2/health/live", trust_env=False)
    except httpx2.TransportError:
        return False
    return True


class Hanging(ThreadingHTTPServer):
    """A model server that answers once `answers` is set, and no earlier."""

    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.answers = threading.Event()
        self.asked = 0


class _Handler(BaseHTTPRequestHandler):
    server: Hanging

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked += 1
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        beginning, *rest = [f"data: {chunk}\n\n".encode() for chunk in CHUNKS]
        self.wfile.write(beginning)
        self.wfile.flush()
        self.server.answers.wait(120)
        for chunk in rest:
            self.wfile.write(chunk)

    def log_message(self, *_: Any) -> None:
        pass

    def handle(self) -> None:
        with suppress(ConnectionError):  # its client has ended
            super().handle()


@contextmanager
def hanging() -> Iterator[Hanging]:
    with Hanging() as model:
        thread = threading.Thread(target=model.serve_forever)
        thread.start()
        try:
            yield model
        finally:
            model.answers.set()
            model.shutdown()
            thread.join()
