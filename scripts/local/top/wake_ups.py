"""The last wake-up of each model, by phase: web counts the seconds of all of them together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from scripts.local.top.exposition import Exposition

COUNT = "shangcai_web_wake_up_seconds_count"
PHASES = "shangcai_web_wake_up_phase_seconds_total"
LAST = "shangcai_web_wake_up_last_seconds"
EXPECTED = "shangcai_web_wake_up_expected_seconds"


@dataclass(frozen=True)
class WakeUp:
    seconds: float | None
    """None where it is not known."""
    expected_seconds: float | None
    phases: Mapping[str, float]
    of: int = 1
    """So many wake-ups the phases are the means of: those that were over when this began to look."""


class WakeUps:
    """Reads them from one exposition after the other."""

    def __init__(self) -> None:
        self.latest: dict[str, WakeUp] = {}
        self._read: dict[str, tuple[int, Mapping[str, float]]] = {}

    def add(self, exposition: Exposition | None) -> None:
        if exposition is None:
            return
        for model, found in exposition.by("model", COUNT).items():
            count, before = int(found), self._read.get(model, (0, {}))
            if count == before[0]:
                continue
            phases = exposition.by("phase", PHASES, model=model)
            if count < before[0]:  # web was started again
                before = (0, {})
            made = count - before[0]
            self._read[model] = count, phases
            if made:
                self.latest[model] = WakeUp(
                    exposition.total(LAST, model=model),
                    exposition.total(EXPECTED, model=model),
                    {
                        phase: grown / made
                        for phase, seconds in phases.items()
                        if (grown := seconds - before[1].get(phase, 0.0)) > 0
                    },
                    made,
                )
