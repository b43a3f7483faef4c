"""The folder in which a scripts/run publishes its state to others on this machine, one for each port.

`state.json` is replaced whole whenever anything in it changes. Times are seconds since 1970:

    {
      "pid": 4711, "port": 8080,
      "metrics_url": "http://127.0.0.1:40003/metrics",    of web; null where METRICS_PORT is 0
      "idle_seconds": 300,               models fall asleep after so many seconds without a request; 0: never
      "models": {
        "poet": {
          "kind": "text", "url": "http://127.0.0.1:40001",
          "pid": 4713,                   of its predictor, or null
          "state": "waking",             asleep, waking, ready or failed
          "since": 1796031907.412,       when the state began
          "phase": "importing torch",    of waking, or null
          "why": null,                   why the latest start failed or the latest predictor ended badly, or null
          "retry_at": null,              when a connection may start the next one, or null if it may now
          "slots": 4,                    how many requests run at once, or null before it was known
          "wake_seconds": [4.81, 4.77]   how long the latest wake-ups took, the newest last
        }
      },
      "template": {                      of which models are forked when they wake up; or null
        "state": "ready",                off, starting or ready
        "resident_bytes": 324009984,
        "why": null                      why the latest one has ended, or null
      }
    }

It lies in /tmp: what TMPDIR or XDG_RUNTIME_DIR name differs between the shells of one user, and /run/user goes when the
user has logged out.

`failed`: the model is not started before `retry_at`, and until then every request is answered 503. A model whose
predictor ended badly may also be `asleep`: then a connection waits for the next start.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import stat
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

_SHARED = Path("/tmp")  # noqa: S108 (the folder in it is made for us alone, and checked)


class RunFolder:
    """The folder of the scripts/run on one port. The supervisor holds it; anybody may read it."""

    @classmethod
    def all(cls) -> list[Self]:
        """Those of this user, of runs that have ended, too; by port."""
        with suppress(OSError):
            names = os.listdir(_SHARED / f"shangcai-{os.getuid()}")
            return [cls(port) for port in sorted(int(name) for name in names if name.isdecimal())]
        return []

    def __init__(self, port: int) -> None:
        self.port = port
        self._home = _SHARED / f"shangcai-{os.getuid()}"
        self._folder = self._home / str(port)
        self._lock: int | None = None
        self._files: list[Path] = []

    @property
    def state_file(self) -> Path:
        return self._folder / "state.json"

    def hold(self) -> bool:
        """Lock the folder; False if another process has it. Raises an OSError if it cannot be made or is not safe."""
        self._home.mkdir(mode=0o700, exist_ok=True)
        if not self._is_ours():
            raise OSError(f"{self._home} is not a folder that only this user can write to; remove it")
        self._folder.mkdir(exist_ok=True)
        # On the folder itself: systemd's cleaner of /tmp leaves one alone that is locked.
        lock = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            return False
        self._lock = lock
        return True

    def open_notices(self, number: int) -> socket.socket:
        """The datagram socket to which the predictor of model `number` reports, as to systemd."""
        path = self._notices(number)
        path.unlink(missing_ok=True)
        receiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        receiver.bind(str(path))
        receiver.setblocking(False)
        self._files.append(path)
        return receiver

    def modules_file(self, number: int) -> Path:
        """The file in which the predictor of model `number` names the modules that it has imported."""
        path = self._folder / f"modules-{number}.json"
        self._files.append(path)
        return path

    def write(self, state: dict[str, Any]) -> bool:
        """Replace the state file; False if that fails: a full disk must not keep models from being served."""
        new = self.state_file.with_suffix(".new")
        try:
            new.write_text(json.dumps(state, ensure_ascii=False))
            new.replace(self.state_file)
        except OSError:
            return False
        return True

    def read(self) -> dict[str, Any] | None:
        """The state that the scripts/run on this port has written; None if none runs."""
        if not self._is_ours():
            return None
        with suppress(OSError, ValueError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
            probe.connect(str(self._notices(0)))  # refused if the supervisor no longer runs
            state: dict[str, Any] = json.loads(self.state_file.read_text())
            return state
        return None

    def release(self) -> None:
        """Remove the files and unlock the folder, if it is held."""
        if self._lock is None:
            return
        for path in [self.state_file, *self._files]:
            path.unlink(missing_ok=True)
        os.close(self._lock)
        self._lock = None

    def _is_ours(self) -> bool:
        """Whether what stands there is ours: anybody may have put something into the shared folder."""
        with suppress(OSError):
            status = self._home.lstat()
            return stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid() and not status.st_mode & 0o022
        return False

    def _notices(self, number: int) -> Path:
        return self._folder / f"notices-{number}"
