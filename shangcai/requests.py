"""The requests of a client, before they are sent."""

from __future__ import annotations

import base64
import uuid
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import httpx2
from pydantic import ValidationError
from pydantic_core import PydanticSerializationError, to_json

from contract import GenerationRequest
from contract.problems import invalid_field, invalid_fields
from shangcai.attempts import Attempts

TIMEOUT_SECONDS = 600.0
"""Longest that a call waits for its answer unless it is told otherwise: as long as any request may take."""

JOB_SECONDS = 86_400.0
"""Longest that a call waits for the end of a job unless it is told otherwise: jobs have deadlines of their own."""

CANCEL_SECONDS = 30.0
"""Longest that cancelling waits for its answer."""

SILENCE_SECONDS = 35.0
"""Longest silence on a stream, on which the server sends a comment every ten seconds."""

CONNECT_SECONDS = 10.0

JSON = "application/json"
EVENT_STREAM = "text/event-stream"
DEADLINE = "X-Request-Timeout"

PICTURES = ("image", "mask")
"""Fields that are a file."""


def default_headers(key: str | None) -> dict[str, str]:
    return {"Accept": JSON} | ({} if key is None else {"Authorization": f"Bearer {key}"})


def request_body(prompt: str | None, fields: dict[str, Any]) -> bytes:
    """The body of `POST /generate`, checked as the server would; None is the same as left out, and the bytes of a
    picture are sent in base64. Raises a ProblemError that names what is not allowed."""
    if "stream" in fields:
        raise TypeError("stream is no field of this call: call stream()")
    given = {"prompt": prompt, **fields}
    written = {name: _json(name, value) for name, value in given.items() if value is not None}
    body = b"{%s}" % b",".join(b"%s:%s" % (to_json(name), value) for name, value in written.items())
    try:
        GenerationRequest.model_validate_json(body)
    except ValidationError as error:
        raise invalid_fields(error, GenerationRequest) from None
    return body


def _json(name: str, value: Any) -> bytes:
    if name in PICTURES and isinstance(value, bytes | bytearray):
        value = base64.b64encode(value).decode()
    try:
        return to_json(value)
    except PydanticSerializationError as error:  # such as half of a surrogate pair
        raise invalid_field(name, f"cannot be written as JSON: {error}") from None


class RequestBuilder:
    """Builds the requests of a client of httpx2, of either kind."""

    def __init__(self, http: httpx2.Client | httpx2.AsyncClient) -> None:
        self._http = http

    def generate(self, body: bytes, attempts: Attempts) -> httpx2.Request:
        return self._post(body, attempts, {DEADLINE: f"{attempts.left:.3f}"})

    def stream(self, body: bytes, attempts: Attempts) -> httpx2.Request:
        return self._post(body, attempts, {DEADLINE: f"{attempts.left:.3f}", "Accept": EVENT_STREAM})

    def submission(self, body: bytes, key: str | None) -> Callable[[Attempts], httpx2.Request]:
        """Makes one job, however often it is sent. It names no deadline, which would be that of the job."""
        headers = {"Prefer": "respond-async", "Idempotency-Key": key or uuid.uuid4().hex}
        return lambda attempts: self._post(body, attempts, headers)

    def models(self, attempts: Attempts) -> httpx2.Request:
        return self._http.build_request("GET", "models", timeout=_timeout(attempts))

    def job(self, id: str, attempts: Attempts, *, method: str = "GET") -> httpx2.Request:
        return self._http.build_request(method, _address(id), timeout=_timeout(attempts))

    def job_events(self, id: str, attempts: Attempts, after: str | None) -> httpx2.Request:
        headers = {"Accept": EVENT_STREAM} | ({} if after is None else {"Last-Event-ID": after})
        return self._http.build_request("GET", _address(id), headers=headers, timeout=_timeout(attempts, stream=True))

    def _post(self, body: bytes, attempts: Attempts, headers: dict[str, str]) -> httpx2.Request:
        timeout = _timeout(attempts, stream=headers.get("Accept") == EVENT_STREAM)
        return self._http.build_request(
            "POST", "generate", content=body, headers={"Content-Type": JSON, **headers}, timeout=timeout
        )


def _address(id: str) -> str:
    return f"generations/{quote(id, safe='')}"


def _timeout(attempts: Attempts, *, stream: bool = False) -> httpx2.Timeout:
    left = attempts.left
    return httpx2.Timeout(left, connect=min(CONNECT_SECONDS, left), read=min(SILENCE_SECONDS, left) if stream else left)
