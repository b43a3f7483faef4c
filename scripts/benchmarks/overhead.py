"""What the servers and events add to the time of one short text."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from contract.cloudevents import COMPLETED, JSON, REQUESTED, CloudEvent
from scripts.benchmarks.contenders import generate, load, on_own_thread
from scripts.benchmarks.request_shapes import CHAT, GENERATE, RequestShape, prompt
from scripts.benchmarks.servers import Server, start_predictor, start_server, start_web
from scripts.loopback_http import client
from wire.cloudevents import write_event

SHORT = 8
"""Tokens of a text."""

TEXTS = 200
WARM_UP_TEXTS = 10
SLOTS = 8


def measure_rest(model: Path, dtype: str) -> None:
    """One text at a time: bare `generate`, the predictor, and web in front of it."""
    bare = on_own_thread(lambda: _time_generate(model, dtype))
    with start_predictor(model, dtype, SLOTS) as predictor, start_web(predictor.url) as web, client() as http:
        found = {
            "generate": bare,
            "predictor": _quantiles(lambda number: _post(http, predictor, CHAT, number)),
            "web": _quantiles(lambda number: _post(http, web, GENERATE, number)),
        }
    print(f"overhead: p50/p99 of {TEXTS} texts of {SHORT} tokens, one at a time: {_line(found)} ms", flush=True)


def measure_events(model: Path, dtype: str) -> None:
    """One text at a time, by REST and by events. For web in events mode, the sink is the predictor itself."""
    with start_predictor(model, dtype, SLOTS) as predictor, start_web(predictor.url) as web:
        flags = ["--dispatch", "events", "--k-sink", predictor.url, "--models", json.dumps({"m": {"kind": "text"}})]
        with start_server("web", flags, "/healthz") as web_by_events, client() as http:
            found = {
                "predictor, REST": _quantiles(lambda number: _post(http, predictor, CHAT, number)),
                "predictor, event": _quantiles(lambda number: _send_event(http, predictor, number)),
                "web, REST": _quantiles(lambda number: _post(http, web, GENERATE, number)),
                "web, events": _quantiles(lambda number: _post(http, web_by_events, GENERATE, number)),
            }
    print(f"events: p50/p99 of texts of {SHORT} tokens, one at a time: {_line(found)} ms", flush=True)


def _time_generate(model: Path, dtype: str) -> tuple[float, float]:
    checkpoint = load(model, dtype)
    return _quantiles(lambda _: generate(checkpoint, [SHORT]))


def _post(http: httpx.Client, server: Server, shape: RequestShape, number: int) -> None:
    http.post(server.url + shape.path, json=shape.body(number, SHORT, False)).raise_for_status()


def _send_event(http: httpx.Client, server: Server, number: int) -> None:
    request: dict[str, Any] = {"prompt": prompt(number), "max_tokens": SHORT}
    event = CloudEvent(id=f"bench-{number}", source="urn:shangcai:bench", type=REQUESTED, datacontenttype=JSON)
    headers, body = write_event(event.model_copy(update={"data": json.dumps(request).encode()}))
    answer = http.post(server.url + "/", headers=headers, content=body).raise_for_status()
    assert answer.headers["ce-type"] == COMPLETED


def _quantiles(work: Callable[[int], None]) -> tuple[float, float]:
    """p50 and p99 of the seconds that it takes, after a warm-up; `work` is given a number."""
    seconds = []
    for number in range(WARM_UP_TEXTS + TEXTS):
        begun = time.perf_counter()
        work(number)
        seconds.append(time.perf_counter() - begun)
    cuts = statistics.quantiles(seconds[WARM_UP_TEXTS:], n=100)
    return cuts[49], cuts[98]


def _line(found: dict[str, tuple[float, float]]) -> str:
    return ", ".join(f"{name} {1e3 * p50:.1f}/{1e3 * p99:.1f}" for name, (p50, p99) in found.items())
