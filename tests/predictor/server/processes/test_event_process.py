"""Events and `python -m predictor` as a process, with everything that it can be given for them."""

from __future__ import annotations

import json
import re
import signal
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx2
import pytest

from contract import TextResult
from contract.cloudevents import ACCEPTED, COMPLETED, PROGRESS, REQUESTED, CloudEvent
from wire.cloudevents import read_events, write_event

pytestmark = pytest.mark.slow


@pytest.fixture
def sink() -> Iterator[tuple[str, list[CloudEvent]]]:
    """An address that takes events, and what it has taken."""
    taken: list[CloudEvent] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            taken.extend(read_events({name.lower(): value for name, value in self.headers.items()}, body).events)
            self.send_response(202)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}", taken
        server.shutdown()


def send(url: str, **changes: Any) -> CloudEvent:
    """Have a text written; the reply."""
    order = {"prompt": "moon", "max_tokens": 40, "temperature": 0}
    event = CloudEvent(
        **{"id": "1", "source": "/test", "type": REQUESTED, "subject": "job-1"} | changes,
        datacontenttype="application/json",
        data=json.dumps(order).encode(),
    )
    headers, content = write_event(event)
    answer = httpx2.post(url, headers=headers, content=content, timeout=60)
    assert answer.status_code == 200, answer.text
    [reply] = read_events(answer.headers, answer.content).events
    return reply


def test_replicas_share_replies_results_and_what_they_announce(
    start_predictor: Any, redis_server: Any, sink: tuple[str, list[CloudEvent]], tmp_path: Path
) -> None:
    url, announced = sink
    flags = (
        *("--store-url", redis_server.url, "--artifacts-url", f"file://{tmp_path}/artifacts", "--event-bytes", "300"),
        *("--progress-events", "--k-sink", url, "--k-ce-overrides", '{"extensions": {"cluster": "one"}}'),
        *("--event-source", "/tiny"),
    )
    one, other = start_predictor(*flags), start_predictor(*flags)
    for predictor in (one, other):
        predictor.wait_ready()

    reply = send(one.url)
    again = send(f"{other.url}/v1/models/tiny:predict")

    assert again == reply
    assert (reply.type, reply.source, reply.subject, reply.data) == (COMPLETED, "/tiny", "job-1", None)
    [file] = (tmp_path / "artifacts").iterdir()
    assert reply.extensions == {"causationid": "1", "dataref": f"file://{file}"}
    result = TextResult.model_validate_json(file.read_bytes())
    assert (result.model, result.usage.completion_tokens) == ("tiny", 40)
    metrics = httpx2.get(f"{other.url}/metrics", timeout=60).text
    assert 'shangcai_redeliveries_total{found="done"} 1.0' in metrics
    finished = re.findall(r"^shangcai_request_success_total\{.*\} (.*)$", metrics, re.MULTILINE)
    assert sum(map(float, finished)) == 1  # the warm-up

    def phases() -> list[str]:
        return [json.loads(event.data or b"")["phase"] for event in announced if not event.subject]

    one.wait_for(lambda: phases().count("ready") == 2, "the ends of loading")
    one.wait_for(lambda: ACCEPTED in [event.type for event in announced], "an announcement")
    for event in announced:
        assert event.type in (ACCEPTED, PROGRESS)
        assert (event.source, event.extensions["cluster"]) == ("/tiny", "one")
    for predictor in (one, other):
        assert predictor.end(signal.SIGTERM) == 0
        assert "Traceback" not in predictor.log()
        assert "HTTP Request" not in predictor.log()
