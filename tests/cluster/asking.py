"""Requests to web, and what became of each."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import httpx2

from tests.cluster.prompts import POEM

CLIENTS = 3


@dataclass(frozen=True)
class Answer:
    """What one request got: `failure` is empty where it was a result."""

    seconds: float
    failure: str = ""


def ask(web: httpx2.Client, request: dict[str, Any]) -> Answer:
    """A connection that breaks is a request that was lost, and is told like a status."""
    begun = time.monotonic()
    failure = ""
    try:
        answer = web.post("/generate", json=request)
        if answer.status_code != 200:
            failure = f"{answer.status_code}: {answer.text[:300]}"
        elif not (answer.json().get("text") or answer.json().get("images")):
            failure = f"no result: {answer.text[:300]}"
    except (httpx2.HTTPError, ValueError) as error:
        failure = repr(error)
    return Answer(time.monotonic() - begun, failure)


class Asking:
    """Clients that ask for poems one after the other, for as long as the `with` lasts; then `answers` is complete."""

    def __init__(self, web: httpx2.Client) -> None:
        self.answers: list[Answer] = []
        self._web = web
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(CLIENTS)]

    def _ask(self) -> None:
        while not self._over.is_set():
            self.answers.append(ask(self._web, POEM))

    @property
    def failures(self) -> list[str]:
        return [answer.failure for answer in self.answers if answer.failure]

    def __enter__(self) -> Asking:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()
