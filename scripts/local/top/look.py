"""One look at web: its `/status` and its metrics, asked with a limit for the time and the size of each answer."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from threading import Thread
from typing import Any, Generic, TypeVar
from urllib.parse import urlsplit

from scripts.local.top.address import NotFound, find_address
from scripts.local.top.exposition import Exposition, parse_exposition

ANSWER_SECONDS = 3.0
"""Longest wait for the answers of one look."""

ANSWER_BYTES = 4 * 2**20

T = TypeVar("T")


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
    deadline = at + ANSWER_SECONDS
    status = Question(lambda: _models(_answer(f"{address.url}/status", deadline, os.environ.get("SHANGCAI_KEY"))))
    metrics = Question(lambda: _exposition(address.metrics_url, deadline))
    models, silence = status.answer(deadline)
    exposition, no_metrics = metrics.answer(deadline)
    where = f" at {address.metrics_url}" if address.metrics_url else ""
    troubles = []
    if silence is not None and silence == no_metrics:
        troubles.append(f"neither web nor its metrics{where} can be read: {silence}")
    else:
        if silence is not None:
            troubles.append(f"web does not say how its models are: {silence}")
        if no_metrics is not None:
            troubles.append(f"no metrics{where}: {no_metrics}")
    return Look(at, address.url, models or (), exposition, address.slots, troubles)


class Question(Generic[T]):
    """Asked in a thread of its own, so that the others need not wait, and that a name that is looked up for long, or an
    answer that drips, holds nobody up."""

    def __init__(self, ask: Callable[[], T]) -> None:
        self._ask = ask
        self._answer: tuple[T | None, str | None] = None, "timed out"
        self._thread = Thread(target=self._run, daemon=True)
        self._thread.start()

    def answer(self, deadline: float) -> tuple[T | None, str | None]:
        """What was asked for, or why it is not there. Later answers are lost."""
        self._thread.join(max(deadline - time.monotonic(), 0))
        return self._answer

    def _run(self) -> None:
        try:
            self._answer = self._ask(), None
        except (OSError, HTTPException, ValueError) as error:
            self._answer = None, _reason(error)


def _answer(url: str, deadline: float, key: str | None = None) -> str:
    """Of a GET. Raises an OSError, an HTTPException or a ValueError."""
    if key and not (key.isascii() and key.isprintable()):
        raise ValueError("SHANGCAI_KEY holds what no header can")
    parts = urlsplit(url)
    connection = HTTPSConnection if parts.scheme == "https" else HTTPConnection
    body = bytearray()
    with closing(connection(parts.netloc, timeout=ANSWER_SECONDS)) as server:
        server.request("GET", parts.path or "/", headers={"Authorization": f"Bearer {key}"} if key else {})
        response = server.getresponse()
        while len(body) <= ANSWER_BYTES and (more := response.read1(ANSWER_BYTES)):
            body += more
            if time.monotonic() > deadline:
                raise TimeoutError("timed out")
    if response.status != 200:
        hint = "; SHANGCAI_KEY may hold a caller's key" if response.status == 401 else ""
        raise ValueError(f"status {response.status}{hint}")
    if len(body) > ANSWER_BYTES:
        raise ValueError(f"the answer is longer than {ANSWER_BYTES >> 20} MiB")
    return body.decode(errors="replace")


def _exposition(url: str | None, deadline: float) -> Exposition:
    if url is None:
        raise ValueError("web serves none, because METRICS_PORT is 0")
    text = _answer(url, deadline)
    try:
        exposition = parse_exposition(text)
    except (ValueError, LookupError):
        exposition = Exposition()
    if not any(name.startswith("shangcai_web_") for name in exposition.samples):
        raise ValueError("what answers is not web's metrics")
    return exposition


def _models(text: str) -> Sequence[Mapping[str, Any]]:
    document = json.loads(text)
    if not isinstance(document, dict) or not isinstance(document.get("models"), list):
        raise ValueError("what answers is not web")
    return [model for model in document["models"] if isinstance(model, dict) and {"name", "state"} <= model.keys()]


def _reason(error: Exception) -> str:
    """In one line."""
    if isinstance(error, json.JSONDecodeError):
        return "what answers is not web"
    said = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
    return " ".join(said.split())
