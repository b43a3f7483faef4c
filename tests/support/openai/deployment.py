"""A scripts/run of small models for OpenAI's clients, with all of its models asleep when a test wants them so."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from scripts.local.run_folder import RunFolder
from tests.support.processes import ROOT
from tests.support.run import Run
from tests.support.waiting import wait_until

IDLE_SECONDS = "600"
"""Longer than any test: models fall asleep when they are told to, and at no other time."""

PAUSE_SECONDS = 0.02


class Deployment:
    """Serves the embedded models, and `others` by their names. A model that wakes up is forked from a template."""

    def __init__(self, others: dict[str, Path]) -> None:
        sources = {"poet": ROOT / "models" / "poet", "painter": ROOT / "models" / "painter", **others}
        flags = [flag for name, source in sources.items() for flag in ("--model", f"{name}={source}")]
        self.run = Run(*flags, "--idle", IDLE_SECONDS, "--template", "auto")
        self.url = f"{self.run.url}/v1"

    def begin(self) -> None:
        """Wait until it has started once, and put everything to sleep."""
        self.run.wait_for("template: ready")
        self.sleep()

    def sleep(self) -> None:
        """Let the predictors leave as they do when nobody has asked for long, until none is left."""
        try:
            wait_until(self._all_asleep, "all models are asleep", pause=PAUSE_SECONDS)
        except AssertionError as error:
            error.add_note(f"{self.states}\n{self.run.output}")
            raise

    @contextmanager
    def held(self) -> Iterator[Callable[[], None]]:
        """No model wakes up before the end of the context, or before what it gives is called."""
        supervisor = self.run.process.pid

        def stopped() -> bool:
            return Path(f"/proc/{supervisor}/stat").read_text().rpartition(")")[2].split()[0] == "T"

        os.kill(supervisor, signal.SIGSTOP)
        try:
            wait_until(stopped, "the supervisor is stopped")
            yield lambda: os.kill(supervisor, signal.SIGCONT)
        finally:
            os.kill(supervisor, signal.SIGCONT)

    @property
    def states(self) -> dict[str, str]:
        """Of the models, by their names."""
        return {name: model["state"] for name, model in self._models.items()}

    def close(self) -> None:
        self.run.close()

    @property
    def _models(self) -> dict[str, Any]:
        state = RunFolder(self.run.port).read()
        assert state is not None, self.run.output
        models: dict[str, Any] = state["models"]
        return models

    def _all_asleep(self) -> bool:
        models = self._models.values()
        for model in models:
            if model["state"] == "ready" and model["pid"] is not None:
                with suppress(ProcessLookupError):  # it has left
                    os.kill(model["pid"], signal.SIGTERM)
        return all(model["state"] == "asleep" and model["pid"] is None for model in models)
