"""Labels that have few values, whoever calls."""

from __future__ import annotations

OTHER = "other"
"""What all names are that are not told apart."""


class NameLimit:
    """Tells the first `most` names apart."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._names: set[str] = set()

    def label(self, name: str) -> str:
        """The name itself, or OTHER."""
        if name in self._names:
            return name
        if len(self._names) >= self._most:
            return OTHER
        self._names.add(name)
        return name
