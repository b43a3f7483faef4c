"""The STATES_FILE in which the supervisor of this machine (scripts/run) reports the state of each model."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Literal, Protocol

from pydantic import BaseModel, ValidationError

log = logging.getLogger(__name__)


class ReportedState(BaseModel):
    """Of one model. `since` is in seconds since 1970; further members are ignored."""

    state: Literal["asleep", "waking", "ready", "failed"]
    since: float
    phase: str | None = None
    wake_seconds: list[float] = []


class Reports(Protocol):
    """What somebody reports who can see more than answers."""

    def of(self, model: str) -> ReportedState | None:
        """None where nothing is reported of it, or nothing just now."""


class _Document(BaseModel):
    models: dict[str, ReportedState]


class StatesFile:
    """Reads the file again whenever it has been replaced. While there is none that can be read, no state is known."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._read: tuple[int, int] | None = None
        self._models: dict[str, ReportedState] = {}

    def of(self, model: str) -> ReportedState | None:
        if self._path is None:
            return None
        try:
            status = self._path.stat()
            if self._read != (status.st_ino, status.st_mtime_ns):
                self._models = _Document.model_validate_json(self._path.read_bytes()).models
                self._read = status.st_ino, status.st_mtime_ns
        except (OSError, ValidationError) as error:
            log.debug("%s: %s", self._path, error)
            self._models, self._read = {}, None
        return self._models.get(model)
