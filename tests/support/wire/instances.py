"""The request that a problem document names."""

from __future__ import annotations

from typing import Any

import httpx2

PREFIX = "urn:shangcai:request:"


def names_its_request(answer: httpx2.Response) -> bool:
    """Whether the instance of the problem is the request of its answer, whose id needs no encoding."""
    return bool(answer.json().get("instance") == PREFIX + answer.headers["x-request-id"])


def without_instance(answer: httpx2.Response) -> dict[str, Any]:
    """The problem as another request would be told it."""
    document: dict[str, Any] = answer.json()
    assert document.pop("instance").startswith(PREFIX)
    return document
