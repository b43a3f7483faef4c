"""Which modules a predictor has imported, for the template to import before the next one is forked."""

from __future__ import annotations

import importlib
import json
import logging
import os
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from types import ModuleType

log = logging.getLogger(__name__)

VARIABLE = "SHANGCAI_MODULES_FILE"
"""Of the environment: the file in which a predictor names the modules that it has imported, once it is ready."""

_NOT_IMPORTED = {"__main__", "__mp_main__"}


def write_modules(path: Path) -> None:
    """Name all modules of this process, each after those that it imports. Nothing where that fails: the next
    start only takes longer."""
    names = [name for name, module in sys.modules.copy().items() if isinstance(module, ModuleType)]
    new = path.with_suffix(f".{os.getpid()}")
    with suppress(OSError):
        new.write_text(json.dumps(names))
        new.replace(path)


def read_modules(path: Path) -> list[str]:
    """The names in a file of `write_modules`; none where it cannot be read."""
    try:
        names = json.loads(path.read_text())
    except (OSError, ValueError):
        return []
    return [name for name in names if isinstance(name, str)]


def import_modules(names: Iterable[str]) -> None:
    """Import those that are not there yet. One that cannot be imported by itself is left to the predictor."""
    for name in names:
        if name in sys.modules or name in _NOT_IMPORTED:
            continue
        try:
            importlib.import_module(name)
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt | SystemExit):
                raise
            log.debug("%s is not imported: %s", name, error)


class ModuleFiles:
    """The files of all modules, as they were when they were imported, or soon after. What is imported already was
    `since` then, in nanoseconds of time.time_ns."""

    def __init__(self, since: int) -> None:
        self._since = since
        self._seen: dict[str, tuple[int, int, int] | None] = {}

    def import_modules(self, names: Iterable[str]) -> None:
        """Import those that are not there yet, and look at the files of what is new."""
        begun = time.time_ns() if self._seen else self._since
        import_modules(names)
        for file in _files() - self._seen.keys():
            version = _version(file)
            # What was written since then may have been read before.
            self._seen[file] = None if version is not None and version[0] >= begun else version

    def changed(self) -> str | None:
        """A file that is another one now; None where all are the same."""
        for file, version in self._seen.items():
            if _version(file) != version:
                return file
        return None


def _files() -> set[str]:
    files = (getattr(module, "__file__", None) for module in list(sys.modules.values()))
    return {file for file in files if isinstance(file, str)}


def _version(file: str) -> tuple[int, int, int] | None:
    try:
        status = os.stat(file)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino
