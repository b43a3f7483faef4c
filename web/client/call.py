"""One request to a model server, and how its answer is read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

Event = TypeVar("Event")


@dataclass(frozen=True)
class Call(Generic[Event]):
    """One request. `parse` makes an event of its answer, or the problem that it is instead, of the server's URL and the
    event's data."""

    path: str
    body: dict[str, Any]
    parse: Callable[[str, bytes], Event]
    event_bytes: int
    answer_bytes: int
