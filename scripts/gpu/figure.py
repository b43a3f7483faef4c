"""What a part of the check finds out, a line at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True)
class Figure:
    """A line of the table. `kept` says whether a promise holds that the figure is about; None where nothing is
    promised."""

    what: str
    value: float | int | str
    unit: str = ""
    kept: bool | None = None


@dataclass(frozen=True)
class Machine:
    """Where a part runs: a torch `device`, and a `folder` for models. On a CPU they are `small`, because it only shows
    that the check itself works."""

    device: str
    folder: Path

    @property
    def small(self) -> bool:
        return self.device == "cpu"


class Part(Protocol):
    """A module of the check."""

    def measure(self, machine: Machine) -> Iterator[Figure]:
        """Yield each figure as soon as it is known: what was yielded is kept, whatever happens to the rest."""
        ...
