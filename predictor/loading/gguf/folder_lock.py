"""A lock beside a folder, of the system: it ends with the process that holds it, however that ends."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from pathlib import Path

from predictor.errors import ModelError


class FolderLock:
    """Held by nobody, by several that `share` it, or by one that has it as its `own`."""

    def __init__(self, folder: Path) -> None:
        self._file = folder.with_name(f"{folder.name}.lock")
        self._descriptor: int | None = None

    def share(self, waiting: Callable[[], None] = lambda: None) -> None:
        """`waiting` is called before others are waited for."""
        self._take(fcntl.LOCK_SH, waiting)

    def own(self, waiting: Callable[[], None] = lambda: None) -> None:
        """What was known of the folder may be wrong by then: a shared lock is given up first."""
        self.release()
        self._take(fcntl.LOCK_EX, waiting)

    def try_to_own(self) -> bool:
        """Whether nobody else has it, so that it is ours."""
        try:
            self._take(fcntl.LOCK_EX, None)
        except BlockingIOError:
            return False
        return True

    def remove(self) -> None:
        """Its file, while it is our own."""
        self._file.unlink(missing_ok=True)

    def release(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _take(self, kind: int, waiting: Callable[[], None] | None) -> None:
        while True:
            try:
                if self._descriptor is None:
                    self._descriptor = os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                fcntl.flock(self._descriptor, kind | fcntl.LOCK_NB)
            except BlockingIOError:
                if waiting is None:
                    self.release()
                    raise
                waiting()
                assert self._descriptor is not None
                fcntl.flock(self._descriptor, kind)
            except OSError as error:
                raise ModelError(f"{self._file} cannot be locked: {error.strerror}") from error
            if self._is_current(self._descriptor):
                return
            self.release()  # the file was removed by who had the lock

    def _is_current(self, descriptor: int) -> bool:
        try:
            return os.path.samestat(os.fstat(descriptor), os.stat(self._file))
        except FileNotFoundError:
            return False
