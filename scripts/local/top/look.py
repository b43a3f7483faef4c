"""One look at web: its `/status` and its metrics, asked with a limit for the time and the size of each answer."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Any
from urllib.parse import urlsplit

from scripts.local.top.address import NotFound, find_address
from scripts.local.top.exposition import Exposition, parse_exposition

ANSWER_SECONDS = 3.0
"""Longest wait for an answer, or for more of it."""

ANSWER_BYTES = 4 * 2**20


@dataclass(frozen=True)
class Look:
    at: float
    """Seconds of time.monotonic."""
    where: str
    models: Sequence[Mapping[str, Any]] = ()
    """As `/status` lists them; states may come that are not known here."""
    exposition: Exposition | None = None
    slots: Mapping[str, int] = field(default_factory=dict)
    troubles: Sequence[str] = ()
    """Why something is missing."""


def look(url: str | None, metrics_url: str | None) -> Look:
    """At the addresses that the flags have given, if any. Never fails: what is wrong is said in the look."""
    at = time.monotonic()
    try:
        address = find_address(url, metrics_url)
    except (NotFound, ValueError) as error:
        return Look(at, url or "scripts/run", troubles=[str(error)])
    models: Sequence[Mapping[str, Any]] = ()
    exposition = None
    troubles = []
    try:
        models = _models(_answer(f"{address.url}/status", os.environ.get("SHANGCAI_KEY")))
    except (OSError, HTTPException, ValueError) as error:
        troubles.append(f"web does not say how its models are: {_reason(error)}")
    try:
        if address.metrics_url is None:
            raise ValueError("web serves none, because METRICS_PORT is 0")
        exposition = parse_exposition(_answer(address.metrics_url))
    except (OSError, HTTPException, ValueError) as error:
        where = f" at {address.metrics_url}" if address.metrics_url else ""
        troubles.append(f"no metrics{where}: {_reason(error)}")
    return Look(at, address.url, models, exposition, address.slots, troubles)


def _answer(url: str, key: str | None = None) -> str:
    """Of a GET. Raises an OSError, an HTTPException or a ValueError."""
    parts = urlsplit(url)
    connection = HTTPSConnection if parts.scheme == "https" else HTTPConnection
    with closing(connection(parts.netloc, timeout=ANSWER_SECONDS)) as server:
        server.request("GET", parts.path or "/", headers={"Authorization": f"Bearer {key}"} if key else {})
        response = server.getresponse()
        body = response.read(ANSWER_BYTES + 1)
    if response.status != 200:
        hint = "; SHANGCAI_KEY may hold a caller's key" if response.status == 401 else ""
        raise ValueError(f"status {response.status}{hint}")
    if len(body) > ANSWER_BYTES:
        raise ValueError(f"the answer is longer than {ANSWER_BYTES >> 20} MiB")
    return body.decode()


def _models(text: str) -> Sequence[Mapping[str, Any]]:
    document = json.loads(text)
    if not isinstance(document, dict) or not isinstance(document.get("models"), list):
        raise ValueError("what answers is not web")
    return [model for model in document["models"] if isinstance(model, dict) and {"name", "state"} <= model.keys()]


def _reason(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return "what answers is not web"
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
