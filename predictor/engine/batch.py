"""What the scheduler needs of a running batch: rows join, are computed together, and leave."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from predictor.engine.events import End


class Row(Protocol):
    """A text or a picture in the batch."""

    failure: Exception | None
    """What its own work raised in the last step: its beginning, its end, what is written of it. What is computed for
    several rows together is not its own."""

    @property
    def so_far(self) -> str:
        """How far it has come, in words for logs and problems."""
        ...


class RowOutput(Protocol):
    """Publishes the events of one row."""

    def finish(self) -> End:
        """Publish what was held back; the event that ends the row."""
        ...


def _no_heartbeat() -> None:
    """Nobody watches."""


class Batch(ABC):
    """Rows that are computed together, all on the scheduler's thread. After a `step` that raised, the same rows or
    fewer may be stepped again."""

    slots: int
    """Most rows."""

    gather_seconds = 0.0
    """How long the first row of an empty batch waits for others before the first step."""

    heartbeat: Callable[[], None] = staticmethod(_no_heartbeat)
    """To be called between the parts of a step that takes long for many rows: the device is not stuck."""

    @abstractmethod
    def __len__(self) -> int:
        """Rows that are in it."""

    @property
    @abstractmethod
    def computing(self) -> Sequence[Row]:
        """Rows that have been through a step."""

    @abstractmethod
    def join(self, row: Any) -> None:
        """Add a row: a new one, or one that was suspended."""

    @abstractmethod
    def remove(self, row: Any) -> None:
        """Let go of a row for good, whether it is in the batch or suspended."""

    def suspend(self, row: Any) -> None:
        """Take a row out for a while. What it has come to is kept where that takes little memory; what is not kept is
        computed again after it has joined."""
        self.remove(row)

    @abstractmethod
    def step(self) -> Sequence[Row]:
        """Compute one token or denoising step; the rows that are finished by it, and those with a `failure`, which has
        cost the others nothing. Raises what failed for several together."""

    def reduce_memory(self) -> bool:
        """Use less memory from now on, at the cost of speed. False when nothing is left to reduce."""
        return False

    def close(self) -> None:  # noqa: B027  most have nothing to do
        """Let go of all rows. Called last, on the thread that called `step`."""


MakeRow = Callable[[Any], tuple[Row, RowOutput]]
"""The row of a ScheduledTask that got a slot, and where its events go."""
