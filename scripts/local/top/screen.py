"""The screen of some readings."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from scripts.local.top.readings import ModelReading, Readings
from scripts.local.top.wake_ups import WakeUp

STYLES = {"ready": "green", "waking": "yellow", "pending": "yellow", "asleep": "blue"}

UNKNOWN = "-"

SHORT_SECONDS = 0.05
"""Of a phase that is not worth a word."""


def screen(readings: Readings, hint: str = "") -> RenderableType:
    """`hint` says how it is left."""
    parts: list[RenderableType] = [_head(readings, hint)]
    parts += [Text(trouble, style="red") for trouble in readings.troubles]
    if readings.models:
        parts += [Text(), _models(readings.models)]
    woken = [(model.name, model.wake_up) for model in readings.models if model.wake_up]
    if woken:
        parts += [Text(), _wake_ups(woken)]
    return Group(*parts, Text(), _totals(readings))


def _head(readings: Readings, hint: str) -> RenderableType:
    line = Table.grid(expand=True)
    line.add_column(overflow="fold")
    line.add_column(justify="right", no_wrap=True)
    line.add_row(Text(readings.where, style="bold"), Text(f"{hint}  {time.strftime('%H:%M:%S')}".strip()))
    return line


def _models(models: Sequence[ModelReading]) -> Table:
    table = _table("model", "state")
    for title in ("slots", "running", "waiting", "tokens/s\n(ended)", "first token\n(mean)"):
        table.add_column(title, justify="right", no_wrap=True)
    for model in models:
        cells = [
            Text(model.name),
            Text(_state(model), style=STYLES.get(model.state, "")),
            Text(f"{_number(model.used)}/{_number(model.slots)}"),
            Text(_number(model.running)),
            Text(_number(model.waiting)),
            Text(_number(model.tokens_per_second, 1)),
            Text(_first_token(model.first_token)),
        ]
        table.add_row(*cells)
    return table


def _state(model: ModelReading) -> str:
    """With the phase, and how long it has lasted."""
    named = f"{model.state}: {model.phase}" if model.phase else model.state
    if model.for_seconds is None:
        return named
    if model.state == "waking" and model.expected_seconds is not None:
        return f"{named}, {model.for_seconds:.1f} of {model.expected_seconds:.1f} s"
    return f"{named}, {_duration(model.for_seconds)}"


def _first_token(seconds: float | None) -> str:
    return UNKNOWN if seconds is None else f"{seconds:.{3 if seconds < 1 else 1}f} s"


def _wake_ups(woken: Sequence[tuple[str, WakeUp]]) -> Table:
    table = _table("last wake-up", "", "by phase, seconds")
    for name, wake_up in woken:
        seconds = UNKNOWN if wake_up.seconds is None else f"{wake_up.seconds:.1f} s"
        if wake_up.seconds is not None and wake_up.expected_seconds:
            seconds = f"{wake_up.seconds:.1f} of {wake_up.expected_seconds:.1f} s"
        phases = ", ".join(f"{phase} {spent:.1f}" for phase, spent in wake_up.phases.items() if spent >= SHORT_SECONDS)
        table.add_row(Text(name), Text(seconds), Text(phases + (f" (mean of {wake_up.of})" if wake_up.of > 1 else "")))
    return table


def _totals(readings: Readings) -> Table:
    lines = Table.grid(padding=(0, 2))
    lines.add_column(no_wrap=True)
    lines.add_column()
    jobs = UNKNOWN
    if readings.jobs is not None:
        jobs = f"{_counts(readings.jobs) or 'none open'}; ended: {_counts(readings.jobs_ended) or 'none'}"
    lines.add_row(Text("jobs"), Text(jobs))
    over = f", of the last {_duration(readings.seconds)}" if readings.seconds else ""
    errors = readings.errors_per_second
    rates = Text(f"{_number(readings.requests_per_second, 2)}/s, errors ")
    lines.add_row(
        Text("requests"), rates.append(f"{_number(errors, 2)}/s", style="bold red" if errors else "").append(over)
    )
    return lines


def _table(*titles: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for title in titles:
        table.add_column(title, overflow="fold")
    return table


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{state} {count}" for state, count in counts.items() if count)


def _number(number: float | None, digits: int = 0) -> str:
    return UNKNOWN if number is None else f"{number:.{digits}f}"


def _duration(seconds: float) -> str:
    for unit, length in (("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"
