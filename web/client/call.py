"""One request to a model server, and how its answer is read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

Event = TypeVar("Event")


@dataclass(frozen=True)
class Call(Generic[Event]):
    """One request, and the limits within which its answer is read.

    `parse` makes an event of the server's URL and the data of a server-sent event, or raises a ProblemError.
    """

    path: str
    """Of the route, below its server's path of OpenAI's routes."""
    body: dict[str, Any]
    parse: Callable[[str, bytes], Event]
    event_bytes: int
    """Longest event."""
    answer_bytes: int
    """Most bytes of the whole stream."""
    names: Mapping[str, str]
    """What the request calls the fields of the body that have another name there."""
