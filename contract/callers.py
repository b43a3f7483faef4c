"""Callers: whom requests belong to, between web, the predictors and events."""

from __future__ import annotations

import re

DEFAULT_CALLER = "default"
"""Everybody, where callers are not told apart."""

EVENTS_CALLER = "events"
"""Whom events belong to that come without proof of another caller."""

CACHE_SALT = r"^[!-~]{1,128}$"
"""What a salt of the cache may be: visible ASCII, so that it fits a header."""

CALLER_CHARS = 128
"""Longest name of a caller."""


def is_caller(name: str) -> bool:
    """Whether it may be the name of a caller: visible ASCII, so that it fits a header, an event and a log line."""
    return re.fullmatch(rf"[!-~]{{1,{CALLER_CHARS}}}", name) is not None
