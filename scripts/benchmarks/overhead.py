"""What the servers and events add to the time of one short text."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2

from contract.cloudevents import COMPLETED, JSON, REQUESTED, CloudEvent
from scripts.benchmarks.contenders import generate, load, on_own_thread
from scripts.benchmarks.peers.load import Load
from scripts.benchmarks.peers.load import measure as send
from scripts.benchmarks.request_shapes import CHAT, GENERATE, WEB_CHAT, RequestShape, prompt
from scripts.benchmarks.servers import Server, start_predictor, start_server, start_web
from scripts.loopback_http import client
from scripts.progress import tracked
from wire.cloudevents import write_event

SHORT = 8
"""Tokens of a text."""

TEXTS = 200
WARM_UP_TEXTS = 10
SLOTS = 8

CLIENTS = 16
"""That ask at once for one token each."""

ROUNDS = 3
"""Of one-token requests to each server, by turns; medians are printed."""


def measure_rest(model: Path, dtype: str) -> None:
    """One text at a time: bare `generate`, the predictor, and web in front of it."""
    bare = on_own_thread(lambda: _time_generate(model, dtype))
    with start_predictor(model, dtype, SLOTS) as predictor, start_web(predictor.url) as web, client() as http:
        found = {
            "generate": bare,
            "predictor": _quantiles(lambda number: _post(http, predictor, CHAT, number)),
            "web": _quantiles(lambda number: _post(http, web, GENERATE, number)),
            "web /v1": _quantiles(lambda number: _post(http, web, WEB_CHAT, number)),
        }
    print(f"overhead: p50/p99 of {TEXTS} texts of {SHORT} tokens, one at a time: {_line(found)} ms", flush=True)


def measure_one_token(model: Path, dtype: str) -> None:
    """Requests of one token: what the servers add to bare `generate` at one client, and how many they answer in a
    second at 16."""
    bare = on_own_thread(lambda: _time_generate(model, dtype, tokens=1)[0])
    with start_predictor(model, dtype, CLIENTS) as predictor, start_web(predictor.url) as web:
        servers = {"predictor": (predictor, CHAT), "web": (web, GENERATE), "web /v1": (web, WEB_CHAT)}
        alone: dict[str, list[float]] = {name: [] for name in servers}
        rates: dict[str, list[float]] = {name: [] for name in servers}
        for _ in tracked(range(1 + ROUNDS), "rounds"):
            for name, (server, shape) in servers.items():
                bodies = [shape.body(number, 1, False) for number in range(TEXTS)]
                port = httpx2.URL(server.url).port or 0
                alone[name].append(statistics.median(send(Load(port, shape.path, bodies, 1)).each))
                rates[name].append(TEXTS / send(Load(port, shape.path, bodies, CLIENTS)).seconds)
    lines = []
    for name in servers:
        p50, rate = statistics.median(alone[name][1:]), statistics.median(rates[name][1:])  # the first was to warm up
        lines.append(f"{name} {1e3 * p50:.1f} ms ({p50 / bare:.2f}) and at {CLIENTS} {rate:.0f}/s ({rate * bare:.2f})")
    print(
        f"one token, in brackets as a part of generate one by one: generate {1e3 * bare:.1f} ms, {', '.join(lines)}",
        flush=True,
    )


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


def _time_generate(model: Path, dtype: str, tokens: int = SHORT) -> tuple[float, float]:
    checkpoint = load(model, dtype)
    return _quantiles(lambda _: generate(checkpoint, [tokens]))


def _post(http: httpx2.Client, server: Server, shape: RequestShape, number: int) -> None:
    http.post(server.url + shape.path, json=shape.body(number, SHORT, False)).raise_for_status()


def _send_event(http: httpx2.Client, server: Server, number: int) -> None:
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
