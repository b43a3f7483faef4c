"""Medians of the rounds, and the table of them as Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

Figures = Mapping[str, float]
"""What one round of one contender gave, by the columns' titles."""


@dataclass(frozen=True)
class Column:
    """`best` chooses from the peers' values the one that others are compared with; None compares nothing."""

    title: str
    best: Callable[[Iterable[float]], float] | None = max
    beside: str | None = None
    """The only peer to compare with."""


def medians(rounds: Mapping[str, Sequence[Figures]]) -> dict[str, dict[str, float]]:
    """Of each contender that has had a round, in each column that it has in all of its rounds."""
    return {
        name: {title: statistics.median(one[title] for one in figures) for title in figures[0]}
        for name, figures in rounds.items()
        if figures
    }


def ratios(
    columns: Sequence[Column], found: Mapping[str, Figures], peers: Collection[str]
) -> dict[str, dict[str, float]]:
    """Of each contender to the best of the `peers` in each column; where none was measured there is no ratio."""
    best = {column.title: _best(column, found, peers) for column in columns}
    return {
        name: {title: value / peer for title, value in figures.items() if (peer := best.get(title))}
        for name, figures in found.items()
    }


def _best(column: Column, found: Mapping[str, Figures], peers: Collection[str]) -> float | None:
    allowed = [column.beside] if column.beside else peers
    values = [found[name][column.title] for name in allowed if name in found and column.title in found[name]]
    return column.best(values) if values and column.best else None


def render(columns: Sequence[Column], found: Mapping[str, Figures], peers: Collection[str]) -> str:
    """A row for each contender; in brackets its part of the best peer's."""
    parts = ratios(columns, found, peers)
    lines = ["| server | " + " | ".join(column.title for column in columns) + " |", "|---|" + "---|" * len(columns)]
    for name, figures in found.items():
        cells = [_cell(figures.get(column.title), parts[name].get(column.title)) for column in columns]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(value: float | None, part: float | None) -> str:
    if value is None:
        return ""
    written = f"{value:,.1f}" if value < 100 else f"{value:,.0f}"
    return written if part is None else f"{written} ({part:.2f})"
