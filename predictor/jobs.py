"""Accepted tasks that wait for their turn."""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass, field

from contract.request import Sampling
from predictor.engine import Generation


@dataclass(slots=True)
class Job:
    """An accepted task, its prompt in tokens."""

    generation: Generation
    prompt: list[int]
    sampling: Sampling
    accepted_at: float = field(default_factory=time.perf_counter)


class JobQueue:
    """First come, first served; bounded; a job that nobody waits for any more gives up its place at once."""

    def __init__(self, places: int) -> None:
        self.places = places
        self._jobs: deque[Job] = deque()
        self._changed = threading.Condition()
        self._closed = False

    def put(self, job: Job) -> bool:
        """False when every place is taken."""
        with self._changed:
            if len(self._jobs) >= self.places:
                self._jobs = deque(waiting for waiting in self._jobs if not waiting.generation.closed)
            if len(self._jobs) >= self.places:
                return False
            self._jobs.append(job)
            self._changed.notify()
            return True

    def get(self) -> Job | None:
        """The next job that somebody waits for, as soon as there is one; None once the queue is closed."""
        with self._changed:
            while True:
                self._changed.wait_for(lambda: self._jobs or self._closed)
                if self._closed:
                    return None
                job = self._jobs.popleft()
                if not job.generation.closed:
                    return job

    def close(self) -> list[Job]:
        """End every present and future `get`; the jobs that will not be served."""
        with self._changed:
            self._closed = True
            left = [job for job in self._jobs if not job.generation.closed]
            self._jobs.clear()
            self._changed.notify_all()
            return left
