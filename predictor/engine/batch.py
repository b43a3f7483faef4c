"""What the scheduler needs of a running batch: rows join, are computed together, and leave."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from predictor.engine.events import End


class Row(Protocol):
    """A text or a picture in the batch."""

    @property
    def so_far(self) -> str:
        """How far it has come, in words for logs and problems."""
        ...


class RowOutput(Protocol):
    """Publishes the events of one row."""

    def finish(self) -> End:
        """Publish what was held back; the event that ends the row."""
        ...


class Batch(Protocol):
    """Rows that are computed together, all on the scheduler's thread. After a `step` that raised, the same rows or
    fewer may be stepped again."""

    slots: int
    """Most rows."""

    gather_seconds: float
    """How long the first row of an empty batch waits for others before the first step."""

    def __len__(self) -> int:
        """Rows that are in it."""
        ...

    @property
    def computing(self) -> Sequence[Row]:
        """Rows that have been through a step."""
        ...

    def join(self, row: Any) -> None: ...

    def remove(self, row: Any) -> None: ...

    def step(self) -> Sequence[Row]:
        """Compute one token or denoising step; the rows that are finished by it."""
        ...

    def reduce_memory(self) -> bool:
        """Use less memory from now on, at the cost of speed. False when nothing is left to reduce."""
        ...

    def close(self) -> None:
        """Let go of all rows. Called last, on the thread that called `step`."""
        ...
