"""What the store of jobs holds, as its metrics say it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from contract import JobState


@dataclass(slots=True)
class StoreUsage:
    """Of the jobs that have not ended, and the bytes of all."""

    size: int
    """In bytes."""
    most_size: int
    jobs: Counter[tuple[str, JobState]] = field(default_factory=Counter)
    """How many there are of each model and state."""
    oldest: dict[str, float] = field(default_factory=dict)
    """When the oldest queued job of each model was made, in seconds since 1970."""

    def add(self, model: str, state: JobState, created: float) -> None:
        self.jobs[model, state] += 1
        if state == "queued":
            self.oldest[model] = min(created, self.oldest.get(model, created))
