"""Whose page has sent a request (the Fetch standard's Sec-Fetch-Site, RFC 6454's Origin)."""

from __future__ import annotations

from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.datastructures import Headers

from contract import ProblemError, problems


def check_origin(headers: Headers, allowed: Collection[str]) -> None:
    """Raise FORBIDDEN where a page of another site has sent this, whose reader did not ask for it; `allowed` origins
    may. For requests that browsers send without a preflight. Other clients send neither of the two headers."""
    site = headers.get("sec-fetch-site")
    origin = headers.get("origin")
    own = site in ("same-origin", "none") if site else origin is None or urlsplit(origin).netloc == headers.get("host")
    if not own and origin not in allowed and "*" not in allowed:
        raise ProblemError(problems.FORBIDDEN, "Pages of other sites may not do that.")
