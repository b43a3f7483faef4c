"""The Idempotency-Key header (draft-ietf-httpapi-idempotency-key-header-07)."""

from __future__ import annotations

from starlette.datastructures import Headers

from contract import invalid_field

KEY_CHARS = 255
"""Longest key."""


def idempotency_key(headers: Headers) -> str | None:
    """The key, bare or in the double quotes of a structured header; INVALID_FIELD when it cannot be one."""
    given = headers.get("idempotency-key")
    if given is None:
        return None
    key = given[1:-1] if len(given) >= 2 and given[0] == given[-1] == '"' else given
    if not 1 <= len(key) <= KEY_CHARS or not all("!" <= char <= "~" for char in key):
        raise invalid_field("Idempotency-Key", f"must be 1 to {KEY_CHARS} visible ASCII characters")
    return key
