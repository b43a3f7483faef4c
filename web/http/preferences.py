"""How long a client wants to wait for a result (RFC 7240)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from starlette.datastructures import Headers

MOST_WAIT_SECONDS = 3_600.0
"""Longest `wait` that is applied; a larger one is cut to it."""

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
