"""Counts CloudEvents by type and outcome."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import Counter

from contract import ProblemError, problems
from contract.cloudevents import EVENT_TYPES
from web.telemetry.name_limit import OTHER

_TYPES = frozenset(row.name for row in EVENT_TYPES)
_SLUGS = frozenset(kind.slug for kind in problems.PROBLEM_TYPES)


@contextmanager
def counted(counter: Counter, event_type: str) -> Iterator[None]:
    """Around an event that is being received or sent. Types and problems of others, whoever names them, are one."""
    kind = event_type if event_type in _TYPES else OTHER
    try:
        yield
    except ProblemError as error:
        slug = error.kind.slug
        counter.labels(kind, slug if slug in _SLUGS else OTHER).inc()
        raise
    except Exception:
        counter.labels(kind, problems.INTERNAL.slug).inc()
        raise
    counter.labels(kind, "taken").inc()
