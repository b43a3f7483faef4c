"""The phases of a generation in the predictor: accept, wake, queue, prefill, decode or denoise, deliver."""

from __future__ import annotations

import time

from contract.problems import ProblemError
from predictor.engine.events import EngineEvent, PictureFinished, Preview, Progress, Started, TextFinished
from wire.telemetry.facts import current_facts
from wire.telemetry.generation import GenerationTelemetry


class GenerationPhases(GenerationTelemetry):
    """A GenerationObserver, from before it is accepted. So many `parts` of it end."""

    def __init__(self, model: str, caller: str) -> None:
        facts = current_facts()
        super().__init__(model, time.perf_counter() if facts is None else facts.arrived, "accept")
        if facts is not None:
            facts.caller = caller
        self.parts = 1

    def note(self, event: EngineEvent | ProblemError) -> None:
        """The event is taken from the generation."""
        match event:
            case Started():
                if self.phase == "queue":
                    self.enter("prefill")
            case Progress() | Preview():
                self.first_token("denoise")
            case TextFinished():
                self.prompt_tokens, self.completion_tokens = event.prompt_tokens, event.completion_tokens
                self._part_ended()
            case PictureFinished():
                self._part_ended()
            case ProblemError():
                self.end(event.kind.slug)
            case _:
                self.first_token("decode")

    def _part_ended(self) -> None:
        self.parts -= 1
        if not self.parts:
            self.enter("deliver")
