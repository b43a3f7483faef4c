"""What is known of the request, or of the run of a job, that is being worked on: for its log line and its spans."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field


@dataclass(slots=True)
class Facts:
    """Gathered on the way by whoever knows them. Tasks that the request starts share it.

    Times are on the clock of `time.perf_counter`.
    """

    request_id: str
    arrived: float = field(default_factory=time.perf_counter)
    job_id: str | None = None
    trace_id: str | None = None
    """32 hexadecimal digits; None without a trace."""
    caller: str | None = None
    route: str | None = None
    model: str | None = None
    problem: str | None = None
    """The slug of the problem it ended with."""
    phases: dict[str, float] = field(default_factory=dict)
    """Seconds in each phase, in the order in which they came; of several generations, those of the last to end."""
    first_token_seconds: float | None = None
    """From its arrival."""
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    client_left: bool = False
    """Before its answer was whole."""
    generation_ended: float | None = None
    """When the last of the phases ended."""


_FACTS: ContextVar[Facts | None] = ContextVar("facts", default=None)


def current_facts() -> Facts | None:
    """Those of the request or job in whose context this is called."""
    return _FACTS.get()


def note_client_left() -> None:
    """Of the current request."""
    if (facts := _FACTS.get()) is not None:
        facts.client_left = True


@contextmanager
def gathered(facts: Facts) -> Iterator[Facts]:
    """`facts` are the current ones within."""
    token = _FACTS.set(facts)
    try:
        yield facts
    finally:
        _FACTS.reset(token)
