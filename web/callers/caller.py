"""The name of a caller, and where a request keeps it."""

from __future__ import annotations

from starlette.types import Scope

DEFAULT_CALLER = "default"
"""Everybody, where callers are not told apart."""

EVENTS_CALLER = "events"
"""Whom events belong to that come without proof of another caller."""


def caller_of(scope: Scope) -> str:
    """The caller of a request, as the authentication has found."""
    caller: str = scope["state"].get("caller", DEFAULT_CALLER)
    return caller
