"""A folder that lives as long as this process. What a killed one has left, the next one removes."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from pathlib import Path

PREFIX = "shangcai-gguf-"

_NEW_SECONDS = 60.0
"""A folder that was made so lately may not be locked yet."""

_held: tuple[Path, int] | None = None
"""The folder, and the descriptor that locks it."""


def temporary_folder() -> Path:
    """The same one for all of the process."""
    global _held
    if _held is None:
        _remove_abandoned()
        folder = Path(tempfile.mkdtemp(prefix=PREFIX))
        descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        _held = folder, descriptor
    return _held[0]


def remove_temporary_folder() -> None:
    """At the end of the process; nothing where there is none."""
    global _held
    if _held is not None:
        shutil.rmtree(_held[0], ignore_errors=True)
        os.close(_held[1])
        _held = None


def _remove_abandoned() -> None:
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        try:
            status = folder.lstat()
            if status.st_uid != os.geteuid() or time.time() - status.st_mtime < _NEW_SECONDS:
                continue
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError:
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
        except BlockingIOError:  # of a process that runs
            pass
        finally:
            os.close(descriptor)
