"""Clients of web: one that waits for its answer, and those that leave."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import httpx2

from scripts.loopback_http import TIMEOUT_SECONDS

PROMPTS = {"text": "写一首关于春雨的诗", "image": "画一只猫"}


@dataclass(frozen=True)
class Answer:
    """`first_s`: seconds to the first token or to the picture. `failure` is empty where the answer is whole; `doubled`
    says whether something came twice in it."""

    first_s: float = 0.0
    failure: str = ""
    doubled: bool = False


@dataclass(frozen=True)
class Service:
    """web at `url`, and a model of that `kind`. `headers` are sent with each request, as for a virtual host."""

    url: str
    model: str
    kind: str
    headers: dict[str, str]
    prompt: str

    def client(self, read_seconds: float = TIMEOUT_SECONDS) -> httpx2.Client:
        timeout = httpx2.Timeout(TIMEOUT_SECONDS, read=read_seconds)
        return httpx2.Client(base_url=self.url, headers=self.headers, timeout=timeout, trust_env=False)

    def ask(self) -> Answer:
        """A generation, to its end."""
        begun = time.monotonic()
        first: float | None = None
        text = ""
        results: list[Any] = []
        try:
            with self.client() as http, http.stream("POST", "/generate", json=self._body) as answer:
                if answer.status_code != httpx2.codes.OK:
                    said = answer.read().decode(errors="replace")
                    return Answer(failure=f"status {answer.status_code}: {said[:300]}")
                for event, data in _events(answer):
                    if event == "error":
                        return Answer(failure=f"{data.get('title')}: {data.get('detail')}")
                    if event in ("token", "reasoning", "result") and first is None:
                        first = time.monotonic() - begun
                    text += data["text"] if event == "token" else ""
                    results += [data] if event == "result" else []
        except httpx2.HTTPError as error:
            return Answer(failure=f"{type(error).__name__} {error}".rstrip())
        if not results or first is None:
            return Answer(failure="the stream breaks off")
        told_otherwise = bool(text) and results[0].get("text") != text
        return Answer(first, doubled=len(results) > 1 or told_otherwise)

    def leave(self, seconds: float) -> None:
        """Ask, and close the connection after so many seconds at most twice, or with the answer's end."""
        until = time.monotonic() + seconds
        with (
            suppress(httpx2.HTTPError),
            self.client(read_seconds=seconds) as http,
            http.stream("POST", "/generate", json=self._body) as answer,
        ):
            for _ in answer.iter_raw():
                if time.monotonic() > until:
                    return

    @property
    def _body(self) -> dict[str, Any]:
        return {"model": self.model, "prompt": self.prompt, "stream": True}


def find_service(url: str, headers: dict[str, str], model: str | None, prompt: str | None = None) -> Service:
    """The model of that name, or the first that web lists. Raises an httpx2.HTTPError, or SystemExit where web has no
    such model."""
    with httpx2.Client(base_url=url, headers=headers, timeout=TIMEOUT_SECONDS, trust_env=False) as http:
        listed = http.get("/", headers={"Accept": "application/json"}).raise_for_status().json()["models"]
    for one in listed:
        if model in (None, one["name"]):
            return Service(url, one["name"], one["kind"], headers, prompt or PROMPTS[one["kind"]])
    raise SystemExit(f"scripts/bench wake: web has no model {model!r}, but {', '.join(one['name'] for one in listed)}")


def _events(answer: httpx2.Response) -> Iterator[tuple[str, Any]]:
    event = ""
    for line in answer.iter_lines():
        if line.startswith("event: "):
            event = line.removeprefix("event: ")
        elif line.startswith("data: "):
            yield event, json.loads(line.removeprefix("data: "))
