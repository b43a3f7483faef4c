"""What a request asks for in its headers beside the result: Prefer (RFC 7240) and Idempotency-Key."""

from __future__ import annotations

import re
from dataclasses import dataclass

from starlette.datastructures import Headers

from web.http.idempotency_key import idempotency_key

_PART = re.compile('(?:[^,"]|"[^"]*"?)+')
"""Commas separate, but not within quotes."""


@dataclass(frozen=True)
class RequestPreferences:
    """`respond_async`: the answer may come before the result; `wait`: it must come within so many seconds.

    A preference that cannot be read is none, and never an error (RFC 7240, 2).
    """

    respond_async: bool = False
    wait: float | None = None
    idempotency_key: str | None = None

    @classmethod
    def of(cls, headers: Headers, most_wait_seconds: float) -> RequestPreferences:
        """A `wait` is cut to `most_wait_seconds`. Raises INVALID_FIELD where the Idempotency-Key cannot be one."""
        preferences: dict[str, str] = {}
        for part in _PART.findall(",".join(headers.getlist("prefer"))):
            name, _, value = part.partition(";")[0].partition("=")
            preferences.setdefault(name.strip().lower(), value.strip().strip('"'))  # the first of each counts
        wait = preferences.get("wait", "")
        return cls(
            respond_async="respond-async" in preferences,
            wait=min(float(wait), most_wait_seconds) if wait.isascii() and wait.isdecimal() else None,
            idempotency_key=idempotency_key(headers),
        )

    @property
    def outlives_connection(self) -> bool:
        """Whether the generation goes on when the client has left."""
        return self.idempotency_key is not None or bool(self.applied)

    @property
    def wait_seconds(self) -> float | None:
        """Within which the answer must come; None: it comes with the result."""
        return self.wait or 0.0 if self.applied else None

    @property
    def applied(self) -> str:
        """The Preference-Applied header, empty where nothing was preferred."""
        applied = ["respond-async"] if self.respond_async else []
        return ", ".join(applied if self.wait is None else [*applied, f"wait={self.wait:.0f}"])
