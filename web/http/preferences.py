"""What a request asks for in its headers beside the result: Prefer (RFC 7240), Idempotency-Key, Last-Event-ID."""

from __future__ import annotations

import re
from dataclasses import dataclass

from starlette.datastructures import Headers

from contract import invalid_field

KEY_CHARS = 255
"""Longest Idempotency-Key."""

MOST_WAIT_SECONDS = 3_600.0
"""Longest `wait` that is applied; a larger one is cut to it."""

_ENTRY = re.compile("[0-9]{1,18}-[0-9]{1,18}")  # in a stream of Redis: milliseconds, and a number

_PART = re.compile('(?:[^,"]|"[^"]*"?)+')
"""Commas separate, but not within quotes."""


@dataclass(frozen=True)
class Preference:
    """`respond_async`: an answer may come before the result does; `wait`: after this many seconds it must.

    Neither is an error, whatever it says: a preference that cannot be read is none (RFC 7240, 2).
    """

    respond_async: bool = False
    wait: float | None = None

    @classmethod
    def of(cls, headers: Headers) -> Preference:
        asked: dict[str, str] = {}
        for part in _PART.findall(",".join(headers.getlist("prefer"))):
            name, _, value = part.partition(";")[0].partition("=")
            asked.setdefault(name.strip().lower(), value.strip().strip('"'))  # the first of each counts
        wait = asked.get("wait", "")
        seconds = min(float(wait), MOST_WAIT_SECONDS) if wait.isascii() and wait.isdecimal() else None
        return cls("respond-async" in asked, seconds)

    @property
    def given(self) -> bool:
        return self.respond_async or self.wait is not None

    @property
    def patience(self) -> float:
        """Seconds until the answer must be there."""
        return self.wait or 0.0

    @property
    def applied(self) -> str:
        """The header that tells that it was heeded."""
        named = ["respond-async"] if self.respond_async else []
        return ", ".join(named if self.wait is None else [*named, f"wait={self.wait:.0f}"])


@dataclass(frozen=True)
class RequestPreferences:
    """What a request asks for beside its result: `key` is its Idempotency-Key."""

    key: str | None
    preference: Preference

    @classmethod
    def of(cls, headers: Headers) -> RequestPreferences:
        return cls(_idempotency_key(headers), Preference.of(headers))

    @property
    def outlives(self) -> bool:
        """Whether the generation is to go on when the client has left."""
        return self.key is not None or self.preference.given


def last_event_id(headers: Headers) -> str | None:
    """Where a client that was here before has stopped."""
    given = headers.get("last-event-id")
    if given is not None and not _ENTRY.fullmatch(given):
        raise invalid_field("Last-Event-ID", "must be the id of an event of this stream")
    return given


def _idempotency_key(headers: Headers) -> str | None:
    """Bare or in the double quotes of a structured header (draft-ietf-httpapi-idempotency-key-header-07)."""
    given = headers.get("idempotency-key")
    if given is None:
        return None
    key = given[1:-1] if len(given) >= 2 and given[0] == given[-1] == '"' else given
    if not 1 <= len(key) <= KEY_CHARS or not all("!" <= char <= "~" for char in key):
        raise invalid_field("Idempotency-Key", f"must be 1 to {KEY_CHARS} visible ASCII characters")
    return key
