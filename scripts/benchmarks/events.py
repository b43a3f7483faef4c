"""What scripts/bench measures of events: what they add to one text, beside REST to the same predictor."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import httpx

from contract.cloudevents import COMPLETED, JSON, REQUESTED, CloudEvent
from scripts.benchmarks.contenders import CHAT, ORDER, PLAIN, Server, Shape, predictor, process, prompt, web
from scripts.benchmarks.overhead import SHORT, SLOTS, quantiles
from wire.cloudevents import write_event


def measure(model: Path, dtype: str) -> None:
    """One text of SHORT tokens at a time, by turns. Of web in events mode the sink is the predictor itself."""
    with predictor(model, dtype, SLOTS) as served, web(served.url) as front:
        events = ["--dispatch", "events", "--k-sink", served.url, "--models", json.dumps({"m": {"kind": "text"}})]
        with process("web", events, "/healthz") as courier, _client() as client:
            sides = {
                "predictor, REST": lambda number: _rest(client, served, CHAT, number),
                "predictor, event": lambda number: _event(client, served),
                "web, REST": lambda number: _rest(client, front, ORDER, number),
                "web, events": lambda number: _rest(client, courier, ORDER, number),
            }
            found = {side: quantiles(ask) for side, ask in sides.items()}
    line = ", ".join(f"{side} {1e3 * p50:.1f}/{1e3 * p99:.1f}" for side, (p50, p99) in found.items())
    print(f"events: p50/p99 of texts of {SHORT} tokens, one at a time: {line} ms", flush=True)


def _client() -> httpx.Client:
    return httpx.Client(timeout=600, trust_env=False, verify=PLAIN)


def _rest(client: httpx.Client, server: Server, shape: Shape, number: int) -> None:
    client.post(server.url + shape.path, json=shape.body(number, SHORT, False)).raise_for_status()


_numbers = itertools.count()


def _event(client: httpx.Client, server: Server) -> None:
    number = next(_numbers)
    order: dict[str, Any] = {"prompt": prompt(number), "max_tokens": SHORT}
    event = CloudEvent(id=f"bench-{number}", source="urn:shangcai:bench", type=REQUESTED, datacontenttype=JSON)
    headers, body = write_event(event.model_copy(update={"data": json.dumps(order).encode()}))
    answer = client.post(server.url + "/", headers=headers, content=body).raise_for_status()
    assert answer.headers["ce-type"] == COMPLETED
