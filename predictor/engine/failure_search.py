"""Which row makes steps fail: the batch is stepped without half of the suspects, until one is left or none."""

from __future__ import annotations

from collections.abc import Sequence

from predictor.engine.batch import Row


class FailureSearch:
    """From a step that failed for no known reason to the row that fails alone, in about log2 of the rows that ran.

    Some suspects are tried in the batch, the others wait outside of it. Those that pass stay in the batch and go on.
    Whoever steps the batch says what became of it; when a row fails alone, `clear` ends the search.
    """

    def __init__(self) -> None:
        self._tried: list[Row] = []
        self._untried: list[Row] = []
        self.failed_together = 0
        """So many rows have failed together, with a last suspect among them that may pass alone; else 0."""

    @property
    def active(self) -> bool:
        return bool(self._tried or self._untried)

    def narrow(self, rows: Sequence[Row]) -> list[Row]:
        """A step of these two rows or more has failed: those of them to take out of the batch."""
        suspects = [row for row in rows if row in self._tried] or list(rows)
        self.failed_together = 0
        if len(suspects) == 1:  # the others pass without it; whether it fails without them is not known yet
            self.failed_together = len(rows)
            return self.isolate(suspects[0], rows)
        half = (len(suspects) + 1) // 2
        self._tried, self._untried = suspects[:half], suspects[half:]
        return list(self._untried)

    def isolate(self, suspect: Row, rows: Sequence[Row]) -> list[Row]:
        """Try this one of `rows` alone: the others, which are to be taken out of the batch."""
        self._tried, self._untried = [suspect], []
        return [row for row in rows if row is not suspect]

    def widen(self) -> list[Row]:
        """Those in the batch have passed: the rows to join it next. Without any the search is over."""
        half = (len(self._untried) + 1) // 2
        self._tried, self._untried = self._untried[:half], self._untried[half:]
        return list(self._tried)

    def forget(self, row: Row) -> None:
        """It has ended."""
        for rows in (self._tried, self._untried):
            if row in rows:
                rows.remove(row)

    def clear(self) -> None:
        """The row that fails has been found."""
        self._tried, self._untried, self.failed_together = [], [], 0
