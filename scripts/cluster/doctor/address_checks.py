"""Tries a deployed address: health, models, OpenAPI, a text, a stream, a picture and a mistake, each with its time."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from typing import Any
from urllib.parse import urlsplit

PROMPTS = {"text": "写一首关于春雨的诗", "image": "画一只猫"}
PAUSE_SECONDS = 2.0


class Fault(Exception):
    """What is wrong with an answer, told in one line."""


@dataclass
class Answer:
    """A response whose body is not read yet, and when its request was sent."""

    response: HTTPResponse
    begun: float

    def seconds(self) -> float:
        return time.monotonic() - self.begun

    def document(self) -> Any:
        body = self.response.read()
        try:
            return json.loads(body)
        except ValueError:
            raise Fault(f"status {self.response.status} and no JSON: {body[:120]!r}") from None


class AddressChecks:
    def __init__(self, url: str, host: str | None, seconds: float) -> None:
        parts = urlsplit(url if "//" in url else f"http://{url}")
        self.base = parts.path.rstrip("/")
        self.netloc = parts.netloc
        self.connection = HTTPSConnection if parts.scheme == "https" else HTTPConnection
        self.headers = {"Host": host} if host else {}
        if key := os.environ.get("SHANGCAI_KEY"):  # no flag: other users of the machine could read it
            self.headers["Authorization"] = f"Bearer {key}"
        self.seconds = seconds
        self.deadline = time.monotonic() + seconds
        self.kinds: dict[str, str] = {}

    def all(self) -> Iterator[tuple[str, Callable[[], str]]]:
        """Names and checks. A check returns what to print, or raises a Fault, OSError, HTTPException or ValueError.

        The models that `models` finds decide which checks follow.
        """
        yield "health", self.health
        yield "models", self.models
        yield "openapi", self.openapi
        if "text" in self.kinds:
            yield "text", self.text
            yield "stream", self.stream
        if "image" in self.kinds:
            yield "picture", self.picture
        yield "mistake", self.mistake

    def health(self) -> str:
        """Wait until it answers 200, as after a cold start, but not beyond the deadline."""
        while True:
            try:
                answer = self.ask("GET", "/healthz")
                if answer.response.status == 200:
                    return f"200 after {answer.seconds():.2f} s"
                fault = Fault(f"status {answer.response.status}")
                if answer.response.status not in (502, 503, 504):
                    raise fault
            except (OSError, HTTPException) as error:
                fault = Fault(f"{self.netloc} cannot be reached: {error}")
            if time.monotonic() + PAUSE_SECONDS > self.deadline:
                raise fault
            time.sleep(PAUSE_SECONDS)

    def models(self) -> str:
        document = self.expect(self.ask("GET", "/"), 200)
        if not isinstance(document, dict) or not document.get("models"):
            raise Fault("GET / does not list models: is this Shangcai's web?")
        for model in document["models"]:
            self.kinds.setdefault(model["kind"], model["name"])
        return ", ".join(f"{model['name']} ({model['kind']})" for model in document["models"])

    def openapi(self) -> str:
        document = self.expect(self.ask("GET", "/openapi.json"), 200)
        if "/generate" not in document.get("paths", {}):
            raise Fault("/openapi.json does not describe /generate")
        return f"OpenAPI {document['openapi']}, {len(document['paths'])} paths"

    def text(self) -> str:
        answer = self.ask("POST", "/generate", {"prompt": PROMPTS["text"], "model": self.kinds["text"]})
        result = self.expect(answer, 200)
        if not result.get("text"):
            raise Fault("the text is empty")
        return f"{answer.seconds():.2f} s: {' '.join(result['text'].split())[:60]}"

    def stream(self) -> str:
        body = {"prompt": PROMPTS["text"], "model": self.kinds["text"], "stream": True}
        answer = self.ask("POST", "/generate", body)
        if answer.response.status != 200:
            self.expect(answer, 200)
        marks: dict[str, float] = {}
        last = ""
        tokens = 0
        for line in answer.response:
            if line.startswith(b"event: "):
                last = line.decode().split()[1]
            elif line.startswith(b"data: "):
                data = json.loads(line[6:])
                tokens += last == "token"
                marks.setdefault(data["state"] if last == "status" else last, answer.seconds())
                if last == "error":
                    raise Fault(f"the stream ends with {data.get('title')}: {data.get('detail')}")
        if last != "result":
            raise Fault(f"the stream breaks off after {answer.seconds():.2f} s, with {last or 'nothing'}")
        if "token" not in marks:
            raise Fault("the stream has no token")
        path = " → ".join(f"{name} {at:.2f} s" for name, at in marks.items())
        return f"{path}; {tokens} tokens"

    def picture(self) -> str:
        body = {"prompt": PROMPTS["image"], "model": self.kinds["image"]}
        answer = self.ask("POST", "/generate", body, {"Accept": "image/png"})
        if answer.response.status != 200:
            self.expect(answer, 200)
        content = answer.response.read()
        if not content.startswith(b"\x89PNG"):
            raise Fault(f"{len(content)} bytes that are no PNG")
        return f"{answer.seconds():.2f} s: a PNG of {len(content)} bytes"

    def mistake(self) -> str:
        answer = self.ask("POST", "/generate", {"prompt": "", "tone": "sad"})
        fields = {error.get("field") for error in self.expect(answer, 400).get("errors", [])}
        if fields != {"prompt", "tone"}:
            raise Fault(f"the 400 does not name prompt and tone but {fields or 'nothing'}")
        return "400 that names prompt and tone"

    def ask(self, method: str, path: str, body: object = None, headers: dict[str, str] | None = None) -> Answer:
        """Send a request and wait for the response's headers; the caller reads the body."""
        begun = time.monotonic()
        left = self.deadline - begun
        if left <= 0:
            raise Fault(f"the {self.seconds:.0f} s are over")
        connection = self.connection(self.netloc, timeout=left)
        content = None if body is None else json.dumps(body)
        sent = {**self.headers, **({"Content-Type": "application/json"} if content else {}), **(headers or {})}
        connection.request(method, self.base + path, content, sent)
        return Answer(connection.getresponse(), begun)

    def expect(self, answer: Answer, status: int) -> Any:
        """The JSON of a response with that status; raises a Fault for another one."""
        document = answer.document()
        if answer.response.status != status:
            detail = document.get("detail") or document.get("title") if isinstance(document, dict) else document
            raise Fault(f"status {answer.response.status} after {answer.seconds():.2f} s, not {status}: {detail}")
        return document


def run(url: str, host: str | None, seconds: float) -> bool:
    """Run all checks within so many seconds and print the results; whether all passed."""
    checks = AddressChecks(url, host, seconds)
    passed = True
    for name, attempt in checks.all():
        try:
            print(f"ok     {name}: {attempt()}", flush=True)
        except (Fault, OSError, HTTPException, ValueError) as error:
            passed = False
            print(f"wrong  {name}: {error or type(error).__name__}", flush=True)
            if name == "health":  # the others would fail, too
                break
    return passed
