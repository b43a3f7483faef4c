"""One clock for a generation: its phases, each of which begins where the last one ended.

The log line, the metrics and the spans are made of the same phases, so that they agree, and add up to the whole.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from wire.telemetry.facts import current_facts
from wire.telemetry.tracing import is_sampled, open_span

SPAN_SECONDS = 0.001
"""Shorter phases have no span of their own."""


class GenerationTelemetry:
    """Made where the request `began`, on the clock of `time.perf_counter`, in its `first` phase.

    Whoever knows enters the next phase; `end` is called once, whatever the end was, and tells of it.
    """

    def __init__(self, model: str, began: float, first: str) -> None:
        self.model = model
        self.began = began
        self.first_token_at: float | None = None
        self.attributes: dict[str, Any] = {}
        """Of the span, beside the usual ones."""
        self.name = f"generate {model}"
        """Of the span."""
        self.prompt_tokens: int | None = None
        self.completion_tokens: int | None = None
        self._begun: list[tuple[str, float]] = [(first, began)]
        self._ended: float | None = None

    @property
    def phase(self) -> str:
        """The one that it is in."""
        return self._begun[-1][0]

    def enter(self, phase: str) -> None:
        """Its next phase begins, unless it is in that already."""
        if self._ended is None and phase != self.phase:
            self._begun.append((phase, time.perf_counter()))

    def turns_out(self, phase: str) -> None:
        """The phase that it is in has been another one from its beginning."""
        self._begun[-1] = phase, self._begun[-1][1]

    def divide(self, phase: str, seconds: float, rest: str) -> None:
        """Of the last phase of this name only so many seconds were that, and what followed was `rest`."""
        for place in range(len(self._begun) - 1, -1, -1):
            name, begun = self._begun[place]
            if name == phase:
                until = begun + seconds
                if place + 1 < len(self._begun) and until < self._begun[place + 1][1]:
                    self._begun.insert(place + 1, (rest, until))
                return

    def first_token(self, phase: str) -> None:
        """A token, or denoising step, is there, and this phase if it is the first. Of several attempts each has that
        phase; `first_token_at` is that of the first."""
        self.enter(phase)
        if self.first_token_at is None:
            self.first_token_at = self._begun[-1][1]

    @property
    def seconds(self) -> float:
        """From the beginning to the end, or until now."""
        return (self._ended or time.perf_counter()) - self.began

    @property
    def phases(self) -> dict[str, float]:
        """Seconds in each phase."""
        phases: dict[str, float] = {}
        for name, begun, ended in self._intervals:
            phases[name] = phases.get(name, 0.0) + ended - begun
        return phases

    @property
    def _intervals(self) -> list[tuple[str, float, float]]:
        ends = [begun for _, begun in self._begun[1:]] + [self._ended or time.perf_counter()]
        return [(name, begun, end) for (name, begun), end in zip(self._begun, ends, strict=True)]

    def end(self, problem: str | None = None) -> None:
        """It is over; `problem` is the slug of what it failed with. Only the first end counts."""
        if self._ended is not None:
            return
        self._ended = time.perf_counter()
        if (facts := current_facts()) is not None:
            facts.model = self.model
            facts.phases = self.phases
            facts.generation_ended = self._ended
            facts.problem = problem or facts.problem
            if self.first_token_at is not None:
                facts.first_token_seconds = self.first_token_at - self.began
            for name in ("prompt_tokens", "completion_tokens"):  # of all generations of the request
                if (tokens := getattr(self, name)) is not None:
                    setattr(facts, name, (getattr(facts, name) or 0) + tokens)
        if is_sampled():
            self._trace(problem)

    def _trace(self, problem: str | None) -> None:
        """Spans are made at the end, when it is known what each phase was."""
        wall = time.time() - time.perf_counter()
        with open_span(self.name, wall + self.began, self._attributes(problem), failed=problem is not None) as child:
            for name, begun, ended in self._intervals:
                if ended - begun >= SPAN_SECONDS:
                    child(name, wall + begun, wall + ended)

    def _attributes(self, problem: str | None) -> Mapping[str, Any]:
        attributes = {
            "shangcai.model": self.model,
            "shangcai.prompt_tokens": self.prompt_tokens,
            "shangcai.completion_tokens": self.completion_tokens,
            "error.type": problem,
            **self.attributes,
        }
        return {name: value for name, value in attributes.items() if value is not None}
